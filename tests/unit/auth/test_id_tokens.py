"""ID tokens: good for the login that they were got by, for nothing else. OpenID Connect Core."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from harness.tokens import ID_SHAPES, Provider, rsa, signed
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import Unauthenticated
from muniment_auth.principal import Principal, principal_id

TOMORROW_S = int(time.time()) + 86_400
"""Parameters are made when tests are collected, and may be used much later."""


def logged_in(provider: Provider, token: str, nonce: str = "n-1") -> Principal:
    async def main() -> Principal:
        made = Authenticator([provider.issuer(client_id="web")], provider.transport())
        try:
            return await made.verify_id_token(provider.profile, token, nonce)
        finally:
            await made.close()

    return asyncio.run(main())


@pytest.mark.parametrize("profile", ID_SHAPES)
def test_a_login_is_by_a_person_of_each_kind_of_provider(profile: str) -> None:
    provider = Provider(profile)
    found = logged_in(provider, provider.id_token())
    assert (found.kind, found.auth_method, found.issuer) == ("user", "session", provider.url)
    assert found.subject == ("o-1" if profile == "entra" else "ana")


@pytest.mark.parametrize(
    ("profile", "claim"), [("entra", {"sub": "pairwise-of-the-login"}), ("okta", {"sub": "00u1"})]
)
def test_login_and_api_see_one_person_as_one_principal(profile: str, claim: dict[str, str]) -> None:
    """Their `sub` differs by application; two principals could approve each other's requests."""
    provider = Provider(profile)

    async def main() -> Principal:
        made = Authenticator([provider.issuer()], provider.transport())
        header = f"Bearer {provider.token()}"
        return await made.authenticate(header, None, "GET", "http://localhost/")

    by_token = asyncio.run(main())
    by_login = logged_in(provider, provider.id_token(**claim))
    assert by_login.id == by_token.id
    assert by_login.id != principal_id(provider.url, "pairwise-of-the-login")


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "n-2"},
        {"nonce": None},
        {"nonce": 1},
        {"nonce": ["n-1"]},
        {"nonce": ""},
        {"aud": "other"},
        {"aud": ["web", "other"], "azp": "other"},
        {"aud": ["web", "other"], "azp": None},
        {"azp": "other"},
        {"azp": 1},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"iat": TOMORROW_S},
        {"typ": "Bearer"},
        {"typ": None},
        {"typ": "Logout"},
        {"iss": "https://evil.test"},
        {"sub": None},
        {"sub": ""},
    ],
)
def test_what_is_no_id_token_of_this_login(changes: dict[str, Any]) -> None:
    provider = Provider("keycloak")
    with pytest.raises(Unauthenticated):
        logged_in(provider, provider.id_token(**{"nonce": "n-1", **changes}))


def test_an_id_token_has_the_issuers_signature_and_no_other_type() -> None:
    provider = Provider()
    claims = {**provider.claims(aud="web", nonce="n-1")}
    assert logged_in(provider, signed(provider.key, claims)).subject == "ana"
    for token in (
        signed(rsa("rsa-1"), claims),
        signed(rsa("other"), claims),
        signed(provider.key, claims, {"typ": "at+jwt"}),
        signed(provider.key, claims, {"typ": "logout+jwt"}),
        signed(provider.key, claims, {"kid": None}),
        "opaque",
        "",
    ):
        with pytest.raises(Unauthenticated):
            logged_in(provider, token)


def test_a_bearer_token_is_no_login() -> None:
    for profile in ("keycloak", "okta", "entra"):
        provider = Provider(profile)
        with pytest.raises(Unauthenticated):
            logged_in(provider, provider.token())
