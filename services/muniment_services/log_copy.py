"""Carries a log from one place to another, record by record, and proves that it arrived.

The copy has the same records at the same offsets, byte for byte. It can be broken off at any time
and taken up again: what the target has must be the beginning of what the source has. Nobody may
write to either meanwhile; a source that grew is noticed at the end and copied further.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    EventLog,
    LogError,
    LogReader,
    NewRecord,
    Record,
    TopicPartition,
)

BATCH_RECORDS_MAX = 5_000
BATCH_BYTES_MAX = IN_FLIGHT_BYTES_MAX // 4
ROUNDS_MAX = 20
"""Times that a source which still grows is copied further before it is called busy."""

Ends = Mapping[TopicPartition, Offset]
Told = Callable[[int], None]
"""Told how many more records have been dealt with."""


class CopyRefused(LogError):
    """The target is not a beginning of the source, or the source does not stand still."""


class CopyDiffers(LogError):
    """What was read back from the target is not what the source has."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy came to. sha256: of all records of all partitions, in order, as hex."""

    records: int
    partitions: int
    sha256: str


class LogCopy:
    """One copy from a log to another; both are started. Lives on one event loop."""

    def __init__(self, source: LogReader, target: EventLog) -> None:
        self._source = source
        self._target = target

    async def run(self, progress: Told) -> int:
        """Copy what the target lacks; returns how many records that was.

        Raises CopyRefused; LogUnavailable when either log fails (go on by running it again).
        """
        if dict(self._source.partitions) != dict(self._target.partitions):
            raise CopyRefused(
                f"The logs have other partitions: {dict(self._source.partitions)} and "
                f"{dict(self._target.partitions)}. A key's partition follows from their number; "
                "give the target the source's runs_partitions."
            )
        copied = 0
        for _ in range(ROUNDS_MAX):
            ends, have = await self._source.end_offsets(), await self._target.end_offsets()
            self._refuse_other(ends, have)
            if all(have[at] == end for at, end in ends.items()):
                return copied
            for at, end in ends.items():
                copied += await self._copy(at, have[at], end, progress)
        raise CopyRefused("The source grows while it is copied. Stop the servers that write to it.")

    async def missing(self) -> int:
        """How many records the target lacks now."""
        ends, have = await self._source.end_offsets(), await self._target.end_offsets()
        return sum(max(0, end - have.get(at, 0)) for at, end in ends.items())

    async def verify(self, progress: Told) -> Copied:
        """Read both logs whole and compare. Raises CopyDiffers."""
        ends = await self._source.end_offsets()
        if dict(await self._target.end_offsets()) != dict(ends):
            raise CopyDiffers("The target does not end where the source does.")
        return await asyncio.to_thread(self._compare, ends, progress)

    def _refuse_other(self, ends: Ends, have: Ends) -> None:
        for at, end in have.items():
            if end > ends[at]:
                raise CopyRefused(
                    f"The target has {end} records in {at}, the source {ends[at]}: it is another "
                    "log, or was written to. Copy into an empty one."
                )
            if end and self._last(self._source, at, end) != self._last(self._target, at, end):
                raise CopyRefused(
                    f"The target has another record at {at}@{end - 1} than the source. Copy into "
                    "an empty log."
                )

    @staticmethod
    def _last(log: LogReader, at: TopicPartition, end: Offset) -> Record:
        return log.read(at, Offset(end - 1), 1)[0]

    async def _copy(self, at: TopicPartition, start: Offset, end: Offset, progress: Told) -> int:
        due = start
        while due < end:
            most = min(BATCH_RECORDS_MAX, end - due)
            records = await asyncio.to_thread(self._source.read, at, due, most, BATCH_BYTES_MAX)
            written = await asyncio.gather(*[self._target.append(_again(r)) for r in records])
            if written != records:
                raise CopyRefused(f"Somebody else writes to {at} of the target.")
            due = Offset(due + len(records))
            progress(len(records))
        return due - start

    def _compare(self, ends: Ends, progress: Told) -> Copied:
        whole = hashlib.sha256()
        for at, end in sorted(ends.items()):
            pairs = zip(_read(self._source, at, end), _read(self._target, at, end), strict=True)
            for ours, theirs in pairs:
                whole.update(_bytes(ours))
                if ours != theirs:
                    raise CopyDiffers(f"The record at {at}@{ours.offset} is not the same.")
                if ours.offset % BATCH_RECORDS_MAX == BATCH_RECORDS_MAX - 1:
                    progress(BATCH_RECORDS_MAX)
            progress(end % BATCH_RECORDS_MAX)
        return Copied(sum(ends.values()), len(ends), whole.hexdigest())


def _again(record: Record) -> NewRecord:
    return NewRecord(record.at, record.key, record.value, record.headers, record.timestamp_ms)


def _read(log: LogReader, at: TopicPartition, end: Offset) -> Iterator[Record]:
    start = Offset(0)
    while start < end:
        records: Sequence[Record] = log.read(at, start, min(BATCH_RECORDS_MAX, end - start))
        yield from records
        start = Offset(records[-1].offset + 1)


def _bytes(record: Record) -> bytes:
    parts = [record.key, record.value, str(record.timestamp_ms).encode()]
    for name, value in record.headers:
        parts += (name.encode(), value)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
