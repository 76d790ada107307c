"""An event log in memory, for tests: what EventLog promises, durable only as long as `stored`.

Everything happens on the event loop and in the order of the calls: what one turn of the loop
appends becomes one batch in the next turn. There is no thread, no clock and no chance in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_RECORDS_MAX,
    READ_BYTES_MAX,
    READ_RECORDS_MAX,
    RECORD_BYTES_MAX,
    RUNS_PARTITIONS_DEFAULT,
    LogBackpressure,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
    TopicPartition,
    topics,
)

Stored = dict[TopicPartition, list[Record]]
"""What a memory log has acknowledged; a second MemoryLog over the same dict reads it back."""


class MemoryLog:
    """EventLog over lists. `fail_next` and `held` make it fail or wait where a test wants it to."""

    def __init__(
        self, *, runs_partitions: int = RUNS_PARTITIONS_DEFAULT, stored: Stored | None = None
    ) -> None:
        """stored: what earlier logs have acknowledged, shared with them; empty if not given."""
        self.partitions: Mapping[str, int] = topics(runs_partitions)
        self.stored = {} if stored is None else stored
        for topic, count in self.partitions.items():
            for partition in range(count):
                self.stored.setdefault(TopicPartition(topic, partition), [])
        self.log_id = "0" * 32
        self.held = False
        """While True nothing becomes durable; `release` ends it."""
        self._failing = 0
        self._queue: list[tuple[NewRecord, asyncio.Future[Record]]] = []
        self._in_flight_bytes = 0
        self._accepting = False
        self._closed = False
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were appended and are not committed."""
        return self._in_flight_bytes

    @property
    def in_flight_records(self) -> int:
        """Records that were appended and are not committed."""
        return len(self._queue)

    @property
    def producer_restarts(self) -> int:
        """Always 0: there is no producer."""
        return 0

    async def start(self) -> None:
        """Accept appends from now on."""
        self._loop = asyncio.get_running_loop()
        self._accepting = True

    async def close(self) -> None:
        """Commit what is queued, even if held, and let followers end."""
        self._accepting = False
        self.release()
        self._closed = True
        self._wake_followers()

    def fail_next(self, records: int) -> None:
        """Let the next so many appended records fail with LogUnavailable once they are due."""
        self._failing = records

    def release(self) -> None:
        """End `held`, and commit at once what waited."""
        self.held = False
        self._commit()

    def append(self, record: NewRecord) -> asyncio.Future[Record]:
        """Queue a record for the loop's next turn; see EventLog.append."""
        if not self._accepting:
            raise LogUnavailable("it is closed")
        if len(record.value) > RECORD_BYTES_MAX:
            raise RecordTooLarge(len(record.value))
        size = _size(record)
        if (
            len(self._queue) >= IN_FLIGHT_RECORDS_MAX
            or self._in_flight_bytes + size > IN_FLIGHT_BYTES_MAX
        ):
            raise LogBackpressure(f"{len(self._queue)} records are in flight.")
        assert record.at in self.stored, record.at
        if not self._queue:
            self._loop.call_soon(self._commit_unless_held)
        future: asyncio.Future[Record] = self._loop.create_future()
        self._queue.append((record, future))
        self._in_flight_bytes += size
        return future

    async def end_offsets(self) -> Mapping[TopicPartition, Offset]:
        """For every topic-partition the offset that its next record will get."""
        return {at: Offset(len(records)) for at, records in self.stored.items()}

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Sequence[Record]:
        """Records from `start` on; see EventLog.read."""
        if self._closed:
            raise LogUnavailable("it is closed")
        return self._read(at, start, records_max, bytes_max)

    async def follow(
        self, start: Mapping[TopicPartition, Offset]
    ) -> AsyncIterator[Sequence[Record]]:
        """Every record from `start` on, one topic-partition a batch; see EventLog.follow."""
        due = dict(start)
        while True:
            changed = self._changed
            late = [at for at in due if due[at] < len(self.stored[at])]
            for at in late:
                batch = self._read(at, due[at], READ_RECORDS_MAX, READ_BYTES_MAX)
                due[at] = Offset(due[at] + len(batch))
                yield batch
            if not late:
                if self._closed:
                    return
                await changed.wait()

    def _read(
        self, at: TopicPartition, start: Offset, records_max: int, bytes_max: int
    ) -> list[Record]:
        found: list[Record] = []
        size = 0
        for record in self.stored[at][start : start + records_max]:
            found.append(record)
            size += _size(record)
            if size >= bytes_max:
                break
        return found

    def _commit_unless_held(self) -> None:
        if not self.held:
            self._commit()

    def _commit(self) -> None:
        queue, self._queue, self._in_flight_bytes = self._queue, [], 0
        for new, future in queue:
            if self._failing > 0:
                self._failing -= 1
                if not future.done():
                    future.set_exception(LogUnavailable("it was told to fail"))
                continue
            records = self.stored[new.at]
            offset = Offset(len(records))
            records.append(
                Record(new.at, offset, new.key, new.value, new.headers, new.timestamp_ms)
            )
            if not future.done():
                future.set_result(records[-1])
        self._wake_followers()

    def _wake_followers(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _size(record: NewRecord | Record) -> int:
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.value) + len(record.key) + headers
