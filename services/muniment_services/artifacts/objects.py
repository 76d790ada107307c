"""Artifacts over obstore: what local folders, S3, GCS and Azure have in common.

A body passes through in blocks: hashed in a thread, then handed to obstore, which writes at most
WRITES_AT_ONCE of them at a time. A small body is one request; a larger one is a multipart upload,
completed only after its last byte has arrived.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from muniment_services.artifacts.base import (
    BLOCK_BYTES,
    ArtifactIsFolder,
    ArtifactMissing,
    Entry,
    Opened,
    PathRefused,
    StorageFull,
    Stored,
    StoreUnavailable,
)

WRITES_AT_ONCE = 2
DELETES_AT_ONCE = 1000
"""Files that one request removes at most (S3's limit)."""

KEPT = "kept"
"""Key prefix of files that an upload replaces, until it is recorded."""

FILES = "files"
"""Key prefix of the artifacts, so that a store may keep other things beside them."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG})


class ObjectArtifacts:
    """An ArtifactStore over any obstore store whose writes are durable when they return."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept = count()

    async def start(self) -> None:
        """Nothing to make; object stores drop uploads that were never completed."""

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Stored:
        """Store a file, replacing one of that name. Durable and visible when this returns."""
        with translated(path):
            return await self._write(_key(path), chunks)

    async def keep(self, path: str) -> str | None:
        """Keep a copy of the file at a path; None if there is no file."""
        if await self.size(path) is None:
            return None
        kept = f"{KEPT}/{next(self._kept)}-{path.rpartition('/')[2]}"
        with translated(path):
            await obstore.copy_async(self._store, _key(path), kept)
        return kept

    async def restore(self, path: str, kept: str | None) -> None:
        """Put back what was kept of a path; None: remove the file."""
        if kept is None:
            await self.delete(path)
            return
        with translated(path):
            await obstore.rename_async(self._store, kept, _key(path))

    async def forget(self, kept: str) -> None:
        """Remove what was kept."""
        with translated(kept):
            await obstore.delete_async(self._store, kept)

    async def get(self, path: str, span: range | None = None) -> Opened:
        """Open a file or a part of it. Raises ArtifactMissing, ArtifactIsFolder."""
        options = {} if span is None else {"range": (span.start, span.stop)}
        try:
            with reading(path):
                found = await obstore.get_async(self._store, _key(path), options=options)  # type: ignore[arg-type]
        except ArtifactMissing:
            async for _ in self.walk(path):
                raise ArtifactIsFolder(path) from None
            raise
        return Opened(found.meta["size"], _read(found))

    async def size(self, path: str) -> int | None:
        """A file's size in bytes, None if there is no such file."""
        try:
            with reading(path):
                return (await obstore.head_async(self._store, _key(path)))["size"]
        except ArtifactMissing:
            return None

    async def list(self, folder: str) -> Sequence[Entry]:
        """What is directly in a folder ("": the root), sorted by path; nothing if it is none."""
        try:
            with reading(folder):
                found = await obstore.list_with_delimiter_async(self._store, _key(folder))
        except ArtifactMissing:
            return []
        files = [Entry(_path(meta["path"]), meta["size"]) for meta in found["objects"]]
        folders = [Entry(_path(key), None) for key in found["common_prefixes"]]
        own = [entry for entry in files if entry.path != folder]
        return sorted([*own, *folders], key=lambda entry: entry.path)

    async def walk(self, folder: str) -> AsyncIterator[Entry]:
        """All files at or below a path, in no particular order."""
        if folder and (own := await self.size(folder)) is not None:
            yield Entry(folder, own)
        try:
            with reading(folder):
                async for batch in obstore.list(self._store, _key(folder)):
                    for meta in batch:
                        if (path := _path(meta["path"])) != folder:
                            yield Entry(path, meta["size"])
        except ArtifactMissing:
            return

    async def delete(self, path: str) -> None:
        """Remove the file at a path, and all files below it. None there is no error."""
        keys = [_key(entry.path) async for entry in self.walk(path)]
        with translated(path):
            for start in range(0, len(keys), DELETES_AT_ONCE):
                await obstore.delete_async(self._store, keys[start : start + DELETES_AT_ONCE])

    async def _write(self, key: str, chunks: AsyncIterator[bytes]) -> Stored:
        hashed = _Hashed(chunks)
        first = await anext(hashed.blocks, b"")
        if len(first) < BLOCK_BYTES:
            await obstore.put_async(self._store, key, first, use_multipart=False)
        else:
            await obstore.put_async(
                self._store,
                key,
                _chain(first, hashed.blocks),
                use_multipart=True,
                chunk_size=BLOCK_BYTES,
                max_concurrency=WRITES_AT_ONCE,
            )
        return hashed.stored


class _Hashed:
    """Chunks of any size as blocks of at least BLOCK_BYTES, the last one excepted; their hash."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self.blocks = self._read(chunks)

    @property
    def stored(self) -> Stored:
        """Size and digest of what has been read."""
        return Stored(self._size_bytes, self._sha256.digest())

    async def _read(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        waiting: list[bytes] = []
        size = 0
        async for chunk in chunks:
            waiting.append(chunk)
            size += len(chunk)
            if size >= BLOCK_BYTES:
                yield await self._take(waiting)
                waiting, size = [], 0
        if waiting:
            yield await self._take(waiting)

    async def _take(self, chunks: Sequence[bytes]) -> bytes:
        block = b"".join(chunks)
        self._size_bytes += len(block)
        await asyncio.to_thread(self._sha256.update, block)
        return block


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block


async def _read(found: obstore.GetResult) -> AsyncIterator[bytes]:
    async for block in found.stream(min_chunk_size=BLOCK_BYTES):
        yield bytes(block)


def _key(path: str) -> str:
    return f"{FILES}/{path}" if path else FILES


def _path(key: str) -> str:
    return key.removeprefix(f"{FILES}/")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Errors of obstore and of the operating system as ArtifactErrors; others pass as they are."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactMissing(path) from None
    except (BaseError, OSError) as error:
        number = _errno(error)
        if number in _FULL:
            raise StorageFull(path, "no space is left in the artifact store") from error
        if number == errno.ENOTDIR:
            raise PathRefused(path, "a file stands where a folder would have to be") from error
        if number in _REFUSED:
            raise PathRefused(path, "the store cannot have a file of this name there") from error
        raise StoreUnavailable(path, str(error).partition("\n")[0]) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """As `translated`; what the store could not have at that path is not there."""
    try:
        with translated(path):
            yield
    except PathRefused:
        raise ArtifactMissing(path) from None


def _errno(error: Exception) -> int | None:
    # obstore's errors carry the operating system's number in their text only.
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
