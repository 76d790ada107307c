"""The embedded event log: one SQLite file, written by one thread, read by any.

The life of one append:
1. `append` (event loop) checks the limits, packs the headers and queues the record.
2. The writer thread takes all that is queued, up to a batch, and gives out offsets.
3. The batch is one INSERT in autocommit mode: one transaction, one fsync of the WAL.
4. One callback on the loop completes the batch's futures and hands its records to the followers.

What always holds: a batch is written whole or not at all; only the writer gives out offsets, and it
reads them from the file again after any error, so a failed batch leaves no hole. One process writes
(an OS lock on `<file>.lock`); others read beside it with `read_only=True`.

Out of reach: if an fsync fails and the machine dies before the next append, SQLite may find the
refused batch in its WAL and keep it, like a success whose answer is lost on the way to the client.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import msgspec

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_RECORDS_MAX,
    READ_BYTES_MAX,
    READ_RECORDS_MAX,
    RECORD_BYTES_MAX,
    RUNS_PARTITIONS_DEFAULT,
    LogBackpressure,
    LogError,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
    TopicPartition,
    topics,
)
from muniment_services.log.embedded_file import READ_ONLY, READ_WRITE, LogFile, data_version

BATCH_RECORDS_MAX = 1024
"""Records of one commit, at most: a power of two. 5 SQL variables each; SQLite takes 32,766."""

BATCH_BYTES_MAX = 32 * 1024 * 1024
"""A batch takes no more records after these bytes are passed."""

FOLLOW_RECORDS_MAX = 10_000
FOLLOW_BYTES_MAX = 32 * 1024 * 1024
"""What waits for one follower in memory, at most; a slower one reads from the file instead."""

FOLLOW_POLL_S = 0.2
"""How often a read-only follower asks whether another process has written."""

_Queued = tuple[int, NewRecord, bytes, "asyncio.Future[Record]"]
"""Partition index, record, packed headers, and the future to complete."""

_NO_ROW = (None,) * 5

_WRITE_ERRORS = (sqlite3.Error, MemoryError, OverflowError)
"""What sqlite3 raises for a statement: its own errors, SQLITE_NOMEM, an integer over 64 bits."""


class EmbeddedLog:
    """EventLog in one SQLite file. Durable means: the commit's fsync has returned."""

    def __init__(
        self,
        path: Path,
        *,
        runs_partitions: int = RUNS_PARTITIONS_DEFAULT,
        read_only: bool = False,
    ) -> None:
        """path: the SQLite file; created with its folder by the first `start` that may write.

        runs_partitions is fixed when the file is created; a read-only log takes what the file says.
        """
        self._file = LogFile(path, topics(runs_partitions))
        self._read_only = read_only
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._accepting = False
        self._in_flight_records = 0
        self._in_flight_bytes = 0
        self._ends: tuple[Offset, ...] = ()
        self._followers: set[_Follower] = set()
        self._closed = asyncio.Event()
        self._lock: int | None = None
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    @property
    def partitions(self) -> Mapping[str, int]:
        """Partition count by topic, as stored once the log is started."""
        return self._file.partitions

    @property
    def log_id(self) -> str:
        """32 hex digits that tell this log from every other; empty before `start`."""
        return self._file.log_id

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were appended and are not fsynced."""
        return self._in_flight_bytes

    @property
    def in_flight_records(self) -> int:
        """Records that were appended and are not fsynced."""
        return self._in_flight_records

    @property
    def producer_restarts(self) -> int:
        """Always 0: the writer's thread lasts as long as the log."""
        return 0

    async def start(self) -> None:
        """Open the file, and create it if this log may write.

        Raises LogUnavailable when it cannot be opened or another process writes to it (naming that
        process), LogCorrupt when it is damaged or was made with other partition counts.
        """
        self._loop = asyncio.get_running_loop()
        if self._read_only:
            await asyncio.to_thread(self._file.open)
            return
        writer = await asyncio.to_thread(self._open_for_writing)
        self._ends = tuple(writer.ends)
        self._accepting = True
        self._thread = Thread(target=self._write_all, args=(writer,), name="log", daemon=True)
        self._thread.start()

    def _open_for_writing(self) -> _Writer:
        self._lock = self._file.lock()
        try:
            self._file.create()
            writer = _Writer(self._file)
            writer.connect()
        except LogError:
            self._unlock()
            raise
        return writer

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def close(self) -> None:
        """Write what is queued, complete its futures, tell followers the end, release the file."""
        if self._accepting:
            self._accepting = False
            self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        # The writer queued its callbacks on the loop before it ended, so they have run by now.
        self._closed.set()
        for follower in self._followers:
            follower.woken.set()
        self._file.release_readers()
        self._unlock()

    def append(self, record: NewRecord) -> asyncio.Future[Record]:
        """Queue a record; the future is done once it is fsynced. See EventLog.append."""
        if not self._accepting:
            raise LogUnavailable("it is open to read only" if self._read_only else "it is closed")
        size = len(record.value)
        if size > RECORD_BYTES_MAX:
            raise RecordTooLarge(size)
        headers = msgspec.msgpack.encode(record.headers)
        size += len(record.key) + len(headers)
        if (
            self._in_flight_records >= IN_FLIGHT_RECORDS_MAX
            or self._in_flight_bytes + size > IN_FLIGHT_BYTES_MAX
        ):
            raise LogBackpressure(
                f"{self._in_flight_records} records ({self._in_flight_bytes} bytes) are in flight."
            )
        future: asyncio.Future[Record] = self._loop.create_future()
        self._queue.put((self._file.indexes[record.at], record, headers, future))
        self._in_flight_records += 1
        self._in_flight_bytes += size
        return future

    async def end_offsets(self) -> Mapping[TopicPartition, Offset]:
        """For every topic-partition the offset that its next record will get."""
        ends = await asyncio.to_thread(self._file.ends) if self._read_only else self._ends
        return dict(zip(self._file.places, ends, strict=True))

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Sequence[Record]:
        """Records from `start` on, see EventLog.read. LogUnavailable; LogCorrupt at a hole."""
        if self._closed.is_set():
            raise LogUnavailable("it is closed")
        return self._file.read(at, start, records_max, bytes_max)

    def follow(self, start: Mapping[TopicPartition, Offset]) -> AsyncIterator[Sequence[Record]]:
        """Every record from `start` on: first from the file, then as it is committed."""
        follower = _Follower(start)
        return self._follow_file(follower) if self._read_only else self._follow_live(follower)

    async def _follow_live(self, follower: _Follower) -> AsyncIterator[Sequence[Record]]:
        self._followers.add(follower)
        try:
            while True:
                if follower.pending:
                    yield follower.take()
                elif follower.behind:
                    late = follower.late(await self.end_offsets())
                    if late is not None:
                        yield await self._read_late(follower, late)
                elif self._closed.is_set():
                    return
                else:
                    follower.woken.clear()
                    await follower.woken.wait()
        finally:
            self._followers.discard(follower)

    async def _follow_file(self, follower: _Follower) -> AsyncIterator[Sequence[Record]]:
        with closing(await asyncio.to_thread(self._file.connect, READ_ONLY)) as connection:
            seen = -1
            while not self._closed.is_set():
                version = await asyncio.to_thread(data_version, connection)
                if version == seen:
                    await self._closed_within(FOLLOW_POLL_S)
                    continue
                seen = version
                ends = await self.end_offsets()
                while (late := follower.late(ends)) is not None:
                    yield await self._read_late(follower, late)

    async def _read_late(self, follower: _Follower, at: TopicPartition) -> Sequence[Record]:
        records = await asyncio.to_thread(
            self._file.read, at, follower.due[at], READ_RECORDS_MAX, READ_BYTES_MAX
        )
        follower.delivered(at, records)
        return records

    async def _closed_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)

    def _write_all(self, writer: _Writer) -> None:
        """The writer thread: every batch until the queue is closed, one callback for each."""
        tell = self._loop.call_soon_threadsafe
        for batch, size in _batches(self._queue):
            try:
                records = writer.write(batch)
            except LogUnavailable as error:
                tell(self._refuse, batch, size, error.reason)
            else:
                tell(self._acknowledge, batch, size, records, tuple(writer.ends))
        writer.disconnect()

    def _acknowledge(
        self, batch: list[_Queued], size: int, records: list[Record], ends: tuple[Offset, ...]
    ) -> None:
        self._in_flight_records -= len(batch)
        self._in_flight_bytes -= size
        self._ends = ends
        for queued, record in zip(batch, records, strict=True):
            future = queued[3]
            if not future.done():  # Its waiter may have cancelled it; the record is durable anyway.
                future.set_result(record)
        for follower in self._followers:
            follower.offer(records)

    def _refuse(self, batch: list[_Queued], size: int, reason: str) -> None:
        self._in_flight_records -= len(batch)
        self._in_flight_bytes -= size
        for *_, future in batch:
            if not future.done():
                future.set_exception(LogUnavailable(reason))


