"""Calls are in the log before they are answered; what cannot be is refused, or counted as lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.memory_log import MemoryLog
from muniment_auth.principal import NOBODY, local_principal
from muniment_projections.runner import Runner
from muniment_schemas.codec import Codec
from muniment_schemas.events import ApiCalled, TrailGap
from muniment_schemas.subjects import Schemas
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.documents import current_state
from muniment_services.fold import Fold
from muniment_services.identities import Identities
from muniment_services.keys import open_keys
from muniment_services.log.base import ACCESS, CATALOG
from muniment_services.metrics import Metrics
from muniment_services.redaction import Redaction
from muniment_services.trail import Trail, TrailUnavailable
from muniment_services.write import Writer

ANA = local_principal("ana")
CODEC = Codec(Schemas.load())


class Stage:
    """A trail over a log in memory."""

    def __init__(self, folder: Path, degraded: bool) -> None:
        settings = Settings(data_dir=folder)
        self.log = MemoryLog()
        self.metrics = Metrics()
        self.runner = Runner(bootstrap.projections_store(folder / "p.duckdb", settings))
        state = current_state(self.runner.store)
        load = bootstrap._loader(self.runner)
        self.fold = Fold(self.log, CODEC, state, self.runner, load, lambda: 1)
        writer = Writer(self.log, CODEC, self.fold, self.runner, lambda: 1, lambda n: b"r" * n)
        identities = Identities(
            open_keys(settings),
            self.fold,
            lambda command: bootstrap._submit(writer, command),
            lambda: 1,
            lambda n: bytes(n),
        )
        self.trail = Trail(
            self.fold,
            CODEC,
            self.runner,
            identities,
            Redaction((), b"k"),
            bootstrap.SYSTEM,
            lambda: 7,
            self.metrics,
            degraded,
        )

    def call(self) -> ApiCalled:
        """A call of Ana's."""
        return ApiCalled(
            envelope=self.trail.envelope(ApiCalled, ANA.id, ANA.actor, "r"),
            method="GET",
            resources=(),
            resources_total=0,
            outcome="allowed",
            status=200,
            duration_us=1,
            bytes_in=0,
            level="metadata",
        )

    def recorded(self, topic: str = ACCESS) -> list[str]:
        """The types of what is in a topic."""
        return [event.envelope.type for event in self.events(topic)]

    def events(self, topic: str) -> Iterable[ApiCalled | TrailGap]:
        """What is in a topic."""
        for at, records in self.log.stored.items():
            if at.topic == topic:
                for record in records:
                    yield CODEC.decode(record.value)  # type: ignore[misc]


@asynccontextmanager
async def staged(folder: Path, degraded: bool = False) -> AsyncIterator[Stage]:
    stage = Stage(folder, degraded)
    await stage.log.start()
    stage.runner.start()
    stage.fold.start()
    stage.trail.start()
    try:
        yield stage
    finally:
        await stage.trail.close()
        await stage.log.close()
        await stage.fold.stop()
        await stage.runner.close()


def lost(metrics: Metrics) -> float:
    return next(
        family.samples[0].value
        for family in metrics.collect()
        if family.name == "muniment_trail_lost"
    )


def test_a_call_is_durable_and_its_caller_known_when_record_returns(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path) as stage:
            await stage.trail.record(ANA, stage.call())
            assert stage.recorded() == ["ApiCalled"]
            assert stage.recorded(CATALOG) == ["PrincipalRegistered"]

    asyncio.run(test())


def test_calls_that_come_together_are_one_commit(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path) as stage:
            stage.log.held = True
            waiting = [
                asyncio.create_task(stage.trail.record(NOBODY, stage.call())) for _ in range(10)
            ]
            while stage.log.in_flight_records < 10:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
            stage.log.release()
            await asyncio.gather(*waiting)
            assert stage.recorded() == ["ApiCalled"] * 10

    asyncio.run(test())


def test_without_the_log_a_call_is_refused_and_none_is_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path) as stage:
            stage.log.fail_next(1)
            with pytest.raises(TrailUnavailable, match="cannot be recorded"):
                await stage.trail.record(NOBODY, stage.call())
            stage.fold.stale_since_ms = 1
            with pytest.raises(TrailUnavailable):
                await stage.trail.record(NOBODY, stage.call())
            assert lost(stage.metrics) == 0

    asyncio.run(test())


def test_degraded_a_call_is_counted_as_lost_and_the_log_is_told_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path, degraded=True) as stage:
            stage.log.fail_next(3)
            for _ in range(3):
                await stage.trail.record(NOBODY, stage.call())
            assert lost(stage.metrics) == 3
            assert stage.recorded() == []
            await stage.trail.record(NOBODY, stage.call())
            await stage.trail.close()
            (gap,) = (event for event in stage.events(ACCESS) if isinstance(event, TrailGap))
            assert (gap.lost, gap.first_at_ms, gap.last_at_ms) == (3, 7, 7)
            assert "told to fail" in gap.reason

    asyncio.run(test())


def test_a_gap_that_cannot_be_told_is_told_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path, degraded=True) as stage:
            stage.log.fail_next(2)
            await stage.trail.record(NOBODY, stage.call())
            await stage.trail._tell()
            assert stage.recorded() == []
            await stage.trail._tell()
            assert stage.recorded() == ["TrailGap"]

    asyncio.run(test())


def test_reads_do_not_wait_until_the_trail_is_in_the_projections(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(tmp_path) as stage:
            await stage.trail.record(NOBODY, stage.call())
            await stage.fold.caught_up((ACCESS,))
            assert stage.runner.backlog == 1
            await stage.runner.fresh()
            assert stage.runner.backlog == 1, "an ordinary read has waited for a call"
            await stage.runner.fresh(trail=True)
            assert stage.runner.backlog == 0
            count = "SELECT count(*) FROM audit_events"
            assert await stage.runner.read(lambda c: c.execute(count).fetchall()) == [(1,)]

    asyncio.run(test())
