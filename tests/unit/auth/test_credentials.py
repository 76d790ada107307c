"""Who a token or a session cookie authenticates, and why it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from muniment_auth import sessions
from muniment_auth.credentials import (
    DAY_MS,
    CredentialError,
    CredentialExpired,
    CredentialMalformed,
    CredentialRevoked,
    Credentials,
    CredentialUnknown,
    CrossSiteRefused,
)
from muniment_auth.sessions import SESSION_COOKIE
from muniment_auth.tokens import SESSION_PREFIX, TOKEN_PREFIX, Secret, new_secret

NOW = 1_700_000_000_000
GROUPS_DAYS = 30
PAGE = {b"host": b"muniment.example", b"origin": b"https://muniment.example"}


@dataclass(frozen=True)
class Said:
    groups: tuple[str, ...] = ("ml",)
    groups_unknown: str | None = None
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vouched_at_ms: int = NOW


@dataclass(frozen=True)
class Kept:
    credential_id: str
    secret_sha256: bytes
    credential_kind: str = "personal"
    principal_id: str = "anna-id"
    principal_kind: str = "user"
    issued_by: str = "anna-id"
    issuer: str = "https://id.example"
    scopes: tuple[str, ...] = ()
    said: Said = field(default_factory=lambda: Said())
    client_id: str | None = "cli"
    expires_at_ms: int = NOW + 1000
    revoked_at_ms: int | None = None


def kept(secret: Secret, kind: str = "personal") -> Kept:
    return Kept(secret.id, secret.sha256, kind)


def credentials(
    *known: Kept,
    names: Mapping[str, tuple[str, str]] | None = None,
    latest: Said | None = None,
) -> Credentials:
    by_id = {one.credential_id: one for one in known}
    return Credentials(by_id.get, dict(names or {}).get, None, lambda _: latest, GROUPS_DAYS)


CHANCE = Random(1).randbytes
TOKEN = new_secret(TOKEN_PREFIX, CHANCE)
SESSION = new_secret(SESSION_PREFIX, CHANCE)
COOKIES = f"a=b; {SESSION_COOKIE}={SESSION.text}"


def test_a_token_authenticates_its_principal_as_it_was_when_it_was_issued() -> None:
    said = Said(claims={"team": ("x",)}, groups_unknown="many")
    one = replace(kept(TOKEN), scopes=("run:*",), said=said)
    found = credentials(one).authenticate_token(TOKEN.text, NOW)
    assert (found.id, found.kind, found.issuer) == ("anna-id", "user", "https://id.example")
    assert (found.auth_method, found.token_id, found.client_id) == ("token", TOKEN.id, "cli")
    assert (found.groups, found.groups_unknown) == (frozenset({"ml"}), "many")
    assert (found.scopes, found.claims) == (frozenset({"run:*"}), said.claims)
    assert (found.subject, found.name) == ("", "anna-id")


def test_a_token_holds_what_its_owners_latest_sign_in_showed() -> None:
    latest = Said(groups=("ops",), claims={"team": ("y",)}, vouched_at_ms=NOW - DAY_MS)
    found = credentials(kept(TOKEN), latest=latest).authenticate_token(TOKEN.text, NOW)
    assert (found.groups, found.claims) == (frozenset({"ops"}), {"team": ("y",)})
    session = credentials(kept(SESSION, "session"), latest=latest)
    of_session = session.authenticate_session(COOKIES, "GET", {}, NOW)
    assert of_session is not None
    assert of_session.groups == {"ml"}, "a session is renewed by itself"


@pytest.mark.parametrize("latest", [None, Said(groups=("ops",), vouched_at_ms=NOW)])
def test_groups_and_claims_of_a_token_count_for_a_time_after_the_sign_in(
    latest: Said | None,
) -> None:
    end_ms = NOW + GROUPS_DAYS * DAY_MS
    one = replace(kept(TOKEN), expires_at_ms=end_ms + 1, said=Said(claims={"team": ("x",)}))
    known = credentials(one, names={"anna-id": ("4711", "Anna")}, latest=latest)
    assert known.authenticate_token(TOKEN.text, end_ms - 1).groups != frozenset()
    found = known.authenticate_token(TOKEN.text, end_ms)
    assert (found.id, found.groups, found.claims) == ("anna-id", frozenset(), {})
    assert found.subject == "", "what is granted to claims may ask for `sub`"
    assert found.groups_unknown is not None
    assert "last signed in on 2023-11-14" in found.groups_unknown
    assert "30 days" in found.groups_unknown


def test_a_service_token_never_loses_groups_that_it_never_had() -> None:
    one = replace(kept(TOKEN, "service"), expires_at_ms=NOW * 2, said=Said(groups=()))
    found = credentials(one).authenticate_token(TOKEN.text, NOW + 300 * DAY_MS)
    assert (found.groups, found.groups_unknown) == (frozenset(), None)


def test_no_scopes_are_no_limit_and_a_name_is_told_where_it_is_at_hand() -> None:
    known = credentials(kept(TOKEN), names={"anna-id": ("4711", "Anna")})
    found = known.authenticate_token(TOKEN.text, NOW)
    assert found.scopes is None
    assert (found.subject, found.name) == ("4711", "Anna")


@pytest.mark.parametrize(
    ("one", "text", "error"),
    [
        (kept(TOKEN), "mnt_", CredentialMalformed),
        (kept(TOKEN), TOKEN.text[:-1], CredentialMalformed),
        (kept(TOKEN), SESSION.text, CredentialMalformed),
        (kept(TOKEN), new_secret(TOKEN_PREFIX, CHANCE).text, CredentialUnknown),
        (
            kept(TOKEN),
            Secret(TOKEN_PREFIX, TOKEN.id, SESSION.secret).text,
            CredentialUnknown,
        ),
        (replace(kept(TOKEN), expires_at_ms=NOW), TOKEN.text, CredentialExpired),
        (replace(kept(TOKEN), revoked_at_ms=NOW - 1), TOKEN.text, CredentialRevoked),
        (
            replace(kept(TOKEN), revoked_at_ms=NOW - 1),
            Secret(TOKEN_PREFIX, TOKEN.id, SESSION.secret).text,
            CredentialUnknown,
        ),
        (kept(TOKEN, "session"), TOKEN.text, CredentialUnknown),
    ],
    ids=map(str, range(9)),
)
def test_why_a_token_authenticates_nobody(
    one: Kept, text: str, error: type[CredentialError]
) -> None:
    with pytest.raises(error) as raised:
        credentials(one).authenticate_token(text, NOW)
    assert type(raised.value) is error
    assert raised.value.reason
    for secret in (TOKEN.secret, SESSION.secret):
        assert secret not in str(raised.value)


def test_a_session_reads_without_a_csrf_token_and_writes_with_it() -> None:
    known = credentials(kept(SESSION, "session"))
    found = known.authenticate_session(COOKIES, "GET", {}, NOW)
    assert found is not None
    assert (found.auth_method, found.token_id) == ("session", SESSION.id)
    headers = PAGE | {b"x-csrf-token": sessions.csrf_token(SESSION).encode()}
    for method in ("POST", "PUT", "PATCH", "DELETE", "QUERY"):
        assert known.authenticate_session(COOKIES, method, headers, NOW) == found


@pytest.mark.parametrize(
    "headers",
    [
        PAGE,
        PAGE | {b"x-csrf-token": b""},
        PAGE | {b"x-csrf-token": b"wrong"},
        PAGE | {b"x-csrf-token": sessions.csrf_token(TOKEN).encode()},
        {b"host": b"muniment.example", b"x-csrf-token": sessions.csrf_token(SESSION).encode()},
        PAGE
        | {
            b"origin": b"https://evil.example",
            b"x-csrf-token": sessions.csrf_token(SESSION).encode(),
        },
        PAGE | {b"origin": b"null", b"x-csrf-token": sessions.csrf_token(SESSION).encode()},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_write_that_its_own_page_did_not_send_is_refused(
    method: str, headers: dict[bytes, bytes]
) -> None:
    known = credentials(kept(SESSION, "session"))
    with pytest.raises(CrossSiteRefused) as raised:
        known.authenticate_session(COOKIES, method, headers, NOW)
    assert sessions.csrf_token(SESSION) not in str(raised.value)


def test_without_a_session_cookie_there_is_nobody() -> None:
    known = credentials(kept(SESSION, "session"))
    assert known.authenticate_session("a=b", "GET", {}, NOW) is None
    assert known.authenticate_session("", "POST", {}, NOW) is None


@pytest.mark.parametrize(
    ("one", "cookies", "error"),
    [
        (kept(SESSION, "session"), f"{SESSION_COOKIE}=", CredentialMalformed),
        (kept(SESSION, "session"), f"{COOKIES}; {SESSION_COOKIE}=x", CredentialMalformed),
        (kept(TOKEN), f"{SESSION_COOKIE}={TOKEN.text}", CredentialMalformed),
        (kept(SESSION), COOKIES, CredentialUnknown),
        (kept(TOKEN), COOKIES, CredentialUnknown),
        (replace(kept(SESSION, "session"), expires_at_ms=NOW), COOKIES, CredentialExpired),
        (replace(kept(SESSION, "session"), revoked_at_ms=1), COOKIES, CredentialRevoked),
    ],
)
def test_why_a_session_authenticates_nobody(
    one: Kept, cookies: str, error: type[CredentialError]
) -> None:
    with pytest.raises(error):
        credentials(one).authenticate_session(cookies, "GET", {}, NOW)
