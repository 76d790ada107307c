"""Records that cannot be folded: they stop their own history, are told, and are taken up again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.begun import begun
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor, Event
from muniment_schemas.events import BatchLogged, RecordQuarantined
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services import bootstrap
from muniment_services import state as state_module
from muniment_services.api.observability import checks
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.domain.errors import Quarantined
from muniment_services.domain.run import Run
from muniment_services.domain.run_data import LogBatch
from muniment_services.domain.run_life import CreateRun
from muniment_services.log.base import NewRecord, TopicPartition, partition_of
from muniment_services.quarantine import AT
from muniment_services.write import Caller, Outcome

ACTOR = Actor(principal_id="tester", auth_method="local")
CODEC = Codec(Schemas.load())
WITHIN_S = 10.0
REBUILT_WITHIN_S = 60.0
UNKNOWN = b"\xc3\x01" + b"\xee" * 8 + b"from a newer release"


def caller() -> Caller:
    return Caller(actor=ACTOR, request_id=os.urandom(4).hex(), workspace="default")


async def run_id_of(services: Services) -> str:
    command = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=1)
    found = await services.writer.submit(caller(), command, _id)
    return found.decode()


def _id(outcome: Outcome) -> bytes:
    assert outcome.event is not None
    return outcome.event.envelope.aggregate_id.encode()


async def tag(services: Services, run_id: str, key: str) -> None:
    command = LogBatch(run_id=run_id, tags=((key, "1"),))
    await services.writer.submit(caller(), command, lambda _: b"")


async def tags(services: Services, run_id: str) -> Mapping[str, str]:
    found = await services.state("run", run_id)
    assert isinstance(found, Run)
    return {key: value for key, value in found.tags.items() if not key.startswith("mlflow.")}


async def poison(services: Services, run_id: str) -> TopicPartition:
    """Append a record of the run that no release up to this one can read."""
    log = services.fold.log
    at = TopicPartition("runs", partition_of(run_id.encode(), log.partitions["runs"]))
    headers = (
        ("ce_id", b"01999999-0000-7000-8000-000000000000"),
        ("ce_type", b"RunPraised"),
        ("ce_subject", f"run/{run_id}".encode()),
    )
    await log.append(NewRecord(at, run_id.encode(), UNKNOWN, headers, 1_800_000_000_000))
    await services.fold.caught_up()
    return at


async def reports(services: Services) -> list[RecordQuarantined]:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        if records := services.fold.log.read(AT, Offset(0)):
            found = [CODEC.decode(record.value) for record in records]
            return [event for event in found if isinstance(event, RecordQuarantined)]
        await asyncio.sleep(0.1)
    raise AssertionError("nothing was reported")


def test_a_record_that_cannot_be_read_stops_its_own_history_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=begun(tmp_path))

    async def first() -> tuple[str, str]:
        async with bootstrap.services(settings) as services:
            stopped, other = await run_id_of(services), await run_id_of(services)
            await tag(services, stopped, "before")
            at = await poison(services, stopped)
            with pytest.raises(Quarantined):
                await services.state("run", stopped)
            with pytest.raises(Quarantined):
                await tag(services, stopped, "after")
            await tag(services, other, "after")
            assert await tags(services, other) == {"after": "1"}
            (entry,) = services.fold.state.quarantine.values()
            assert (entry.at, entry.event_type) == (at, "RunPraised")
            assert "newer" in entry.reason
            red = [check for check in checks(services) if check.status == "red"]
            assert [check.name for check in red] == ["quarantine"]
            (report,) = await reports(services)
            assert (report.topic, report.record_offset) == ("runs", entry.offset)
            assert (report.record_kind, report.record_id) == ("run", stopped)
            return stopped, other

    async def again(stopped: str, other: str) -> None:
        # A restart knows of it, and does not report it again.
        async with bootstrap.services(settings) as services:
            with pytest.raises(Quarantined):
                await services.state("run", stopped)
            assert await tags(services, other) == {"after": "1"}
            await asyncio.sleep(1.5)
            assert len(await reports(services)) == 1

    asyncio.run(again(*asyncio.run(first())))


@pytest.mark.parametrize("topic", ["runs", "catalog"])
@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"", b"", ()),
        (b"key", b"", ()),
        (b"", b"what is this", ()),
        (b"\xff\xfe", b"\x00\x00\x00\x00\x07", (("x", b""),)),
        (b"key", b"\xc3\x01", (("ce_subject", b"\xff/\xff/"), ("ce_id", b"no uuid"))),
    ],
)
def test_what_a_foreign_producer_wrote_stops_nothing_of_ours(
    tmp_path: Path, topic: str, key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    async def run(count: int) -> None:
        async with bootstrap.services(Settings(data_dir=begun(tmp_path))) as services:
            at = TopicPartition(topic, 0)
            await services.fold.log.append(NewRecord(at, key, value, headers, 1_800_000_000_000))
            run_id = await run_id_of(services)
            await tag(services, run_id, "after")
            assert await tags(services, run_id) == {"after": "1"}
            await services.runner.fresh()
            held = sum(1 + entry.held for entry in services.fold.state.quarantine.values())
            assert held == count
            assert [check.name for check in checks(services) if check.status == "red"]

    # The second time it starts on projections that have the first one's records.
    asyncio.run(run(1))
    asyncio.run(run(2))


def refusing(run_id: str, key: str) -> Mapping[str, Any]:
    """Evolvers with a fault: they fail at a tag of one run."""

    def evolve(state: Any, event: Event) -> Any:
        ours = event.envelope.aggregate_id == run_id
        if ours and isinstance(event, BatchLogged) and key in event.tags:
            raise ZeroDivisionError("a fault of ours")
        return EVOLVERS["run"](state, event)

    return {**EVOLVERS, "run": evolve}


@pytest.mark.slow
def test_what_was_held_takes_effect_once_a_release_can_fold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bootstrap.services(Settings(data_dir=begun(tmp_path))) as services:
            stopped, other = await run_id_of(services), await run_id_of(services)
            with monkeypatch.context() as faulty:
                faulty.setattr(state_module, "EVOLVERS", refusing(stopped, "hard"))
                await tag(services, stopped, "before")
                with pytest.raises(Quarantined):
                    await tag(services, stopped, "hard")
                await hold(services, stopped, "held")
                (entry,) = services.fold.state.quarantine.values()
                assert (entry.held, entry.reason) == (1, "ZeroDivisionError: a fault of ours")
                await tag(services, other, "meanwhile")
            services.rebuilder.start()
            await rebuilt(services)
            assert services.fold.state.quarantine == {}
            assert await tags(services, stopped) == {"before": "1", "hard": "1", "held": "1"}
            await tag(services, stopped, "after")
            await services.runner.fresh()
            assert "after" in await tags(services, stopped)
            assert await tags(services, other) == {"meanwhile": "1"}

    asyncio.run(run())


async def hold(services: Services, run_id: str, key: str) -> None:
    """A record of a stopped history that another replica, which can fold it, has written."""
    log = services.fold.log
    at = TopicPartition("runs", partition_of(run_id.encode(), log.partitions["runs"]))
    last = log.read(at, Offset((await log.end_offsets())[at] - 1), 1)[0]
    found = CODEC.decode(last.value)
    assert isinstance(found, BatchLogged)
    event = msgspec.structs.replace(found, tags={key: "1"})
    await log.append(NewRecord(at, last.key, CODEC.encode(event), last.headers, last.timestamp_ms))
    await services.fold.caught_up()


async def rebuilt(services: Services) -> None:
    deadline = asyncio.get_running_loop().time() + REBUILT_WITHIN_S
    while services.rebuilder.status.phase not in ("done", "failed"):
        assert asyncio.get_running_loop().time() < deadline, services.rebuilder.status
        await asyncio.sleep(0.05)
    assert services.rebuilder.status.phase == "done", services.rebuilder.status.error
