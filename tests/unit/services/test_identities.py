"""Principals are noted once, whoever sees them first, and named where they can be."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harness.begun import begun
from muniment_auth.identity import FolderKeys, KeysUnavailable
from muniment_auth.principal import Principal, local_principal, principal_id
from muniment_services import bootstrap
from muniment_services.api.services import Services
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.principal import KIND, PrincipalState
from muniment_services.identities import AT_HAND_MS, Identities
from muniment_services.write import Caller

ANNA = dataclasses.replace(
    local_principal("x"),
    id=principal_id("https://id.example", "4711"),
    kind="user",
    issuer="https://id.example",
    subject="4711",
    name="Anna",
)


class Down:
    """A place of keys that does not answer."""

    def put_new(self, name: str, content: bytes) -> bool:
        raise KeysUnavailable(name)

    def get(self, name: str) -> bytes | None:
        raise KeysUnavailable(name)


def run(folder: Path, test: Callable[[Services], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=begun(folder))) as services:
            await test(services)

    asyncio.run(main())


def identities(services: Services, place: object, at_ms: list[int] | None = None) -> Identities:
    async def submit(command: object) -> None:
        caller = Caller(actor=ANNA.actor, request_id="r", workspace="default")
        await services.writer.submit(caller, command, lambda _: b"")  # type: ignore[arg-type]

    clock = at_ms or [now_ms()]
    return Identities(place, services.fold, submit, lambda: clock[0], os.urandom)  # type: ignore[arg-type]


def test_however_many_see_it_first_a_principal_is_noted_once(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        before = len(list((tmp_path / "keys").iterdir()))
        await asyncio.gather(*(services.identities.register_once(ANNA) for _ in range(20)))
        state = services.fold.state.get(KIND, ANNA.id)
        assert isinstance(state, PrincipalState)
        assert (state.version, state.principal_kind) == (1, "user")
        assert len(list((tmp_path / "keys").iterdir())) == before + 1
        found = await services.identities.identity(ANNA.id)
        assert found is not None
        assert (found.issuer, found.subject, found.name) == (ANNA.issuer, "4711", "Anna")

    run(tmp_path, test)


def test_two_servers_that_see_it_at_once_agree(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        place = FolderKeys(tmp_path / "keys")
        both = [identities(services, place) for _ in range(2)]
        await asyncio.gather(*(one.register_once(ANNA) for one in both))
        state = services.fold.state.get(KIND, ANNA.id)
        assert isinstance(state, PrincipalState)
        assert state.version == 1
        fresh = identities(services, place)
        found = await fresh.identity(ANNA.id)
        assert found is not None
        assert found.name == "Anna"

    run(tmp_path, test)


def test_a_token_that_told_an_id_only_gets_its_name(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        bare: Principal = dataclasses.replace(ANNA, subject="", name=ANNA.id)
        fresh = identities(services, FolderKeys(tmp_path / "keys"))
        assert fresh.subject_and_name(ANNA.id) is None
        named = await fresh.named(bare)
        assert (named.subject, named.name) == ("4711", "Anna")
        assert fresh.subject_and_name(ANNA.id) == ("4711", "Anna")

    run(tmp_path, test)


def test_while_the_keys_are_away_who_is_known_is_served_and_who_is_new_is_not(
    tmp_path: Path,
) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        away = identities(services, Down())
        await away.register_once(ANNA)
        bare = dataclasses.replace(ANNA, subject="", name=ANNA.id)
        assert await away.named(bare) == bare
        with pytest.raises(KeysUnavailable):
            await away.identity(ANNA.id)
        with pytest.raises(KeysUnavailable):
            await away.register_once(dataclasses.replace(ANNA, id=principal_id("i", "new")))

    run(tmp_path, test)


def test_a_person_whose_key_is_destroyed_is_forgotten_within_an_hour(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        clock = [now_ms()]
        known = identities(services, FolderKeys(tmp_path / "keys"), clock)
        await known.register_once(ANNA)
        state = services.fold.state.get(KIND, ANNA.id)
        assert isinstance(state, PrincipalState)
        (tmp_path / "keys" / state.key_id).unlink()
        assert await known.identity(ANNA.id) is not None
        clock[0] += AT_HAND_MS
        assert await known.identity(ANNA.id) is None
        bare = dataclasses.replace(ANNA, subject="", name=ANNA.id)
        assert await known.named(bare) == bare
        assert await known.identity("nobody") is None

    run(tmp_path, test)
