"""The event log: an append-only sequence of records per topic-partition.

One protocol, two implementations (`embedded`, `kafka`), the same bytes in both. What always holds:
offsets of a topic-partition are 0, 1, 2, … without holes; a record is never changed or removed;
what `append` has acknowledged survives the death of the process and of the machine.

    LogError
    ├── LogUnavailable      the log cannot take or give records now; nothing was acknowledged
    ├── LogBackpressure     too much is in flight; nothing was queued
    ├── RecordTooLarge      one record is over RECORD_BYTES_MAX; nothing was queued
    └── LogCorrupt          what is stored breaks a promise of the log
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from muniment_schemas.ids import Offset

RECORD_BYTES_MAX = 24 * 1024 * 1024
"""Largest value of one record: the largest dataset profile MLflow takes (16 MiB), and more."""

IN_FLIGHT_BYTES_MAX = 128 * 1024 * 1024
"""Bytes queued and not yet durable, at most; beyond it `append` raises LogBackpressure."""

IN_FLIGHT_RECORDS_MAX = 50_000

READ_RECORDS_MAX = 5_000
READ_BYTES_MAX = 32 * 1024 * 1024

CATALOG = "catalog"
RUNS = "runs"
ACCESS = "access"
CHECKPOINTS = "checkpoints"
QUARANTINE = "quarantine"

RUNS_PARTITIONS_DEFAULT = 6


def topics(runs_partitions: int = RUNS_PARTITIONS_DEFAULT) -> dict[str, int]:
    """The topics of one muniment and their partition counts (a Kafka log adds its prefix)."""
    return {
        CATALOG: 1,
        RUNS: runs_partitions,
        ACCESS: runs_partitions,
        CHECKPOINTS: 1,
        QUARANTINE: 1,
    }


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: CRC-32 of the key modulo the count, the same in every log."""
    return crc32(key) % partitions


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One ordered sequence of the log."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to append. `headers` repeat what routing needs (CloudEvents 1.0 names)."""

    at: TopicPartition
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """A durable record, as read back: byte for byte what was appended, and its offset."""

    at: TopicPartition
    offset: Offset
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int

    @property
    def event_id(self) -> bytes:
        """What the first header says, which is `ce_id`; empty in a record that is none of ours."""
        return self.headers[0][1] if self.headers else b""


class LogError(Exception):
    """Base of what a log can raise."""


class LogUnavailable(LogError):
    """The log cannot be reached or written (disk full, broker down). Nothing was acknowledged."""

    def __init__(self, reason: str, retry_after_s: int = 5) -> None:
        super().__init__(f"The event log is not available: {reason}")
        self.reason = reason
        self.retry_after_s = retry_after_s


class LogBackpressure(LogError):
    """More is in flight than the named limits allow. Nothing was queued; try again later."""

    retry_after_s = 1


class RecordTooLarge(LogError):
    """One record's value is over the limit. Nothing was queued."""

    def __init__(self, size_bytes: int, limit_bytes: int = RECORD_BYTES_MAX) -> None:
        super().__init__(f"The record has {size_bytes} bytes; the log takes at most {limit_bytes}.")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class LogCorrupt(LogError):
    """What is stored breaks a promise of the log (a hole, an unknown layout)."""


class LogReader(Protocol):
    """What can be asked of a log that is at rest, as a backup of one is too."""

    @property
    def partitions(self) -> Mapping[str, int]:
        """Partition count by topic."""

    async def end_offsets(self) -> Mapping[TopicPartition, Offset]:
        """For every topic-partition the offset that its next record will get."""

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Sequence[Record]:
        """Records from `start` on, in order: records_max at most, none after bytes_max are passed.

        Blocking. Empty at the end of the log; at least one record otherwise.
        """


class EventLog(LogReader, Protocol):
    """An append-only log. All coroutines run on one event loop; `read` may run in any thread."""

    @property
    def log_id(self) -> str:
        """32 hex digits that tell this log from every other, copies of it included in Kafka's case;
        empty before `start`."""

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were appended and are not durable yet."""

    @property
    def in_flight_records(self) -> int:
        """Records that were appended and are not durable yet."""

    @property
    def producer_restarts(self) -> int:
        """Times that what writes to the log had to be replaced, since the start."""

    async def start(self) -> None:
        """Open the log, or raise LogUnavailable or LogCorrupt with what to do."""

    async def close(self) -> None:
        """Finish what is queued, release everything. Idempotent. Later appends: LogUnavailable."""

    def append(self, record: NewRecord) -> asyncio.Future[Record]:
        """Queue a record; the future is done once it is durable, and not before.

        Durable: fsynced (embedded), or acknowledged by all in-sync replicas (Kafka). Records of
        one topic-partition get offsets in the order of the calls. Raises LogBackpressure,
        RecordTooLarge or LogUnavailable at once; the future fails with LogUnavailable when the
        record was not written.
        """

    def follow(self, start: Mapping[TopicPartition, Offset]) -> AsyncIterator[Sequence[Record]]:
        """Every record of the given topic-partitions from `start` on, as batches, for ever.

        Ordered within a topic-partition; batches may mix them. A record is delivered once, after it
        is durable, and promptly. Ends when the log is closed and all that it took was delivered.
        """
