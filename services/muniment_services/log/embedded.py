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
import fcntl
import json
import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
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
    RUNS,
    RUNS_PARTITIONS_DEFAULT,
    LogBackpressure,
    LogCorrupt,
    LogError,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
    TopicPartition,
    topics,
)

BATCH_RECORDS_MAX = 1024
"""Records of one commit, at most: a power of two. 5 SQL variables each; SQLite takes 32,766."""

BATCH_BYTES_MAX = 32 * 1024 * 1024
"""A batch takes no more records after these bytes are passed."""

FOLLOW_RECORDS_MAX = 10_000
FOLLOW_BYTES_MAX = 32 * 1024 * 1024
"""What waits for one follower in memory, at most; a slower one reads from the file instead."""

FOLLOW_POLL_S = 0.2
"""How often a read-only follower asks whether another process has written."""

BUSY_TIMEOUT_S = 1.0
"""How long a statement waits for another connection's lock (WAL recovery, a foreign writer)."""

WAL_PAGES_MAX = 4_000
"""Pages in the WAL (16 MiB) after which a commit moves them to the file."""

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""What the WAL is cut back to after a burst."""

READERS_IDLE_MAX = 8
LAYOUT_VERSION = "1"

_READ_ONLY, _READ_WRITE, _CREATE = "mode=ro", "mode=rw", "mode=rwc"

_TABLES = (
    "CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL,"
    " key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL) STRICT",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "INSERT INTO meta VALUES ('log_id', lower(hex(randomblob(16))))",
)

_Queued = tuple[int, NewRecord, bytes, "asyncio.Future[Record]"]
"""Partition index, record, packed headers, and the future to complete."""

_NO_ROW = (None,) * 5

_SELECT = (
    "SELECT id, timestamp_ms, key, headers, value FROM record"
    " WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
)

_WRITE_ERRORS = (sqlite3.Error, MemoryError, OverflowError)
"""What sqlite3 raises for a statement: its own errors, SQLITE_NOMEM, an integer over 64 bits."""

_HEADERS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])


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
        self._file = _LogFile(path, topics(runs_partitions))
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
        with closing(await asyncio.to_thread(self._file.connect, _READ_ONLY)) as connection:
            seen = -1
            while not self._closed.is_set():
                version = await asyncio.to_thread(_data_version, connection)
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

    def __init__(self, file: _LogFile) -> None:
        self.ends: list[Offset] = []
        self._file = file
        self._connection: sqlite3.Connection | None = None

    def connect(self) -> sqlite3.Connection:
        """Open the file and learn its end offsets. Raises LogUnavailable or LogCorrupt."""
        self.ends = list(self._file.ends())
        self._connection = self._file.connect(_READ_WRITE)
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


class _LogFile:
    """The SQLite file: its layout and all that is asked of it but the INSERT. Safe in any thread.

    `record.id` is (partition index << 40) | offset: a range of offsets is a range of rowids.
    """

    def __init__(self, path: Path, partitions: Mapping[str, int]) -> None:
        self.path = path
        self.log_id = ""
        self._readers: deque[sqlite3.Connection] = deque()
        self._keeps_readers = True
        self._lay_out(partitions)

    def _lay_out(self, partitions: Mapping[str, int]) -> None:
        self.partitions = partitions
        self.places = tuple(TopicPartition(t, p) for t, n in partitions.items() for p in range(n))
        self.indexes = {at: index for index, at in enumerate(self.places)}

    def lock(self) -> int:
        """Take the writer's lock; closing the returned descriptor gives it back."""
        with _reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(lock, 32).decode().strip()
            os.close(lock)
            raise LogUnavailable(
                f"process {holder} is writing to {self.path}; stop it first"
            ) from error
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        return lock

    def create(self) -> None:
        """Make the tables if the file has none, then open it; its partition counts must be ours."""
        expected = dict(self.partitions)
        with _reported(self.path), closing(self.connect(_CREATE)) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                for statement in _TABLES:
                    connection.execute(statement)
                stored = {"layout": LAYOUT_VERSION, "topics": json.dumps(expected)}
                connection.executemany("INSERT INTO meta VALUES (?, ?)", stored.items())
                connection.execute("COMMIT")
                _sync_folder(self.path.parent)
        self.open()
        if self.partitions != expected:
            raise LogCorrupt(
                f"{self.path} was made with runs_partitions={self.partitions.get(RUNS)}, which is "
                f"fixed; it was opened with {expected[RUNS]}. Set the count that it was made with."
            )

    def open(self) -> None:
        """Learn what the file holds. Raises LogUnavailable if there is none, LogCorrupt if odd."""
        if not self.path.exists():
            raise LogUnavailable(f"there is no log at {self.path}")
        with _reported(self.path), self._reader() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if {"meta", "record"} - {name for (name,) in tables}:
                raise LogCorrupt(f"{self.path} is not an event log. Name another file.")
            meta = dict(connection.execute("SELECT name, value FROM meta"))
        layout = meta.get("layout")
        if layout != LAYOUT_VERSION:
            raise LogCorrupt(
                f"{self.path} has layout {layout}; this muniment reads layout {LAYOUT_VERSION}. "
                "Use the muniment that wrote it."
            )
        self.log_id = meta["log_id"]
        self._lay_out(json.loads(meta["topics"]))

    def connect(self, mode: str) -> sqlite3.Connection:
        """A new connection. One that reads works beside a writer, and on a read-only medium."""
        if mode == _READ_ONLY and not os.access(self.path.parent, os.W_OK):
            # Without a WAL nobody writes, and SQLite cannot make the files it needs to find one.
            mode = mode if Path(f"{self.path}-wal").exists() else "immutable=1"
        with _reported(self.path):
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?{mode}",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES_MAX}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
        return connection

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """An idle reading connection, or a new one; it is kept for the next, unless it failed."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self.connect(_READ_ONLY)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._readers.append(connection)
        if not self._keeps_readers or len(self._readers) > READERS_IDLE_MAX:
            self._close_reader()

    def _close_reader(self) -> None:
        with suppress(IndexError):
            self._readers.popleft().close()

    def release_readers(self) -> None:
        """Close idle reading connections, and from now on each after its use."""
        self._keeps_readers = False
        while self._readers:
            self._close_reader()

    def ends(self) -> tuple[Offset, ...]:
        """The offset after the last of every partition, in the order of `places`."""
        last = "SELECT id FROM record WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        ends = []
        with _reported(self.path), self._reader() as connection:
            for index in range(len(self.places)):
                bounds = (index << 40, (index + 1 << 40) - 1)
                found = connection.execute(last, bounds).fetchone()
                ends.append(Offset(found[0] - bounds[0] + 1 if found else 0))
        return tuple(ends)

    def read(
        self, at: TopicPartition, start: Offset, records_max: int, bytes_max: int
    ) -> list[Record]:
        """Records from `start` on; see EventLog.read."""
        assert start >= 0, start
        assert records_max > 0, records_max
        first = self.indexes[at] << 40
        due, size = start, 0
        records: list[Record] = []
        with _reported(self.path), self._reader() as connection:
            rows = connection.execute(_SELECT, (first + start, first + (1 << 40), records_max))
            with closing(rows):
                for row_id, timestamp_ms, key, headers, value in rows:
                    if row_id != first + due:
                        raise LogCorrupt(
                            f"{self.path} has no record {at} {due}. Restore a copy of it."
                        )
                    unpacked = _HEADERS.decode(headers)
                    records.append(Record(at, due, key, value, unpacked, timestamp_ms))
                    due = Offset(due + 1)
                    size += len(value) + len(key) + len(headers)
                    if size >= bytes_max:
                        break
        return records

    def holds(self, record: Record) -> bool:
        """Whether exactly this record can be read back now. False also when nobody can say."""
        try:
            return self.read(record.at, record.offset, 1, 1) == [record]
        except LogError:
            return False


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection commits. Costs a look at shared memory."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the disk into those of the log."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Set by SQLite, not by sqlite3 itself.
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise LogCorrupt(f"{path} is damaged ({error}). Restore a copy of it.") from error
        raise LogUnavailable(f"{error} ({path})") from error
    except OSError as error:
        raise LogUnavailable(str(error)) from error


def _sync_folder(folder: Path) -> None:
    """Make the entries of a new file and of its folder durable."""
    for changed in (folder, folder.absolute().parent):
        descriptor = os.open(changed, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
