"""A real issuer over HTTP: keys, rotation, faults and introspection, as in production."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harness.issuer import Client, Fault, Issuer, User
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import ProviderUnavailable, Unauthenticated
from muniment_auth.issuers import Issuer as Trusted
from muniment_auth.keys import COOLDOWN_S, FRESH_S, RETRY_S
from muniment_auth.principal import Principal

URL = "http://localhost:5000/x"


class Steady:
    """The clock that keys get old by."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    users = [User("ada", "Ada", groups=("ml",))]
    with Issuer(users, [Client("cli"), Client("server", "se:cret")]) as running:
        yield running


def trusting(issuer: Issuer, clock: Steady, introspect: bool = False) -> Authenticator:
    trusted = Trusted(
        name="small",
        url=issuer.url,
        audiences=("muniment",),
        client_id="server",
        client_secret="se:cret",
        introspect=introspect,
    )
    return Authenticator([trusted], clock=clock)


async def enter(made: Authenticator, token: str) -> Principal:
    return await made.authenticate(f"Bearer {token}", None, "GET", URL)


def test_tokens_hold_through_a_rotation_and_while_the_issuer_is_down(issuer: Issuer) -> None:
    clock = Steady()

    async def main() -> None:
        made = trusting(issuer, clock)
        assert (await enter(made, issuer.access_token("ada"))).groups == {"ml"}
        issuer.rotate_key()
        clock.s = COOLDOWN_S + 1
        tokens = [issuer.access_token("ada") for _ in range(20)]
        await asyncio.gather(*(enter(made, token) for token in tokens))
        assert issuer.asked("/keys") == 2
        for fault in (Fault.DOWN, Fault.ERROR):
            issuer.fault = fault
            clock.s += FRESH_S + 1
            assert (await enter(made, issuer.access_token("ada"))).subject == "ada"
        await asyncio.sleep(0.1)
        await made.close()

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.ERROR])
def test_a_server_outlives_a_start_without_its_issuer(issuer: Issuer, fault: Fault) -> None:
    clock = Steady()
    issuer.fault = fault

    async def main() -> None:
        made = trusting(issuer, clock)
        made.start()
        with pytest.raises(ProviderUnavailable):
            await enter(made, issuer.access_token("ada"))
        issuer.fault = Fault.NONE
        clock.s = RETRY_S + 1
        assert (await enter(made, issuer.access_token("ada"))).subject == "ada"
        await made.close()

    asyncio.run(main())


def test_what_is_minted_by_hand_is_checked(issuer: Issuer) -> None:
    async def main() -> None:
        made = trusting(issuer, Steady())
        for claims in ({"aud": "other"}, {"exp": 1}, {"iss": "https://evil.test"}):
            with pytest.raises(Unauthenticated):
                await enter(made, issuer.access_token("ada", **claims))
        with pytest.raises(Unauthenticated):
            await enter(made, issuer.mint(sub="ada", aud="muniment"))
        await made.close()

    asyncio.run(main())


def test_an_opaque_token_that_the_issuer_does_not_know(issuer: Issuer) -> None:
    clock = Steady()

    async def main() -> None:
        made = trusting(issuer, clock, introspect=True)
        with pytest.raises(Unauthenticated):
            await enter(made, "opaque")
        assert issuer.asked("/introspect") == 1
        issuer.fault = Fault.DOWN
        with pytest.raises(ProviderUnavailable):
            await enter(made, "another")
        await made.close()

    asyncio.run(main())


def test_the_discovery_document_is_for_logins_too(issuer: Issuer) -> None:
    async def main() -> None:
        made = trusting(issuer, Steady())
        assert (await made.metadata("small"))["token_endpoint"] == f"{issuer.url}/token"
        await made.close()

    asyncio.run(main())
