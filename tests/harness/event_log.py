"""Short ways to use an EventLog in tests: open it, append, read all, follow up to an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from muniment_schemas.ids import Offset
from muniment_services.log.base import CATALOG, RUNS, EventLog, NewRecord, Record, TopicPartition

if TYPE_CHECKING:
    from contract.conftest import LogHome

DEADLINE_S = 60
"""Only so that a follower that misses something fails instead of waiting for ever."""

CAT = TopicPartition(CATALOG, 0)
RUN = tuple(TopicPartition(RUNS, partition) for partition in range(3))


def new(at: TopicPartition, value: str | bytes = b"value") -> NewRecord:
    data = value.encode() if isinstance(value, str) else value
    return NewRecord(at, b"key", data, (("ce_type", b"RunCreated"),), 1_700_000_000_000)


def stored(new_record: NewRecord, offset: int) -> Record:
    return Record(
        new_record.at,
        Offset(offset),
        new_record.key,
        new_record.value,
        new_record.headers,
        new_record.timestamp_ms,
    )


@asynccontextmanager
async def opened(home: LogHome) -> AsyncIterator[EventLog]:
    log = home.open()
    await log.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield log
    finally:
        await log.close()


async def appended(log: EventLog, records: Iterable[NewRecord]) -> list[Record]:
    return list(await asyncio.gather(*[log.append(record) for record in records]))


def read_all(log: EventLog, at: TopicPartition, records_max: int = 1000) -> list[Record]:
    found: list[Record] = []
    while batch := log.read(at, Offset(len(found)), records_max):
        found += batch
    return found


def since(cut: int, *places: TopicPartition) -> dict[TopicPartition, Offset]:
    return dict.fromkeys(places, Offset(cut))


async def followed(
    log: EventLog, start: Mapping[TopicPartition, Offset], count: int
) -> list[Record]:
    """The first `count` records of a follower; more, if its last batch brings more."""
    found: list[Record] = []
    if count:
        async with aclosing(log.follow(start)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                found += batch
                if len(found) >= count:
                    break
    return found


async def followed_to_the_end(
    log: EventLog, start: Mapping[TopicPartition, Offset]
) -> list[Record]:
    return [record async for batch in log.follow(start) for record in batch]


def of(records: Sequence[Record], at: TopicPartition) -> list[Record]:
    return [record for record in records if record.at == at]
