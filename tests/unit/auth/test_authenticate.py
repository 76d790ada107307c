"""Tokens of all kinds of providers, and what happens while a provider changes keys or is down."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harness.tokens import AUDIENCE, SHAPES, TENANT, Provider, reached, rsa, signed
from muniment_auth.authenticate import RECHECK_S, Authenticator
from muniment_auth.errors import InsufficientScope, ProviderUnavailable, Unauthenticated
from muniment_auth.keys import COOLDOWN_S, FRESH_S, RETRY_S, STALE_S_MAX
from muniment_auth.principal import Principal, principal_id


class Clock:
    """A clock that is set by hand, for both kinds of time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.ahead_s

    def steady_s(self) -> float:
        return time.monotonic() + self.ahead_s


def door(provider: Provider, clock: Clock | None = None, **settings: Any) -> Authenticator:
    clock = clock or Clock()
    issuer = provider.issuer(**settings)
    return Authenticator([issuer], provider.transport(), clock.now_s, clock.steady_s)


async def enter(made: Authenticator, token: str, scheme: str = "Bearer") -> Principal:
    return await made.authenticate(f"{scheme} {token}", None, "GET", "http://localhost/x")


def admitted(provider: Provider, token: str | None = None, **settings: Any) -> Principal:
    async def main() -> Principal:
        return await enter(door(provider, **settings), token or provider.token())

    return asyncio.run(main())


