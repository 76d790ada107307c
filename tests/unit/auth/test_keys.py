"""Where keys come from: what is fetched, how often, and what happens when it is not there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from harness.tokens import Provider, rsa, signed
from muniment_auth import authenticate
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import ProviderUnavailable, Unauthenticated
from muniment_auth.keys import (
    COOLDOWN_S,
    DISCOVERY_FRESH_S,
    DOCUMENT_BYTES_MAX,
    FRESH_S,
    RETRY_S,
    UntrustedDocument,
    check_url,
)
from muniment_auth.principal import Principal

URL = "http://localhost/x"


class Steady:
    """The clock that keys get old by."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


async def enter(made: Authenticator, token: str) -> Principal:
    return await made.authenticate(f"Bearer {token}", None, "GET", URL)


def test_a_server_starts_while_its_provider_is_down_and_lets_in_soon_after() -> None:
    provider, clock = Provider(), Steady()
    provider.is_down = True

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        made.start()
        made.start()
        await asyncio.sleep(0)
        with pytest.raises(ProviderUnavailable) as caught:
            await enter(made, provider.token())
        assert (caught.value.status, caught.value.retry_after_s) == (503, RETRY_S)
        assert made.failures().keys() == {provider.url}
        provider.is_down = False
        clock.ahead_s = RETRY_S + 1
        assert (await enter(made, provider.token())).subject == "ana"
        assert made.failures() == {}
        await made.close()

    asyncio.run(main())


def test_keys_are_fetched_before_anyone_calls_and_again_before_they_get_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authenticate, "REFRESH_S", 0)
    provider, clock = Provider(), Steady()

    async def fetched(count: int) -> bool:
        for _ in range(1000):
            if provider.key_fetches == count:
                return True
            await asyncio.sleep(0)
        return False

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        made.start()
        assert await fetched(1)
        clock.ahead_s = FRESH_S + 1
        assert await fetched(2)
        assert provider.fetches == 3, "the discovery document is good for longer"
        clock.ahead_s = DISCOVERY_FRESH_S + 2
        assert await fetched(3)
        assert provider.fetches == 5
        await made.close()

    asyncio.run(main())


def test_an_unknown_key_is_not_called_bad_while_nobody_can_say() -> None:
    provider, clock = Provider(), Steady()
    stranger = signed(rsa("new-1"), provider.claims())

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        await enter(made, provider.token())
        with pytest.raises(Unauthenticated):
            await enter(made, stranger)
        provider.is_down = True
        clock.ahead_s = COOLDOWN_S + 1
        for _ in range(3):
            with pytest.raises(ProviderUnavailable) as caught:
                await enter(made, stranger)
            assert 0 < (caught.value.retry_after_s or 0) <= COOLDOWN_S
        assert (await enter(made, provider.token(sub="ben"))).subject == "ben"
        provider.is_down = False
        clock.ahead_s = 2 * COOLDOWN_S + 2
        with pytest.raises(Unauthenticated):
            await enter(made, stranger)

    asyncio.run(main())


def test_a_key_that_is_withdrawn_stops_counting() -> None:
    provider, clock = Provider(), Steady()

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        old = provider.token(sub="ben")
        await enter(made, provider.token())
        provider.keys = [rsa("rsa-2")]
        clock.ahead_s = COOLDOWN_S + 1
        assert (await enter(made, provider.token())).subject == "ana"
        with pytest.raises(Unauthenticated):
            await enter(made, old)

    asyncio.run(main())


def test_many_new_callers_after_a_rotation_wait_for_one_fetch() -> None:
    provider, clock = Provider(), Steady()

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        await enter(made, provider.token())
        provider.rotate()
        provider.delay_s = 0.02
        clock.ahead_s = COOLDOWN_S + 1
        tokens = [provider.token(sub=f"u{n}") for n in range(30)]
        found = await asyncio.gather(*(enter(made, token) for token in tokens))
        assert len({principal.id for principal in found}) == 30
        assert provider.key_fetches == 2

    asyncio.run(main())


def test_a_token_that_could_not_be_good_costs_no_fetch() -> None:
    provider = Provider()

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport())
        for token in (
            provider.token(exp=1),
            provider.token(aud="other"),
            provider.token(iss="https://evil.test"),
            provider.token({"kid": None}),
            provider.token(nonce="x"),
        ):
            with pytest.raises(Unauthenticated):
                await enter(made, token)
        assert provider.fetches == 0

    asyncio.run(main())


