"""Tokens and keys by themselves: each limit refuses alone, whatever would refuse later."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey

from harness.hostile_tokens import b64
from harness.tokens import Provider
from muniment_auth.authenticate import Authenticator
from muniment_auth.claims import HEADER_MEMBERS_MAX, read
from muniment_auth.errors import Unauthenticated
from muniment_auth.jose import UnusableKey, fits, is_signed_by, public_key


def token(header: dict[str, Any]) -> str:
    return f"{b64(json.dumps({'alg': 'RS256', **header}))}.{b64('{}')}.AAAA"


def test_a_header_has_few_members_and_an_algorithm_of_a_key_pair() -> None:
    few = {f"x{number}": 1 for number in range(HEADER_MEMBERS_MAX - 1)}
    assert read(token(few)).algorithm == "RS256"
    for header in ({**few, "y": 1}, {"alg": "HS256"}, {"alg": "none"}, {"alg": "A256KW"}):
        with pytest.raises(Unauthenticated):
            read(token(header))


@pytest.mark.parametrize(
    ("size", "good"), [(255, False), (256, True), (512, True), (1024, True), (1025, False)]
)
def test_rsa_keys_have_2048_to_8192_bits(size: int, good: bool) -> None:
    jwk = {"kty": "RSA", "n": b64(b"\xff" * size), "e": "AQAB"}
    if good:
        assert public_key(jwk).key_type == "RSA"
        return
    with pytest.raises(UnusableKey, match="bits"):
        public_key(jwk)


def test_a_key_is_public_whatever_is_given_and_verifies_by_its_own_algorithm_only() -> None:
    made = ECKey.generate_key("P-256")
    key = public_key(made.as_dict(private=True))
    assert not key.is_private
    assert fits(key, "ES256")
    for algorithm in ("ES384", "RS256", "Ed25519"):
        assert not fits(key, algorithm)
        assert not is_signed_by(key, algorithm, b"", bytes(64))


def test_where_login_and_api_share_an_id_a_scope_tells_access_tokens() -> None:
    provider = Provider()
    issuer = provider.issuer(client_id="web", audiences=("web",))
    made = Authenticator([issuer], provider.transport())

    async def enter(text: str) -> str:
        found = await made.authenticate(f"Bearer {text}", None, "GET", "http://localhost/")
        return found.subject

    async def main() -> None:
        assert await enter(provider.token(aud="web", scope="openid")) == "ana"
        with pytest.raises(Unauthenticated, match="ID token"):
            await enter(provider.id_token(None, at_hash=None))

    asyncio.run(main())
