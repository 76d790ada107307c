"""The DuckDB file that holds all projections, their checkpoints, and who may write to it.

What always holds: a transaction's rows and checkpoints are committed together; a checkpoint never
goes back; one thread writes, any number read, each on a cursor of its own and on a consistent
snapshot. The file is a cache of the log: when its layout version is not ours, it is built anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import duckdb

from muniment_projections.base import Connection, Folded, Projection

Checkpoints = dict[tuple[str, int], int]
"""(topic, partition) to the offset of the next record to fold."""

T = TypeVar("T")

LAYOUT_VERSION = 7
"""Raised with every change of any table; a file of another version is rebuilt from the log."""

READ_THREADS = 2
MEMORY_LIMIT_DEFAULT = "2GB"

_SIGNS_OF_DAMAGE = ("not a valid DuckDB database", "Corrupt database", "Could not read enough")
"""What DuckDB 2.0 says of a damaged file; for most of it there is no type of its own."""

_CREATE = """
CREATE TABLE layout (version INTEGER NOT NULL, log_id VARCHAR NOT NULL);
CREATE TABLE checkpoints (
    topic VARCHAR NOT NULL, "partition" INTEGER NOT NULL, next_offset BIGINT NOT NULL
);
"""


class StoreError(Exception):
    """Base of what the store can raise."""


class StoreLayoutUnknown(StoreError):
    """The file was written by another layout version; delete it, or let `rebuild` replace it."""


class CheckpointRegressed(StoreError):
    """A batch begins before the checkpoint: the same records would be applied twice."""


def wal_of(path: Path) -> Path:
    """Where DuckDB keeps the write-ahead log of a database file."""
    return path.with_name(f"{path.name}.wal")


def is_damage(error: duckdb.Error) -> bool:
    """Whether an error says that the file itself is damaged, rather than in use or out of room."""
    broken = (duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
    return isinstance(error, broken) or any(sign in str(error) for sign in _SIGNS_OF_DAMAGE)


class Store:
    """Opens or creates the database file and runs transactions and reads on it."""

    def __init__(
        self,
        path: Path,
        projections: Sequence[Projection],
        memory_limit: str = MEMORY_LIMIT_DEFAULT,
    ) -> None:
        self.path = path
        self._projections = projections
        self._connection = duckdb.connect(
            str(path), config={"threads": READ_THREADS, "memory_limit": memory_limit}
        )
        self._write_lock = threading.Lock()
        self._local = threading.local()
        self.log_id = ""
        """The log that this is a projection of; empty before anything was folded."""
        try:
            self.checkpoints: Checkpoints = self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> Checkpoints:
        tables = self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        if not tables:
            self._create()
        found = self._connection.execute("SELECT version FROM layout").fetchone()
        if found != (LAYOUT_VERSION,):
            raise StoreLayoutUnknown(f"{self.path} has layout {found}, not {LAYOUT_VERSION}.")
        (self.log_id,) = self._connection.execute("SELECT log_id FROM layout").fetchall()[0]
        rows = self._connection.execute("FROM checkpoints").fetchall()
        return {(topic, partition): offset for topic, partition, offset in rows}

    def _create(self) -> None:
        self._connection.begin()
        self._connection.execute(_CREATE)
        self._connection.execute("INSERT INTO layout VALUES (?, '')", [LAYOUT_VERSION])
        for projection in self._projections:
            projection.create(self._connection)
        self._connection.commit()

    def belong_to(self, log_id: str) -> None:
        """Note of which log this is a projection. Only for a store that does not know yet."""
        assert self.log_id in ("", log_id), "projections of another log"
        if self.log_id:
            return
        with self._write_lock:
            self._connection.execute("UPDATE layout SET log_id = ?", [log_id])
            self.log_id = log_id

    def write(self, batch: Sequence[Folded], checkpoints: Mapping[tuple[str, int], int]) -> None:
        """Apply a batch to every projection and move the checkpoints, in one transaction.

        checkpoints: the next offset of each topic-partition after the batch. Raises
        CheckpointRegressed when the batch begins before the stored one; nothing is then changed.
        """
        with self._write_lock:
            self._refuse_repeats(batch)
            merged = {**self.checkpoints, **checkpoints}
            self._connection.begin()
            try:
                for projection in self._projections:
                    projection.apply(self._connection, batch)
                self._connection.execute("DELETE FROM checkpoints")
                self._connection.executemany(
                    "INSERT INTO checkpoints VALUES (?, ?, ?)",
                    [[topic, partition, offset] for (topic, partition), offset in merged.items()],
                )
                self._connection.commit()
            except BaseException:
                with suppress(duckdb.TransactionException):  # A failed commit has ended it already.
                    self._connection.rollback()
                raise
            self.checkpoints = merged

    def _refuse_repeats(self, batch: Sequence[Folded]) -> None:
        for item in batch:
            if item.offset < self.checkpoints.get((item.topic, item.partition), 0):
                raise CheckpointRegressed(
                    f"{item.topic}/{item.partition}@{item.offset} was already applied"
                )

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on this thread's own cursor; each statement sees a committed state.

        Rows that it leaves unread are gone, so what it returns must not be reading them still.
        """
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connection.cursor()
        try:
            return query(cursor)
        finally:
            cursor.abort()  # An open result would be in the next query's way.

    def copy_to(self, path: Path, copy: Callable[[Path, Path], None]) -> Checkpoints:
        """Copy the file and its write-ahead log as they are; returns the copy's checkpoints.

        copy: copies a file without opening it in this process, which would lose DuckDB's lock on
        it. Nothing is written meanwhile; readers go on. They are why there is no CHECKPOINT here:
        in DuckDB 2.0 a reader beside one may find a row twice, or not at all.
        """
        with self._write_lock:
            copy(self.path, path)
            if wal_of(self.path).exists():
                copy(wal_of(self.path), wal_of(path))
            return dict(self.checkpoints)

    def close(self) -> None:
        """Write what is buffered to the file and release it. Idempotent."""
        self._connection.close()
