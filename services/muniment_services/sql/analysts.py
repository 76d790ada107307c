"""Answers statements of analysts: tables written down, a process that reads them, and an end to it.

The life of one statement:
1. The tables that it may mean are written as Parquet files beside the projections, as far as they
   are not there already (`muniment_projections.published.export`).
2. They are linked into a folder for this statement alone.
3. A process without anything else answers it (`process.py`), within limits that have names here.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tarfile
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import duckdb
import msgspec

from muniment_projections.base import Connection
from muniment_projections.published.catalogue import TABLES
from muniment_projections.published.export import Export
from muniment_projections.runner import ProjectionsUnavailable, Runner
from muniment_projections.store import Store
from muniment_services.sql.process import Order, Report

CATALOGUE_FILE = "tables.json"

FOLDER = "tables"
"""Name of the folder in data_dir where the files are; emptied at each start."""

TIME_S = 60
"""A statement takes so long at most, the writing of tables apart."""

MEMORY_BYTES = 1024**3
ROWS_MAX = 100_000
BYTES_MAX = 64 * 1024**2
"""What the process may take for the work, and of an answer."""

STATEMENTS_MAX = 2
"""Statements that are answered at a time."""

REPORT_BYTES_MAX = 64 * 1024
CHUNK_BYTES = 256 * 1024

COMMAND = (sys.executable, "-P", "-m", "muniment_services.sql.process")


TAR_END: Final = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar that is being made. size_bytes: of all chunks together."""

    size_bytes: int
    chunks: AsyncGenerator[bytes, None]


class StatementRefused(Exception):
    """There is no answer; the text says why, and what would help."""


class Analysts:
    """Answers statements over one replica's projections. Lives on one event loop."""

    def __init__(self, data_dir: Path, time_s: int = TIME_S) -> None:
        """data_dir: the server's, in which nobody else makes a folder `tables`."""
        self._folder = (data_dir / FOLDER).absolute()  # The process has a folder of its own.
        self._time_s = time_s
        self._export: Export | None = None
        self._first = threading.Lock()
        self._turn = asyncio.Semaphore(STATEMENTS_MAX)

    @property
    def busy(self) -> bool:
        """Whether another statement would have to wait."""
        return self._turn.locked()

    async def answer(self, runner: Runner, statement: str, format: str) -> bytes:
        """A statement's answer in one of FORMATS, as of what the runner's store holds now.

        Raises StatementRefused, ProjectionsUnavailable.
        """
        # A table that is not named in it, however it is written, is not there for it.
        named = [name for name in TABLES if re.search(rf"\b{name}\b", statement, re.IGNORECASE)]
        async with self._turn, self._linked(runner, named) as folder:
            return await self._ask(
                Order(
                    statement=statement,
                    format=format,
                    folder=str(folder),
                    tables=tuple(TABLES),
                    time_s=self._time_s,
                    memory_bytes=MEMORY_BYTES,
                    rows_max=ROWS_MAX,
                    bytes_max=BYTES_MAX,
                )
            )

    async def archive(self, runner: Runner) -> Archive:
        """All tables of one moment as a tar: `<table>/part-<n>.parquet`, and `tables.json`.

        Raises ProjectionsUnavailable.
        """
        async with self._turn, self._linked(runner, TABLES) as folder:
            catalogue = msgspec.json.format(msgspec.json.encode({"tables": described()}))
            (folder / CATALOGUE_FILE).write_bytes(catalogue)
            # What is open can be read when it is gone.
            files = {
                path.relative_to(folder).as_posix(): path.open("rb")
                for path in sorted(folder.rglob("*.*"))
            }
        sizes = {name: os.fstat(file.fileno()).st_size for name, file in files.items()}
        size = sum(tarfile.BLOCKSIZE + _padded(size) for size in sizes.values())
        return Archive(size + len(TAR_END), _sent(files, sizes))

    async def close(self) -> None:
        """Remove the files. Nothing may be asked any more, and the runner must be closed."""
        if self._export is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder)
            self._export = None

    @asynccontextmanager
    async def _linked(self, runner: Runner, names: Iterable[str]) -> AsyncIterator[Path]:
        store, wanted = runner.store, tuple(names)
        try:
            folder = await runner.read(lambda connection: self._link(connection, store, wanted))
        except (duckdb.Error, OSError) as error:
            raise ProjectionsUnavailable(f"the tables cannot be written: {error}") from error
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)

    def _link(self, connection: Connection, store: Store, names: Sequence[str]) -> Path:
        with self._first:
            if self._export is None:
                shutil.rmtree(self._folder, ignore_errors=True)  # Of a server that was killed.
                self._folder.mkdir(mode=0o700)
                self._export = Export(self._folder)
            export = self._export
        folder = Path(tempfile.mkdtemp(prefix="statement-", dir=self._folder))
        try:
            export.link(connection, store, names, folder)
        except BaseException:
            shutil.rmtree(folder)
            raise
        return folder

    async def _ask(self, order: Order) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=REPORT_BYTES_MAX,
            cwd=order.folder,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            async with asyncio.timeout(order.time_s):
                report, body = await _exchange(process, order)
                await process.wait()
        except TimeoutError:
            raise StatementRefused(
                f"The statement takes longer than {order.time_s} s: ask for less at a time."
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if report.error is not None:
            raise StatementRefused(report.error)
        return body


async def _exchange(process: asyncio.subprocess.Process, order: Order) -> tuple[Report, bytes]:
    """What a process makes of an order: no more than the order allows it to say."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError, RuntimeError):  # One that has ended already says so below.
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        return Report(error="The process that answers has ended: ask for less at a time."), b""
    body = bytearray()
    while chunk := await process.stdout.read(CHUNK_BYTES):
        body += chunk
        assert len(body) <= order.bytes_max, "the process keeps its answers within their size"
    return msgspec.json.decode(line, type=Report), bytes(body)


def described() -> list[dict[str, Any]]:
    """The tables, and what each column says, for people and programs."""
    return [
        {
            "name": table.name,
            "meaning": table.meaning,
            "columns": [
                {"name": column.name, "type": column.type, "meaning": column.meaning}
                for column in table.columns
            ],
        }
        for table in TABLES.values()
    ]


async def _sent(
    files: Mapping[str, BinaryIO], sizes: Mapping[str, int]
) -> AsyncGenerator[bytes, None]:
    chunks = _tar(files, sizes)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _tar(files: Mapping[str, BinaryIO], sizes: Mapping[str, int]) -> Iterator[bytes]:
    """Files as a tar (GNU's: they may have more than 8 GiB), of which a chunk is in memory."""
    for name, file in files.items():
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = sizes[name], 0o600
        yield entry.tobuf(tarfile.GNU_FORMAT)
        with file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        yield bytes(_padded(entry.size) - entry.size)
    yield TAR_END


def _padded(size: int) -> int:
    return size + -size % tarfile.BLOCKSIZE
