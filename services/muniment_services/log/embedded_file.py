"""The SQLite file behind the embedded log: its layout, its lock, its connections, its reads."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    RUNS,
    LogCorrupt,
    LogError,
    LogUnavailable,
    Record,
    TopicPartition,
)

BUSY_TIMEOUT_S = 1.0
"""How long a statement waits for another connection's lock (WAL recovery, a foreign writer)."""

WAL_PAGES_MAX = 4_000
"""Pages in the WAL (16 MiB) after which a commit moves them to the file."""

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""What the WAL is cut back to after a burst."""

READERS_IDLE_MAX = 8
LAYOUT_VERSION = "1"

READ_ONLY, READ_WRITE, CREATE = "mode=ro", "mode=rw", "mode=rwc"

_TABLES = (
    "CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL,"
    " key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL) STRICT",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "INSERT INTO meta VALUES ('log_id', lower(hex(randomblob(16))))",
)

_SELECT = (
    "SELECT id, timestamp_ms, key, headers, value FROM record"
    " WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
)

_HEADERS = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])


class LogFile:
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
        with _reported(self.path):
            self.path.touch(mode=0o600)  # It has what people wrote; SQLite's own files follow it.
        with _reported(self.path), closing(self.connect(CREATE)) as connection:
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
        if mode == READ_ONLY and not os.access(self.path.parent, os.W_OK):
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
            connection = self.connect(READ_ONLY)
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


def data_version(connection: sqlite3.Connection) -> int:
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
