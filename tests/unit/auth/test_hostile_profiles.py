"""All kinds of providers at once: no token of one passes for another's, or for another kind."""

from __future__ import annotations

import asyncio
import time

import pytest

from harness.hostile_profiles import World, corpus
from harness.tokens import ENTRA_V1, URLS, reached, signed
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import AuthError
from muniment_auth.keys import COOLDOWN_S

pytestmark = pytest.mark.filterwarnings("ignore:Key size:joserfc.errors.SecurityWarning")

ENOUGH = 180


class Clocks:
    """Both kinds of time, which a test sets ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.time()

    def steady_s(self) -> float:
        return time.monotonic() + self.ahead_s


def door(world: World, clocks: Clocks) -> Authenticator:
    audiences = ("muniment", "api://muniment")
    issuers = [p.issuer(client_id="web", audiences=audiences) for p in world.providers.values()]
    return Authenticator(issuers, reached(*world.providers.values()), clocks.now_s, clocks.steady_s)


async def refusal(made: Authenticator, token: str) -> AuthError | None:
    try:
        await made.authenticate(f"Bearer {token}", None, "GET", "http://localhost/")
    except AuthError as error:
        return error
    return None


def test_hostile_tokens_of_all_providers() -> None:
    world, clocks = World(), Clocks()
    tokens = corpus(world)
    assert len({item.token for item in tokens}) >= ENOUGH
    assert len({item.name for item in tokens}) == len(tokens)

    async def main() -> None:
        made = door(world, clocks)
        for provider in world.providers.values():
            assert await refusal(made, provider.token()) is None, provider.profile
        assert all(provider.key_fetches == 1 for provider in world.providers.values())
        clocks.ahead_s = COOLDOWN_S + 1
        for item in tokens:
            error = await refusal(made, item.token)
            assert error is not None, f"{item.name} lets in"
            assert (error.status, error.error) == (401, item.error), item.name
            assert item.token not in error.description, item.name
        for profile, provider in world.providers.items():
            assert provider.key_fetches <= 2, f"{profile}: one question within the cooldown"
            assert provider.fetches <= 3, profile
            assert await refusal(made, provider.token()) is None, profile
        await made.close()

    asyncio.run(main())


def test_keys_of_every_accepted_type_and_both_forms_of_entra_let_in() -> None:
    world = World()
    generic, entra = world.generic, world.providers["entra"]
    tokens = [
        signed(world.elliptic, generic.claims()),
        signed(world.wide, generic.claims(), {"alg": "ES384"}),
        signed(world.edwards, generic.claims()),
        signed(world.edwards, generic.claims(), {"alg": "EdDSA"}),
        signed(generic.key, generic.claims(), {"alg": "PS256"}),
        signed(world.pinned, generic.claims(), {"alg": "PS256"}),
        signed(generic.key, generic.claims(), {"typ": "at+jwt"}),
        signed(generic.key, generic.claims(), {"typ": "application/at+JWT"}),
        entra.token(**ENTRA_V1),
        entra.token({"typ": "JWT", "x5t": "AAAA"}),
    ]

    async def main() -> None:
        made = door(world, Clocks())
        for number, token in enumerate(tokens):
            assert await refusal(made, token) is None, number
        await made.close()

    asyncio.run(main())


@pytest.mark.parametrize("profile", URLS)
def test_every_claim_of_a_provider_is_listed(profile: str) -> None:
    provider = World().providers[profile]
    assert provider.issuer().profile.unlisted(provider.claims()) == frozenset()
    assert provider.issuer().profile.unlisted(["x"]) == {"x"}
    if profile == "entra":
        assert provider.issuer().profile.unlisted(provider.claims(**ENTRA_V1)) == frozenset()
