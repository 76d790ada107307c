"""Opaque tokens: asked about seldom, checked as others are, and closed while nobody answers."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from harness.tokens import Provider
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import AuthError, InsufficientScope, ProviderUnavailable, Unauthenticated
from muniment_auth.introspection import BREAKER_S, CACHED_S, FAILURES_MAX
from muniment_auth.principal import Principal

TOMORROW_S = int(time.time()) + 86_400
"""Parameters are made when tests are collected, and may be used much later."""


class Clocks:
    """Both kinds of time."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.ahead_s

    def steady_s(self) -> float:
        return time.monotonic() + self.ahead_s


def door(provider: Provider, clocks: Clocks | None = None, **settings: Any) -> Authenticator:
    clocks = clocks or Clocks()
    given = {"introspect": True, "client_id": "muni:ment", "client_secret": "s p", **settings}
    issuer = provider.issuer(**given)
    return Authenticator([issuer], provider.transport(), clocks.now_s, clocks.steady_s)


async def enter(made: Authenticator, token: str = "opaque") -> Principal:
    return await made.authenticate(f"Bearer {token}", None, "GET", "http://localhost/x")


def refusal(answer: dict[str, Any], profile: str = "generic", **settings: Any) -> AuthError:
    provider = Provider(profile)
    provider.opaque["opaque"] = {"active": True, **provider.claims(), **answer}
    with pytest.raises(AuthError) as caught:
        asyncio.run(enter(door(provider, **settings)))
    return caught.value


def test_the_server_says_who_it_is_in_the_form_that_the_standard_asks_for() -> None:
    provider = Provider()
    provider.opaque["opaque"] = {"active": True, **provider.claims()}
    assert asyncio.run(enter(door(provider))).auth_method == "introspection"
    scheme, _, both = provider.asked_as.partition(" ")
    assert (scheme, base64.b64decode(both)) == ("Basic", b"muni%3Ament:s%20p")


@pytest.mark.parametrize(
    "answer",
    [
        {"active": False},
        {"iss": "https://evil.test"},
        {"iss": 1},
        {"aud": "other"},
        {"aud": None},
        {"exp": 1},
        {"exp": "never"},
        {"nbf": TOMORROW_S},
        {"sub": None},
        {"sub": ""},
        {"token_type": "refresh_token"},
        {"token_type": 1},
        {"token_use": "refresh_token"},
        {"cnf": {"x5t#S256": "x"}},
        {"act": "x"},
    ],
)
def test_an_answer_is_checked_as_a_token_is(answer: dict[str, Any]) -> None:
    assert refusal(answer).status == 401


def test_settings_of_the_issuer_count_for_opaque_tokens_too() -> None:
    assert isinstance(refusal({}, required_scope="ml"), InsufficientScope)
    assert "client" in refusal({}, clients=frozenset({"other"})).description
    assert "DPoP" in refusal({}, dpop_required=True).description
    assert refusal({"typ": "Refresh"}, "keycloak").status == 401


def test_an_opaque_token_that_is_bound_to_a_key_is_no_bearer_token() -> None:
    key = ECKey.generate_key("P-256")
    assert "DPoP" in refusal({"cnf": {"jkt": key.thumbprint()}}).description


@pytest.mark.parametrize("answer", [{"active": "true"}, {"active": 1}, {}, {"active": None}])
def test_an_answer_that_says_nothing_lets_nobody_in(answer: dict[str, Any]) -> None:
    provider = Provider()
    provider.opaque["opaque"] = answer
    with pytest.raises(ProviderUnavailable):
        asyncio.run(enter(door(provider)))


def test_good_and_bad_are_remembered_for_half_a_minute() -> None:
    provider, clocks = Provider(), Clocks()
    made = door(provider, clocks)
    provider.opaque["opaque"] = {"active": True, **provider.claims()}

    async def main() -> None:
        for token in ("opaque", "unknown"):
            for _ in range(5):
                await asyncio.gather(
                    *(enter(made, token) for _ in range(5)), return_exceptions=True
                )
        assert provider.introspections == 2
        provider.opaque["unknown"] = provider.opaque.pop("opaque")
        clocks.ahead_s = CACHED_S - 1
        assert (await enter(made, "opaque")).subject == "ana"
        clocks.ahead_s = CACHED_S + 1
        with pytest.raises(Unauthenticated):
            await enter(made, "opaque")
        assert (await enter(made, "unknown")).subject == "ana"

    asyncio.run(main())


def test_a_token_ends_when_it_says_so() -> None:
    provider, clocks = Provider(), Clocks()
    made = door(provider, clocks)
    end = int(time.time()) - 50
    provider.opaque["opaque"] = {"active": True, **provider.claims(exp=end)}

    async def main() -> None:
        await enter(made)
        assert made.known(b"Bearer opaque") is not None
        clocks.ahead_s = 15
        assert made.known(b"Bearer opaque") is None
        with pytest.raises(Unauthenticated):
            await enter(made)

    asyncio.run(main())


def test_a_provider_that_fails_is_left_alone_for_a_while() -> None:
    provider, clocks = Provider(), Clocks()
    made = door(provider, clocks)
    provider.opaque["known"] = {"active": True, **provider.claims()}
    failing = {"is": False}
    asked = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += request.method == "POST"
        if failing["is"] and request.method == "POST":
            return httpx.Response(500)
        return await provider.answer(request)

    issuer = provider.issuer(introspect=True, client_id="m", client_secret="s")
    made = Authenticator([issuer], httpx.MockTransport(answer), clocks.now_s, clocks.steady_s)

    async def main() -> None:
        await enter(made, "known")
        failing["is"] = True
        for number in range(FAILURES_MAX + 5):
            with pytest.raises(ProviderUnavailable) as caught:
                await enter(made, f"t{number}")
            assert 0 < (caught.value.retry_after_s or 0) <= BREAKER_S
        assert asked == 1 + FAILURES_MAX
        assert (await enter(made, "known")).subject == "ana", "what is known stays known"
        failing["is"] = False
        clocks.ahead_s = BREAKER_S + 1
        with pytest.raises(Unauthenticated):
            await enter(made, "t0")

    asyncio.run(main())


@pytest.mark.parametrize("token", ["x" * 5000, "ü", "a\nb", "a\x00"])
def test_what_can_be_no_token_is_not_asked_about(token: str) -> None:
    provider = Provider()
    with pytest.raises(Unauthenticated):
        asyncio.run(enter(door(provider), token))
    assert provider.introspections == 0


def test_jwts_are_never_shown_to_the_provider() -> None:
    provider = Provider()
    for token in (provider.token(exp=1), "eyJhbGciOiJub25lIn0.e30.", provider.token() + ".x"):
        with pytest.raises(Unauthenticated):
            asyncio.run(enter(door(provider), token))
    assert provider.introspections == 0


def test_two_issuers_are_not_shown_each_others_tokens() -> None:
    issuers = [
        Provider(profile).issuer(introspect=True, client_id="m", client_secret="s")
        for profile in ("generic", "keycloak")
    ]
    with pytest.raises(ValueError, match="introspect"):
        Authenticator(issuers)