def _batches(queue: SimpleQueue[_Queued | None]) -> Iterator[tuple[list[_Queued], int]]:
    """What is queued, as batches with their size in bytes; waits for more, ends after None."""
    closed = False
    while not closed:
        batch: list[_Queued] = []
        size = 0
        while (queued := queue.get()) is not None:
            batch.append(queued)
            _, record, headers, _ = queued
            size += len(record.value) + len(record.key) + len(headers)
            if queue.empty() or len(batch) == BATCH_RECORDS_MAX or size >= BATCH_BYTES_MAX:
                break
        else:
            closed = True
        if batch:
            yield batch, size


class _Writer:
    """The connection that writes, and the next offset of every partition. For one thread."""

    def __init__(self, file: LogFile) -> None:
        self.ends: list[Offset] = []
        self._file = file
        self._connection: sqlite3.Connection | None = None

    def connect(self) -> sqlite3.Connection:
        """Open the file and learn its end offsets. Raises LogUnavailable or LogCorrupt."""
        self.ends = list(self._file.ends())
        self._connection = self._file.connect(READ_WRITE)
        return self._connection

    def disconnect(self) -> None:
        """Close the connection, if there is one; the next write opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, batch: list[_Queued]) -> list[Record]:
        """Write 1 to BATCH_RECORDS_MAX records and return them with their offsets.

        Raises LogUnavailable when they were not written. After an error all that this object and
        its connection know is in doubt, so the next write learns it from the file.
        """
        try:
            connection = self._connection or self.connect()
        except LogError as error:
            raise LogUnavailable(str(error)) from error
        rows, records = _numbered(batch, self.ends)
        try:
            connection.execute(_insert(len(rows) // len(_NO_ROW)), rows)
        except _WRITE_ERRORS as error:
            self.disconnect()
            if not self._file.holds(records[-1]):
                raise LogUnavailable(str(error)) from error
        return records


def _numbered(batch: list[_Queued], ends: list[Offset]) -> tuple[list[object], list[Record]]:
    """The SQL values of a batch, and its records; moves `ends` on by what each partition got.

    One statement takes the whole batch, because sqlite3 lets go of the interpreter lock at every
    step and a busy event loop gives it back up to 5 ms later: 64 records took 69 ms with
    executemany beside such a loop, 11 ms as one statement. Row counts are padded to powers of two,
    with rows that the statement leaves out, so that eleven prepared statements serve all batches.
    """
    rows: list[object] = []
    records: list[Record] = []
    for index, new, headers, _ in batch:
        offset = ends[index]
        ends[index] = Offset(offset + 1)
        rows += (index << 40 | offset, new.timestamp_ms, new.key, headers, new.value)
        records.append(Record(new.at, offset, new.key, new.value, new.headers, new.timestamp_ms))
    padding = (1 << (len(batch) - 1).bit_length()) - len(batch)
    rows += _NO_ROW * padding
    return rows, records


@cache
def _insert(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?)"] * rows)
    return f"INSERT INTO record SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"


class _Follower:
    """What one `follow` has been handed and not yet delivered.

    `due` is, per followed topic-partition, the next offset that is neither delivered nor pending.
    While `behind`, committed batches are not taken: the file is read until `due` reaches the end.
    """

    def __init__(self, start: Mapping[TopicPartition, Offset]) -> None:
        self.due = dict(start)
        self.behind = True
        self.pending: list[Record] = []
        self.woken = asyncio.Event()
        self._pending_bytes = 0

    def offer(self, records: list[Record]) -> None:
        """Take what is due of a committed batch; fall behind at a gap or when there is no room."""
        if self.behind:
            return
        for record in records:
            due = self.due.get(record.at)
            if due is None or record.offset < due:
                continue
            if record.offset > due or self._is_full():
                self.behind = True
                break
            self.due[record.at] = Offset(due + 1)
            self.pending.append(record)
            self._pending_bytes += len(record.value)
        self.woken.set()

    def _is_full(self) -> bool:
        return len(self.pending) >= FOLLOW_RECORDS_MAX or self._pending_bytes >= FOLLOW_BYTES_MAX

    def take(self) -> Sequence[Record]:
        """Everything pending, as one batch."""
        taken, self.pending, self._pending_bytes = self.pending, [], 0
        return taken

    def late(self, ends: Mapping[TopicPartition, Offset]) -> TopicPartition | None:
        """A topic-partition of which the file has more. None means: no longer behind."""
        late = next((at for at, due in self.due.items() if due < ends[at]), None)
        self.behind = late is not None
        return late

    def delivered(self, at: TopicPartition, records: Sequence[Record]) -> None:
        """Note what was read from the file; `at` goes to the back, so that each has its turn."""
        assert records, f"{at} ends before its end offset"
        del self.due[at]
        self.due[at] = Offset(records[-1].offset + 1)
