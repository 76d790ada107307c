"""A running server that meets ids of a registry which another server has registered meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor
from muniment_schemas.framing import ALWAYS_SINGLE_OBJECT, CONFLUENT_MARKER, Confluent
from muniment_schemas.subjects import Schemas
from muniment_services import bootstrap
from muniment_services.api.services import Services
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.commands import Command, Context
from muniment_services.domain.deciders import DECIDERS
from muniment_services.domain.run import Run
from muniment_services.domain.run_life import CreateRun
from muniment_services.domain.schema_id import RegisterSchema
from muniment_services.log.base import LogUnavailable, Record
from muniment_services.write import record_of

SCHEMAS = Schemas.load()
IDS = {
    subject.fingerprint: number
    for number, subject in enumerate(SCHEMAS.by_version.values(), start=1)
    if subject.event_type not in ALWAYS_SINGLE_OBJECT
}
OTHERS = Codec(SCHEMAS, Confluent(IDS))
CREATE_RUN = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=1)


def run(folder: Path, test: Callable[[Services], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=folder)) as services:
            await test(services)

    asyncio.run(main())


async def append(services: Services, command: Command) -> Record:
    """What another server does on the same log: decide, encode with ids, append."""
    context = Context(
        now_ms=now_ms(),
        random=os.urandom,
        actor=Actor(principal_id="other", auth_method="local"),
        request_id="r",
        workspace="default",
    )
    event = DECIDERS[type(command)](services.fold.state, command, context)
    assert event is not None
    record = record_of(event, OTHERS, services.fold.log)
    return await services.fold.log.append(record)


async def register(services: Services, event_type: str) -> None:
    subject = SCHEMAS.newest[event_type]
    await append(
        services,
        RegisterSchema(
            registry_id=IDS[subject.fingerprint],
            fingerprint=subject.fingerprint.hex(),
            registry="http://registry",
            subject="s",
        ),
    )


async def created_run(services: Services) -> Run | None:
    record = await append(services, CREATE_RUN)
    assert record.value[:1] == CONFLUENT_MARKER
    await services.fold.caught_up()
    found = services.fold.state.get("run", record.key.decode())
    assert found is None or isinstance(found, Run)
    return found


def test_it_folds_them(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await register(services, "RunCreated")
        assert await created_run(services) is not None

    run(tmp_path, test)
    run(tmp_path, lambda services: asyncio.sleep(0))
    (tmp_path / "projections.duckdb").unlink()

    async def rebuilt(services: Services) -> None:
        assert await services.state("schema_id", str(IDS[SCHEMAS.newest["RunCreated"].fingerprint]))

    run(tmp_path, rebuilt)


def test_it_goes_on_when_the_catalog_cannot_be_read_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.fold.LOOK_UP_PAUSES_S", (0.01, 0.01, 0.01))
    failures = 2

    async def test(services: Services) -> None:
        await register(services, "RunCreated")
        read = services.fold.log.read

        def failing(*given: Any) -> Sequence[Record]:
            nonlocal failures
            if failures:
                failures -= 1
                raise LogUnavailable("no broker answers")
            return read(*given)

        monkeypatch.setattr(services.fold.log, "read", failing)
        assert await created_run(services) is not None
        assert failures == 0

    run(tmp_path, test)


def test_an_id_that_nobody_registered_stops_its_own_history_only(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        assert await created_run(services) is None
        (stopped,) = services.fold.state.quarantine.values()
        assert "registry id" in stopped.reason
        await register(services, "RunCreated")
        assert await created_run(services) is not None

    run(tmp_path, test)