def refusal(provider: Provider, token: str, **settings: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        admitted(provider, token, **settings)
    assert token not in caught.value.description
    return caught.value.description


@pytest.mark.parametrize("profile", SHAPES)
def test_each_kind_of_provider_is_understood(profile: str) -> None:
    provider = Provider(profile)
    found = admitted(provider)
    claims = provider.claims()
    subject = claims[provider.issuer().profile.subject[0]]
    assert found.id == principal_id(provider.url, subject)
    assert (found.issuer, found.subject, found.auth_method) == (provider.url, subject, "bearer")
    workload = profile in ("github-actions", "gitlab", "kubernetes")
    assert found.kind == ("workload" if workload else "user")
    assert found.groups == (frozenset({"team"}) if "groups" in SHAPES[profile] else frozenset())
    assert found.client_id == (None if workload else "app")


@pytest.mark.parametrize(
    ("profile", "name", "value"),
    [
        ("github-actions", "repository_id", "4711"),
        ("github-actions", "environment", "production"),
        ("gitlab", "project_id", "7"),
        ("kubernetes", "kubernetes.io.namespace", "training"),
        ("kubernetes", "kubernetes.io.serviceaccount.name", "trainer"),
        ("entra", "roles", "Writer"),
        ("google", "hd", "corp.test"),
    ],
)
def test_claims_that_grants_may_be_bound_to_are_kept(profile: str, name: str, value: str) -> None:
    assert admitted(Provider(profile)).claims[name] == (value,)


def test_claims_that_say_who_a_person_is_are_not_kept() -> None:
    assert "email" not in admitted(Provider("google")).claims


def test_an_entra_tenant_has_two_forms_of_issuer_and_no_other() -> None:
    provider = Provider("entra")
    first = f"https://sts.windows.net/{TENANT}/"
    assert admitted(provider, provider.token(iss=first)).issuer == provider.url
    other = "99999999-2222-3333-4444-555555555555"
    for iss in (first[:-1], first.replace(TENANT, other), provider.url + "/"):
        refusal(provider, provider.token(iss=iss))


@pytest.mark.parametrize(
    "shape",
    [{"hasgroups": True}, {"_claim_names": {"groups": "src1"}, "_claim_sources": {}}],
)
def test_groups_that_entra_leaves_out_are_not_taken_for_none(shape: dict[str, Any]) -> None:
    provider = Provider("entra")
    found = admitted(provider, provider.token(groups=None, **shape))
    assert found.groups == frozenset()
    assert found.groups_unknown is not None
    assert "too many" in found.groups_unknown


def test_scopes_of_ours_limit_and_others_do_not() -> None:
    provider = Provider()
    assert admitted(provider, provider.token(scope="openid email")).scopes is None
    limited = admitted(provider, provider.token(scope="openid muniment:run:* muniment:model:read"))
    assert limited.scopes == frozenset({"run:*", "model:read"})
    assert admitted(provider, provider.token(scp=["muniment:*:read"])).scopes == frozenset(
        {"*:read"}
    )


def test_who_acts_for_whom_is_kept() -> None:
    provider = Provider()
    act = {"sub": "agent", "act": {"iss": "https://other.test", "sub": "tool"}}
    assert admitted(provider, provider.token(act=act)).delegation == (
        principal_id(provider.url, "agent"),
        principal_id("https://other.test", "tool"),
    )
    for _ in range(6):
        act = {"sub": "x", "act": act}
    assert "actors" in refusal(provider, provider.token(act=act))


@pytest.mark.parametrize(
    ("profile", "shape", "kind"),
    [
        ("keycloak", {"preferred_username": "service-account-app"}, "service"),
        ("keycloak", {"preferred_username": "service-account-other"}, "user"),
        ("keycloak", {"client_id": "app", "clientHost": "10.0.0.1"}, "service"),
        ("keycloak", {"client_id": "app"}, "user"),
        ("entra", {"sub": "o-1", "scp": None}, "service"),
        ("entra", {"sub": "o-1"}, "user"),
        ("okta", {"sub": "app", "uid": None}, "service"),
        ("entra", {"idtyp": "app", "scp": None}, "service"),
        ("generic", {"sub": "app"}, "service"),
        ("keycloak", {"preferred_username": "ana"}, "user"),
    ],
)
def test_services_are_told_from_people(profile: str, shape: dict[str, Any], kind: str) -> None:
    provider = Provider(profile)
    assert admitted(provider, provider.token(**shape)).kind == kind


@pytest.mark.parametrize("leeway", [-30, 30])
def test_clocks_may_differ_by_a_minute(leeway: int) -> None:
    provider, now = Provider(), int(time.time())
    token = provider.token(exp=now - 30) if leeway < 0 else provider.token(nbf=now + 30)
    assert admitted(provider, token).subject == "ana"


def test_a_known_caller_costs_no_question() -> None:
    provider = Provider()
    made, token = door(provider), provider.token()
    header = f"Bearer {token}".encode()

    async def main() -> None:
        assert made.known(header) is None
        found = await enter(made, token)
        asked = provider.fetches
        assert made.known(header) is found
        assert made.known(b"bearer " + token.encode()) is found
        assert made.known(b"DPoP " + token.encode()) is None
        assert made.known(header + b"x") is None
        assert provider.fetches == asked

    asyncio.run(main())


def test_a_known_caller_is_checked_again_and_ends_with_its_token() -> None:
    provider, clock = Provider(), Clock()
    made, token = door(provider, clock), provider.token()
    header = f"Bearer {token}".encode()

    async def main() -> None:
        await enter(made, token)
        clock.ahead_s = RECHECK_S + 1
        assert made.known(header) is None
        assert (await enter(made, token)).subject == "ana"
        clock.ahead_s = 3600
        assert made.known(header) is None
        with pytest.raises(Unauthenticated, match="expired"):
            await enter(made, token)

    asyncio.run(main())


def test_a_new_key_is_fetched_once_it_is_used() -> None:
    provider, clock = Provider(), Clock()
    made = door(provider, clock)

    async def main() -> None:
        await enter(made, provider.token())
        old = provider.token(sub="ben")
        provider.rotate()
        clock.ahead_s = COOLDOWN_S + 1
        assert (await enter(made, provider.token())).subject == "ana"
        assert (await enter(made, old)).subject == "ben"
        assert provider.fetches == 3, "discovery once, keys twice"

    asyncio.run(main())


def test_unknown_keys_cause_no_storm_of_questions() -> None:
    provider, clock = Provider(), Clock()
    made, stranger = door(provider, clock), rsa("nobody")

    async def main() -> None:
        await enter(made, provider.token())
        for round_of in range(3):
            clock.ahead_s += COOLDOWN_S + 1
            before = provider.fetches
            tokens = [signed(stranger, provider.claims(jti=str(n))) for n in range(50)]
            found = await asyncio.gather(*(enter(made, t) for t in tokens), return_exceptions=True)
            assert all(isinstance(error, Unauthenticated) for error in found)
            assert provider.fetches - before <= 2, round_of

    asyncio.run(main())


def test_first_callers_wait_for_one_fetch_together() -> None:
    provider = Provider()
    provider.delay_s = 0.05
    made = door(provider)

    async def main() -> None:
        tokens = [provider.token(sub=f"u{n}") for n in range(20)]
        await asyncio.gather(*(enter(made, token) for token in tokens))
        assert provider.fetches == 2, "one discovery document and one key set"

    asyncio.run(main())


def test_old_keys_stay_good_while_the_provider_is_down() -> None:
    provider, clock = Provider(), Clock()
    made = door(provider, clock)

    async def main() -> None:
        await enter(made, provider.token())
        provider.is_down = True
        for ahead_s in (FRESH_S + 1, 3600, STALE_S_MAX - 60):
            clock.ahead_s = ahead_s
            now = int(clock.now_s())
            token = provider.token(iat=now, nbf=now, exp=now + 600)
            assert (await enter(made, token)).subject == "ana"
            await asyncio.sleep(0)
        assert made.failures(), "the failure can be seen"
        clock.ahead_s = STALE_S_MAX + 60
        now = int(clock.now_s())
        with pytest.raises(ProviderUnavailable):
            await enter(made, provider.token(iat=now, nbf=now, exp=now + 600))
        provider.is_down = False
        clock.ahead_s += COOLDOWN_S + 1
        assert (await enter(made, provider.token(iat=now, nbf=now, exp=now + 600))).subject == "ana"

    asyncio.run(main())


def test_nobody_is_let_in_while_there_never_were_keys() -> None:
    provider = Provider()
    provider.is_down = True

    async def main() -> None:
        with pytest.raises(ProviderUnavailable) as caught:
            await enter(door(provider), provider.token())
        assert caught.value.retry_after_s == RETRY_S

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    ["another issuer's document", "no keys", "keys that encrypt", "short RSA keys", "keys of oct"],
)
def test_documents_that_are_not_to_be_trusted(wrong: str) -> None:
    provider = Provider()
    issuer = provider.issuer()
    match wrong:
        case "another issuer's document":
            provider.url = "https://evil.test"
        case "no keys":
            provider.keys = [rsa()]
            provider.keys[0].as_dict = lambda **_: {}  # type: ignore[method-assign]
        case "keys that encrypt":
            key = rsa()
            whole = key.as_dict(private=False)
            key.as_dict = lambda **_: {**whole, "use": "enc"}  # type: ignore[method-assign]
            provider.keys = [key]
        case "short RSA keys":
            provider.keys = [rsa(bits=1024)]
        case "keys of oct":
            provider.keys[0].as_dict = lambda **_: {  # type: ignore[method-assign]
                "kty": "oct",
                "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
                "kid": "rsa-1",
            }
    token = signed(provider.key, provider.claims(iss=issuer.url))

    async def main() -> None:
        made = Authenticator([issuer], provider.transport())
        with pytest.raises(ProviderUnavailable):
            await enter(made, token)
        assert made.failures()

    asyncio.run(main())