def test_keys_from_a_file_and_from_an_address_need_no_discovery(tmp_path: Path) -> None:
    provider = Provider("kubernetes")
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [provider.key.as_dict(private=False)]}))
    bearer = tmp_path / "token"
    bearer.write_text("of-the-pod\n")
    asked: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return await provider.answer(request)

    async def main() -> None:
        transport = httpx.MockTransport(answer)
        by_file = Authenticator([provider.issuer(jwks_file=file)], transport)
        assert (await enter(by_file, provider.token())).kind == "workload"
        assert not asked
        place = "https://10.0.0.1/openid/v1/jwks"
        issuer = provider.issuer(jwks_url=place, fetch_token_file=bearer)
        by_url = Authenticator([issuer], transport)
        assert (await enter(by_url, provider.token())).kind == "workload"
        assert [str(request.url) for request in asked] == [place]
        assert asked[0].headers["authorization"] == "Bearer of-the-pod"
        missing = Authenticator([provider.issuer(jwks_file=tmp_path / "none")], transport)
        with pytest.raises(ProviderUnavailable):
            await enter(missing, provider.token())

    asyncio.run(main())


Answer = Callable[[httpx.Request], httpx.Response]


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(302, headers={"location": "https://evil.test/keys"}),
        lambda _: httpx.Response(200, content=b" " * (DOCUMENT_BYTES_MAX + 1)),
        lambda _: httpx.Response(200, content=b'{"keys": [], "keys": []}'),
        lambda _: httpx.Response(200, content=b"[" * 100_000),
        lambda _: httpx.Response(200, content=b'{"keys": {}}'),
        lambda _: httpx.Response(200, content=b"<html>"),
        lambda _: httpx.Response(200, content=b"\xff\xfe"),
        lambda _: httpx.Response(500, json={"keys": []}),
        lambda _: httpx.Response(404),
    ],
)
def test_answers_that_are_not_taken(answer: Answer) -> None:
    provider = Provider()
    seen: list[str] = []

    async def answered(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        if request.url.path.endswith("/keys"):
            return answer(request)
        return await provider.answer(request)

    async def main() -> None:
        made = Authenticator([provider.issuer()], httpx.MockTransport(answered))
        with pytest.raises(ProviderUnavailable):
            await enter(made, provider.token())
        assert set(seen) == {"idp.test"}

    asyncio.run(main())


def test_a_set_of_good_keys_is_bounded_too() -> None:
    provider = Provider()
    provider.also_listed = [{"kid": "x" * DOCUMENT_BYTES_MAX}]

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport())
        with pytest.raises(ProviderUnavailable):
            await enter(made, provider.token())
        assert "longer" in made.failures()[provider.url]

    asyncio.run(main())


@pytest.mark.parametrize(
    "place", ["http://evil.test/keys", "ftp://idp.test", "", 1, None, "https://[x"]
)
def test_a_document_cannot_send_us_to_plain_text(place: object) -> None:
    provider = Provider()

    async def answered(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "idp.test"
        return httpx.Response(200, json={"issuer": provider.url, "jwks_uri": place})

    async def main() -> None:
        made = Authenticator([provider.issuer()], httpx.MockTransport(answered))
        with pytest.raises(ProviderUnavailable):
            await enter(made, provider.token())

    asyncio.run(main())


@pytest.mark.parametrize("url", ["https://idp.test", "http://127.0.0.1:1/x", "http://localhost"])
def test_addresses_that_only_the_provider_answers_for(url: str) -> None:
    assert check_url(url) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "url", ["http://idp.test", "http://127.0.0.1.evil.test", "idp", "https://"]
)
def test_addresses_that_others_could_answer_for(url: str) -> None:
    with pytest.raises(UntrustedDocument):
        check_url(url)


def test_metadata_outlive_a_provider_that_goes_down() -> None:
    provider, clock = Provider(), Steady()

    async def main() -> None:
        made = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        first = await made.metadata("generic")
        assert first["issuer"] == provider.url
        provider.is_down = True
        clock.ahead_s = DISCOVERY_FRESH_S + 1
        assert await made.metadata("generic") == first
        other = Authenticator([provider.issuer()], provider.transport(), clock=clock)
        with pytest.raises(ProviderUnavailable):
            await other.metadata("generic")

    asyncio.run(main())
