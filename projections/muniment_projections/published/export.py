"""Writes the published tables as Parquet files, and keeps what need not be written again.

What always holds: all files of one call are of one state of the database; a file that was written
is never changed, only removed, so that whoever has linked it reads on undisturbed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from muniment_projections.base import Connection
from muniment_projections.published.catalogue import ROWS, TABLES, Table
from muniment_projections.store import Store
from muniment_schemas.envelope import ACCESS

COMPRESSION = "zstd"

State = tuple[tuple[str, int, int], ...]
"""How far what was written had come: (topic, partition, next offset) of all that tables hang on."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file that holds the rows from `begin` until just before `end` of a table."""

    path: Path
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.end - self.begin


class Export:
    """The files of one store in a folder of their own, which is made and was empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._parts: dict[str, list[Part]] = {}
        self._states: dict[str, State] = {}
        self._made = 0

    def link(
        self, connection: Connection, store: Store, names: Iterable[str], folder: Path
    ) -> None:
        """Have the tables' files, as of now, in `folder`: for each a folder of its name.

        connection: a reader's on the store. names: of TABLES. folder: on the file system of the
        files. Blocks while files are written; those that nobody else has linked are gone when there
        are newer ones. Raises OSError, duckdb.Error.
        """
        wanted = tuple(names)
        with self._lock:
            if store is not self._store:
                self._forget(self._parts)
                self._store = store
            # Read before the transaction begins: it never tells of more than the files hold.
            state = _state(store)
            self._refresh(connection, state, wanted)
            for name in wanted:
                place = folder / name
                place.mkdir()
                for number, part in enumerate(self._parts[name]):
                    (place / f"part-{number}.parquet").hardlink_to(part.path)

    def _refresh(self, connection: Connection, state: State, names: Iterable[str]) -> None:
        connection.begin()
        try:
            for name in names:
                table = TABLES[name]
                if table.grows:
                    self._add(connection, table)
                else:
                    self._replace(connection, table, state)
        finally:
            connection.rollback()

    def _replace(self, connection: Connection, table: Table, state: State) -> None:
        if self._states.get(table.name) == state:
            return
        part = Part(self._write(connection, table), 0, 0)
        self._forget([table.name])
        self._parts[table.name] = [part]
        self._states[table.name] = state

    def _add(self, connection: Connection, table: Table) -> None:
        """Write the rows that are new, together with smaller parts before them.

        So there are as many parts as the number of rows has binary digits, at most, and a row is
        written again as often.
        """
        kept = list(self._parts.get(table.name, ()))
        begin = kept[-1].end if kept else 0
        end = connection.execute(f"SELECT count(*) FROM {table.source}").fetchall()[0][0]
        if end == begin and kept:
            return
        merged = []
        while kept and kept[-1].rows <= end - begin:
            merged.append(kept.pop())
            begin = merged[-1].begin
        where = f" WHERE t.rowid >= {begin} AND t.rowid < {end}"
        kept.append(Part(self._write(connection, table, where), begin, end))
        self._parts[table.name] = kept
        for part in merged:
            part.path.unlink()

    def _write(self, connection: Connection, table: Table, where: str = "") -> Path:
        self._made += 1
        path = self._folder / f"{table.name}-{self._made}.parquet"
        if table.rows is not None:
            connection.register(ROWS, table.rows(connection))
        try:
            connection.execute(
                f"COPY ({table.select}{where}) TO ? (FORMAT parquet, COMPRESSION {COMPRESSION})",
                [str(path)],
            )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            if table.rows is not None:
                connection.unregister(ROWS)
        return path

    def _forget(self, names: Iterable[str]) -> None:
        for name in list(names):
            for part in self._parts.pop(name, ()):
                part.path.unlink()
            self._states.pop(name, None)


def _state(store: Store) -> State:
    """Calls change none of the tables that are written anew."""
    return tuple(
        (topic, partition, offset)
        for (topic, partition), offset in sorted(store.checkpoints.items())
        if topic != ACCESS
    )