def test_two_issuers_do_not_vouch_for_each_other() -> None:
    one, other = Provider("generic"), Provider("keycloak")

    async def main() -> None:
        made = Authenticator([one.issuer(), other.issuer()], reached(one, other))
        assert (await enter(made, one.token())).issuer == one.url
        assert (await enter(made, other.token())).issuer == other.url
        for key, claims in ((one.key, other.claims()), (other.key, one.claims())):
            with pytest.raises(Unauthenticated, match="signature"):
                await enter(made, signed(key, claims))

    asyncio.run(main())


def test_opaque_tokens_are_asked_about_once_in_a_while() -> None:
    provider, clock = Provider(), Clock()
    made = door(provider, clock, introspect=True, client_id="muniment", client_secret="s")
    provider.opaque["opaque-1"] = {"active": True, **provider.claims()}
    provider.opaque["opaque-2"] = {"active": True, **provider.claims(aud="other")}

    async def main() -> None:
        found = await asyncio.gather(*(enter(made, "opaque-1") for _ in range(10)))
        assert {principal.subject for principal in found} == {"ana"}
        assert found[0].auth_method == "introspection"
        assert provider.introspections == 1
        for token in ("opaque-2", "unknown"):
            with pytest.raises(Unauthenticated):
                await enter(made, token)
        provider.opaque.clear()
        clock.ahead_s = 200
        with pytest.raises(Unauthenticated):
            await enter(made, "opaque-1")
        provider.is_down = True
        clock.ahead_s = 260
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await enter(made, "opaque-1")

    asyncio.run(main())


def test_without_introspection_opaque_tokens_prove_nothing() -> None:
    provider = Provider()
    refusal(provider, "opaque")
    assert provider.fetches == provider.introspections == 0


def test_the_audience_may_be_one_of_several() -> None:
    provider = Provider()
    token = provider.token(aud=["x", AUDIENCE])
    assert admitted(provider, token).subject == "ana"
    assert admitted(provider, provider.token(aud="b"), audiences=("a", "b")).subject == "ana"


def test_only_clients_that_are_named_and_scopes_that_are_asked_for() -> None:
    provider = Provider()
    assert admitted(provider, clients=frozenset({"app"})).client_id == "app"
    assert "client" in refusal(provider, provider.token(client_id="x"), clients=frozenset({"app"}))
    with pytest.raises(InsufficientScope) as caught:
        admitted(provider, required_scope="ml")
    assert (caught.value.status, caught.value.error) == (403, "insufficient_scope")
    assert admitted(provider, provider.token(scope="a ml"), required_scope="ml").subject == "ana"
