"""The SQLite file behind the embedded log: its layout, its lock, and reading it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex

import msgspec

from muniment_schemas.ids import Offset
from muniment_services.log.base import LogCorrupt, LogUnavailable, Record, TopicPartition, topics

class Access(Enum):
    READ = "ro"
    WRITE = "rw"

_L = """
CREATE TABLE record (id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
OFF = 40

class LogFile:
    def __init__(self, path: Path, runs_partitions: int) -> None:
        self.path = path
        self.log_id = ""
        self._set(topics(runs_partitions))
    def _set(self, partitions):
        self.partitions = partitions
        self.places = [TopicPartition(t, p) for t, n in partitions.items() for p in range(n)]
        self._index = {at: i for i, at in enumerate(self.places)}
    def index_of(self, at): return self._index[at]
    @staticmethod
    def row_id(index, offset): return (index << OFF) | offset
    def lock(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(fd, 20).decode() or "?"
            os.close(fd)
            raise LogUnavailable(f"{self.path} is in use by process {pid}") from None
        os.truncate(fd, 0); os.write(fd, str(os.getpid()).encode())
        return fd
    def connect(self, access):
        try:
            c = sqlite3.connect(f"file:{self.path}?mode={access.value}", uri=True, isolation_level=None, check_same_thread=False)
            c.execute("PRAGMA busy_timeout=5000")
            if access is Access.WRITE:
                c.execute("PRAGMA journal_mode=WAL"); c.execute("PRAGMA synchronous=FULL")
            return c
        except sqlite3.Error as e:
            raise LogUnavailable(f"{self.path}: {e}") from e
    def open_or_create(self):
        if not self.path.exists():
            c = sqlite3.connect(self.path, isolation_level=None); c.execute("PRAGMA journal_mode=WAL")
            c.executescript("BEGIN;" + _L + "COMMIT;")
            c.execute("INSERT INTO meta VALUES ('log_id', ?)", [token_hex(16)]); c.execute("INSERT INTO meta VALUES ('topics', ?)", [msgspec.json.encode(self.partitions).decode()]); c.close()
        wanted = self.partitions
        self.open_existing()
        if self.partitions != wanted:
            raise LogCorrupt("other partitions")
    def open_existing(self):
        c = self.connect(Access.READ)
        try:
            self._set(msgspec.json.decode(c.execute("SELECT value FROM meta WHERE name='topics'").fetchone()[0]))
            self.log_id = c.execute("SELECT value FROM meta WHERE name='log_id'").fetchone()[0]
        except sqlite3.Error as e: raise LogUnavailable(str(e)) from e
        finally: c.close()
    def read_ends(self, c):
        out = []
        for i in range(len(self.places)):
            r = c.execute("SELECT max(id) FROM record WHERE id >= ? AND id < ?", [i << OFF, (i + 1) << OFF]).fetchone()[0]
            out.append(Offset(0 if r is None else (r & ((1 << OFF) - 1)) + 1))
        return out
    def data_version(self, c): return c.execute("PRAGMA data_version").fetchone()[0]
    def holds(self, record):
        c = self.connect(Access.READ)
        try: return c.execute("SELECT 1 FROM record WHERE id=?", [self.row_id(self.index_of(record.at), record.offset)]).fetchone() is not None
        finally: c.close()

class Readers:
    def __init__(self, file): self._file = file; self._free = SimpleQueue(); self._closed=False
    @contextmanager
    def connection(self):
        try: c = self._free.get_nowait()
        except Empty: c = self._file.connect(Access.READ)
        try: yield c
        finally: self._free.put(c)
    def read(self, at, start, records_max, bytes_max):
        base = self._file.index_of(at) << OFF
        out=[]; size=0
        with self.connection() as c:
            for i,t,k,h,v in c.execute("SELECT id,timestamp_ms,key,headers,value FROM record WHERE id>=? AND id<? ORDER BY id LIMIT ?", [base+start, base+(1<<OFF), records_max]):
                out.append(Record(at, Offset(i-base), k, v, tuple((a,b) for a,b in msgspec.msgpack.decode(h)), t)); size+=len(v)
                if size>bytes_max: break
        return out
    def close(self):
        while not self._free.empty(): self._free.get().close()
