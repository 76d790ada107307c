"""What a caller that is not let in is told: RFC 6750, RFC 9449, RFC 9728."""

from __future__ import annotations

import asyncio

import pytest

from harness.tokens import Provider
from muniment_auth.authenticate import Authenticator
from muniment_auth.dpop import ALGORITHMS
from muniment_auth.errors import AuthError, InsufficientScope, ProviderUnavailable, Unauthenticated

METADATA = "https://ml.test/.well-known/oauth-protected-resource"


def refusal(authorization: str, provider: Provider | None = None, **settings: object) -> AuthError:
    provider = provider or Provider()
    made = Authenticator([provider.issuer(**settings)], provider.transport())
    with pytest.raises(AuthError) as caught:
        asyncio.run(made.authenticate(authorization, None, "GET", "http://localhost/"))
    return caught.value


def test_a_challenge_leads_to_the_metadata_and_says_what_is_wrong() -> None:
    told = Unauthenticated("the token has expired").challenge(METADATA)
    assert told == (
        f'Bearer resource_metadata="{METADATA}", error="invalid_token", '
        'error_description="the token has expired"'
    )
    assert Unauthenticated("x", None).challenge(METADATA) == (
        f'Bearer resource_metadata="{METADATA}"'
    )
    assert (
        InsufficientScope("the token lacks the scope ml").challenge(METADATA).startswith("Bearer")
    )


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\r\nset-cookie: x", "ü", "\x00", "a\x7fb"])
def test_a_challenge_is_one_line_that_nobody_can_break_out_of(text: str) -> None:
    told = Unauthenticated(text).challenge(METADATA)
    assert told.isprintable()
    assert told.isascii()
    assert told.count('"') == 6
    assert "\\" not in told


def test_who_has_to_prove_a_key_is_told_so() -> None:
    provider = Provider()
    error = refusal(f"Bearer {provider.token()}", provider, dpop_required=True)
    told = error.challenge(METADATA)
    assert told.startswith("DPoP ")
    assert f'algs="{" ".join(ALGORITHMS)}"' in told


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Token x", "bearer", " Bearer x", "Negotiate", "\x00"],
)
def test_what_is_no_bearer_token_at_all(authorization: str) -> None:
    error = refusal(authorization)
    assert (error.status, error.error) == (401, "invalid_request")


@pytest.mark.parametrize("authorization", ["Bearer  x", "Bearer x y", "BEARER \t", "Bearer ü"])
def test_what_is_no_token(authorization: str) -> None:
    assert refusal(authorization).error == "invalid_token"


def test_each_refusal_has_its_status() -> None:
    assert Unauthenticated("x").status == 401
    assert InsufficientScope("x").status == 403
    error = ProviderUnavailable("x", 7)
    assert (error.status, error.retry_after_s) == (503, 7)


def test_a_secret_is_not_told_with_its_issuer() -> None:
    assert "hush" not in repr(Provider().issuer(client_secret="hush"))
