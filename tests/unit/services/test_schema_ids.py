"""What ids of a registry mean: decided once per id by the log's order, read from the log alone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from harness.memory_log import MemoryLog
from harness.world import TestWorld
from muniment_schemas.codec import Codec
from muniment_schemas.events import RunDeleted, SchemaRegistered
from muniment_schemas.framing import ALWAYS_SINGLE_OBJECT, Confluent
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.domain.errors import WrongState
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.schema_id import RegisterSchema, SchemaId
from muniment_services.log.base import READ_RECORDS_MAX, NewRecord, Record, TopicPartition
from muniment_services.schema_ids import LoggedSchemaIds
from muniment_services.write import record_of

SCHEMAS = Schemas.load()
CATALOG = TopicPartition("catalog", 0)
FIRST, SECOND = (s.fingerprint for s in list(SCHEMAS.by_version.values())[:2])


NUMBERED = [
    (number, subject.fingerprint)
    for number, subject in enumerate(SCHEMAS.by_version.values(), start=100)
    if subject.event_type not in ALWAYS_SINGLE_OBJECT
]


def registration(
    registry_id: int, fingerprint: bytes, registry: str = "http://one"
) -> RegisterSchema:
    return RegisterSchema(
        registry_id=registry_id, fingerprint=fingerprint.hex(), registry=registry, subject="s"
    )


def registered(world: TestWorld, command: RegisterSchema) -> SchemaRegistered:
    event = world.decide(command)
    assert isinstance(event, SchemaRegistered)
    return event


class CountingLog(MemoryLog):
    """A memory log that counts how many records were read of it."""

    records_read = 0

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = 2**30,
    ) -> Sequence[Record]:
        found = super().read(at, start, records_max, bytes_max)
        self.records_read += len(found)
        return found


def log_of(*events: SchemaRegistered) -> CountingLog:
    log = CountingLog()
    for event in events:
        add(log, record_of(event, Codec(SCHEMAS), log))
    return log


def add(log: MemoryLog, new: NewRecord) -> None:
    records = log.stored[new.at]
    at = Offset(len(records))
    records.append(Record(new.at, at, new.key, new.value, new.headers, new.timestamp_ms))


def test_an_id_is_noted_once_per_registry() -> None:
    world = TestWorld()
    world.do(registration(7, FIRST))
    assert world.decide(registration(7, FIRST)) is None
    world.do(registration(7, FIRST, "http://two"))
    world.do(registration(8, FIRST, "http://two"))
    assert world.decide(registration(7, FIRST, "http://two")) is None
    assert world.state.get("schema_id", "7") == SchemaId(
        version=2,
        registry_id=7,
        fingerprint=FIRST.hex(),
        registries=("http://one", "http://two"),
    )


def test_an_id_never_gets_another_meaning() -> None:
    world = TestWorld()
    world.do(registration(7, FIRST))
    with pytest.raises(WrongState, match="registry at http://two gives s the id 7, which in this"):
        world.decide(registration(7, SECOND, "http://two"))


def test_of_two_that_say_different_things_at_once_the_first_counts() -> None:
    world = TestWorld()
    first = registered(world, registration(7, FIRST))
    second = registered(world, registration(7, SECOND, "http://two"))
    world.fold(first)
    folded = world.state.fold(world.record(second), second)
    assert folded.void is not None
    assert LoggedSchemaIds(log_of(first, second), SCHEMAS).find(7) == FIRST
    assert LoggedSchemaIds(log_of(second, first), SCHEMAS).find(7) == SECOND


def test_the_catalog_is_read_no_further_than_needed_and_no_part_of_it_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = TestWorld()
    log = log_of(registered(world, registration(7, FIRST)))
    filler = world.decide(CreateExperiment(name="e", artifact_location=None, artifact_root="r:"))
    assert filler is not None
    for _ in range(READ_RECORDS_MAX):
        add(log, record_of(filler, Codec(SCHEMAS), log))
    add(log, record_of(registered(world, registration(8, SECOND)), Codec(SCHEMAS), log))
    ids = LoggedSchemaIds(log, SCHEMAS)
    assert (ids.known(7), log.records_read) == (None, 0)
    assert (ids.find(7), ids.known(7)) == (FIRST, FIRST)
    assert (ids.find(7), log.records_read) == (FIRST, READ_RECORDS_MAX)
    assert (ids.find(8), log.records_read) == (SECOND, READ_RECORDS_MAX + 2)
    assert (ids.find(9), log.records_read) == (None, READ_RECORDS_MAX + 2)


def test_what_is_registered_later_is_found_later() -> None:
    world = TestWorld()
    log = log_of()
    ids = LoggedSchemaIds(log, SCHEMAS)
    assert ids.find(7) is None
    add(log, record_of(registered(world, registration(7, FIRST)), Codec(SCHEMAS), log))
    assert ids.find(7) == FIRST


def test_threads_that_meet_the_same_ids_all_learn_them() -> None:
    world = TestWorld()
    events = [registered(world, registration(number, of)) for number, of in NUMBERED]
    ids = LoggedSchemaIds(log_of(*events), SCHEMAS)
    wanted = NUMBERED * 3
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda item: ids.find(item[0]), wanted))
    assert found == [of for _, of in wanted]


def test_a_registration_that_cannot_be_read_teaches_nothing_and_stops_nothing() -> None:
    world = TestWorld()
    good = registered(world, registration(8, SECOND))
    log = log_of(msgspec.structs.replace(good, registry_id=7, fingerprint="no hex"))
    new = record_of(good, Codec(SCHEMAS), log)
    add(log, dataclasses.replace(new, value=new.value[:-1]))
    add(log, new)
    ids = LoggedSchemaIds(log, SCHEMAS)
    assert ids.find(7) is None
    assert ids.find(8) == SECOND


def test_a_log_in_confluent_framing_is_read_by_the_ids_that_stand_in_it() -> None:
    world = TestWorld()
    events = [registered(world, registration(number, of)) for number, of in NUMBERED]
    log = log_of(*events)
    writes = Codec(SCHEMAS, Confluent({of: number for number, of in NUMBERED}))
    deleted = RunDeleted(envelope=world.context().envelope(RunDeleted, "r"))
    reads = Codec(SCHEMAS, ids=LoggedSchemaIds(log, SCHEMAS))
    assert asyncio.run(asyncio.to_thread(reads.decode, writes.encode(deleted))) == deleted
