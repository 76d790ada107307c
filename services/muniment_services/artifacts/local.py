"""Artifacts in a folder of this machine.

A body is written to `staging/` first, flushed to the disk, and only then moved to its place below
`files/`; the folders on the way are flushed too. obstore's own local writes are atomic but not
flushed, so a power cut could leave an acknowledged file empty. Reading keeps one descriptor open,
so whoever downloads a file that is being replaced gets the old one whole.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from threading import Lock

from muniment_services.artifacts.base import (
    ABANDONED_S,
    BLOCK_BYTES,
    ArtifactIsFolder,
    Opened,
    Stored,
)
from muniment_services.artifacts.failures import reading, translated
from muniment_services.artifacts.objects import FILES, ObjectArtifacts
from muniment_services.artifacts.place import open_folder

STAGING = "staging"
PUBLISH_TRIES_MAX = 10
"""Times that a move is tried when a deletion removes the empty folder under its feet."""

PATH_BYTES_MAX = 3_000
"""Longest path: Linux takes 4,095 bytes, the folder's own path included."""

FOLDERS_KNOWN_MAX = 100_000
"""Folders that are remembered as durable; beyond it, all are flushed once more."""


class LocalArtifacts(ObjectArtifacts):
    """An ArtifactStore in a folder.

    transient: its files, too, are removed at every start. shared: other servers use the folder
    (a network file system), so a start removes only what has not been touched for ABANDONED_S.
    """

    block_bytes = BLOCK_BYTES
    path_bytes_max = PATH_BYTES_MAX

    def __init__(self, folder: Path, *, transient: bool = False, shared: bool = False) -> None:
        super().__init__(open_folder(folder), str(folder))
        self._folder = folder
        self._shared = shared
        self._removed_at_start = (STAGING, FILES) if transient else (STAGING,)
        self._making = Lock()
        self._durable: set[Path] = set()

    async def start(self) -> None:
        """Make the folders, and remove what interrupted uploads left."""
        await asyncio.to_thread(self._clean)

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Stored:
        """Store a file, replacing one of that name. Durable and visible when this returns."""
        staged = f"{STAGING}/{self._unique()}"
        with translated(path):
            try:
                stored = await self._write(staged, chunks)
                await asyncio.to_thread(self._publish, self._folder / staged, path)
            except BaseException:
                await asyncio.to_thread((self._folder / staged).unlink, missing_ok=True)
                raise
        return stored

    async def keep(self, path: str) -> str | None:
        """Keep the file at a path by a second name, which costs nothing; None if there is none."""
        if await self.size(path) is None:
            return None
        kept = f"{STAGING}/{self._unique()}"
        with translated(path):
            await asyncio.to_thread(os.link, self._folder / FILES / path, self._folder / kept)
        return kept

    async def restore(self, path: str, kept: str | None) -> None:
        """Put back what was kept of a path; None: remove the file. Durable when this returns."""
        if kept is None:
            await self.delete(path)
            return
        with translated(path):
            await asyncio.to_thread(self._publish, self._folder / kept, path)

    async def forget(self, kept: str) -> None:
        """Remove the second name."""
        await asyncio.to_thread((self._folder / kept).unlink, missing_ok=True)

    async def get(self, path: str, span: range | None = None) -> Opened:
        """Open a file or a part of it. Raises ArtifactMissing, ArtifactIsFolder."""
        with reading(path):
            file = await asyncio.to_thread(_open, self._folder / FILES / path)
        if file is None:
            raise ArtifactIsFolder(path)
        size = os.fstat(file.fileno()).st_size
        return Opened(size, _blocks(file, range(size) if span is None else span))

    async def delete(self, path: str) -> None:
        """Remove the file at a path, and all files below it. None there is no error."""
        await super().delete(path)
        await asyncio.to_thread(self._sync_nearest, self._folder / FILES / path)

    def _clean(self) -> None:
        for name in self._removed_at_start:
            if self._shared:
                _remove_untouched(self._folder / name, time.time() - ABANDONED_S)
            elif (self._folder / name).exists():
                shutil.rmtree(self._folder / name)
        for name in (STAGING, FILES):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        _sync(self._folder)

    def _publish(self, staged: Path, path: str) -> None:
        _sync(staged)
        target = self._folder / FILES / path
        for left in reversed(range(PUBLISH_TRIES_MAX)):
            try:
                self._make_durable(target.parent)
                os.replace(staged, target)
                break
            except FileNotFoundError:
                if not left:
                    raise
        _sync(target.parent)

    def _make_durable(self, folder: Path) -> None:
        # The first upload into a folder flushes all folders above it, also those that another
        # upload has just made, or an earlier process; from then on the folder is known.
        with self._making:
            if folder in self._durable and folder.is_dir():
                return
            folder.mkdir(parents=True, exist_ok=True)
            for above in folder.parents:
                _sync(above)
                if above == self._folder:
                    break
            if len(self._durable) >= FOLDERS_KNOWN_MAX:
                self._durable.clear()
            self._durable.add(folder)

    def _sync_nearest(self, path: Path) -> None:
        # Removals are durable once the nearest folder that is still there has been flushed. Another
        # removal may take a folder away at any moment, which is why it is tried rather than asked.
        for folder in path.parents:
            with suppress(FileNotFoundError):
                _sync(folder)
                return


def _open(path: Path) -> FileIO | None:
    # None for a folder.
    if path.is_dir():
        return None
    return FileIO(path)


async def _blocks(file: FileIO, span: range) -> AsyncIterator[bytes]:
    with file:
        for start in range(span.start, span.stop, BLOCK_BYTES):
            length = min(BLOCK_BYTES, span.stop - start)
            yield await asyncio.to_thread(os.pread, file.fileno(), length, start)


def _remove_untouched(folder: Path, oldest_s: float) -> None:
    # Folders last, and those only that nobody is putting anything into.
    for at, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with suppress(FileNotFoundError):
                if os.stat(os.path.join(at, name)).st_mtime < oldest_s:
                    os.unlink(os.path.join(at, name))
        for name in folders:
            with suppress(OSError):
                os.rmdir(os.path.join(at, name))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
