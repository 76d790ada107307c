"""Artifacts over obstore: what local folders, S3, GCS and Azure have in common.

A body passes through in blocks: hashed in a thread, then handed to obstore, which writes at most
WRITES_AT_ONCE of them at a time. A small body is one request; a larger one is a multipart upload,
completed only after its last byte has arrived. An upload that this process cannot even abort (it
was killed) leaves parts that the bucket's own lifecycle rule has to remove.

Any number of servers share one bucket. Nothing here is named after the process, and a start leaves
alone whatever another server may still be working on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import obstore
from obstore.store import ObjectStore

from muniment_services.artifacts.base import (
    ABANDONED_S,
    BLOCK_BYTES,
    ArtifactIsFolder,
    ArtifactMissing,
    Entry,
    Opened,
    PathRefused,
    Stored,
    StoreUnavailable,
)
from muniment_services.artifacts.failures import reading, translated

if TYPE_CHECKING:
    from obstore import GetOptions

PART_BYTES = 12 * 1024 * 1024
"""A bucket's blocks. S3 takes at most 10,000 parts an object and none below 5 MiB but the last one:
so 117 GiB are the largest file. Two of them are in memory for each upload under way."""

COPY_BYTES_MAX = 5 * 1024**3
"""Largest object that S3 copies by itself; larger ones pass through us."""

PATH_BYTES_MAX = 900
"""Longest path in a bucket: a key has 1,024 bytes, of which the bucket's prefix takes some."""

PART_OF_PATH_BYTES_MAX = 255
"""Longest name between two slashes, as file systems have it; MinIO keeps objects in one."""

WRITES_AT_ONCE = 2
DELETES_AT_ONCE = 1000
"""Files that one request removes at most (S3's limit)."""

CHECK_S = 10
"""Within so long a bucket must be readable and writable at the start."""

KEPT = "kept"
"""Key prefix of files that an upload replaces, until it is recorded."""

FILES = "files"
"""Key prefix of the artifacts, so that a store may keep other things beside them."""

CHECK = "check"
"""Key prefix of what a start writes to see that it can."""

NAME_BYTES = 16


class ObjectArtifacts:
    """An ArtifactStore over any obstore store whose writes are durable when they return.

    name: what people call the place. transient: files that nobody has written to for ABANDONED_S
    are removed at a start. random: so many random bytes, for names. now_s: the time, as the
    store's own clock has it, seconds since 1970.
    """

    block_bytes = PART_BYTES
    path_bytes_max = PATH_BYTES_MAX

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        *,
        transient: bool = False,
        random: Callable[[int], bytes] = os.urandom,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._store = store
        self._abandoned = (KEPT, CHECK, FILES) if transient else (KEPT, CHECK)
        self._random = random
        self._now_s = now_s

    async def start(self) -> None:
        """See that the bucket can be read and written; remove what servers left long ago."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._check()
        except TimeoutError:
            raise self._unusable(f"no answer within {CHECK_S} s") from None
        except StoreUnavailable as error:
            raise self._unusable(error.reason) from error
        for prefix in self._abandoned:
            await self._remove_abandoned(prefix)

    async def _check(self) -> None:
        key, content = f"{CHECK}/{self._unique()}", self._random(NAME_BYTES)
        with translated(key):
            await obstore.put_async(self._store, key, content, use_multipart=False)
            found = await obstore.get_async(self._store, key)
            if bytes(await found.bytes_async()) != content:
                raise StoreUnavailable(key, "what was written is not what is read")
            await obstore.list_with_delimiter_async(self._store, CHECK)
            await obstore.delete_async(self._store, key)

    def _unusable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            self.name,
            f"the artifact store cannot be used: {reason}. Make the bucket if there is none; let "
            "this server list it, and read, write and delete in it; give credentials, region and "
            "endpoint by AWS_…, GOOGLE_… or AZURE_… in the environment",
        )

    async def _remove_abandoned(self, prefix: str) -> None:
        oldest = self._now_s() - ABANDONED_S
        with translated(prefix):
            async for batch in obstore.list(self._store, prefix):
                keys = [m["path"] for m in batch if m["last_modified"].timestamp() < oldest]
                if keys:
                    await obstore.delete_async(self._store, keys)

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Stored:
        """Store a file, replacing one of that name. Durable and visible when this returns."""
        with translated(path):
            return await self._write(self._key(path), chunks)

    async def keep(self, path: str) -> str | None:
        """Keep a copy of the file at a path; None if there is no file."""
        size = await self.size(path)
        if size is None:
            return None
        kept = f"{KEPT}/{self._unique()}"
        with translated(path):
            await self._copy(self._key(path), kept, size)
        return kept

    async def restore(self, path: str, kept: str | None) -> None:
        """Put back what was kept of a path; None: remove the file."""
        if kept is None:
            await self.delete(path)
            return
        with translated(path):
            size = (await obstore.head_async(self._store, kept))["size"]
            await self._copy(kept, self._key(path), size)
        await self.forget(kept)

    async def _copy(self, source: str, target: str, size: int) -> None:
        if size <= COPY_BYTES_MAX:
            await obstore.copy_async(self._store, source, target)
        else:
            await self._write(target, _read(await obstore.get_async(self._store, source), source))

    async def forget(self, kept: str) -> None:
        """Remove what was kept."""
        with translated(kept):
            await obstore.delete_async(self._store, kept)

    async def is_current(self, path: str, stored: Stored) -> bool:
        """Whether the file at a path still is what was stored."""
        return await self._tag(path) == stored.tag

    async def describe(self, path: str) -> Stored:
        """What the file at a path holds now; reads all of it. Raises ArtifactMissing."""
        # The tag first: of a file that is being replaced, an old tag with new content is found out
        # by `is_current`, a new tag with old content would not be.
        tag = await self._tag(path)
        hashed = _Hashed((await self.get(path)).chunks, BLOCK_BYTES)
        async for _ in hashed.blocks:
            pass
        return replace(hashed.stored, tag=tag)

    async def _tag(self, path: str) -> str | None:
        try:
            with reading(path):
                return (await obstore.head_async(self._store, self._key(path)))["e_tag"]
        except ArtifactMissing:
            return None

    async def get(self, path: str, span: range | None = None) -> Opened:
        """Open a file or a part of it. Raises ArtifactMissing, ArtifactIsFolder."""
        options: GetOptions = {} if span is None else {"range": (span.start, span.stop)}
        try:
            with reading(path):
                found = await obstore.get_async(self._store, self._key(path), options=options)
        except ArtifactMissing:
            async for _ in self.walk(path):
                raise ArtifactIsFolder(path) from None
            raise
        return Opened(found.meta["size"], _read(found, path))

    async def size(self, path: str) -> int | None:
        """A file's size in bytes, None if there is no such file."""
        try:
            with reading(path):
                return (await obstore.head_async(self._store, self._key(path)))["size"]
        except ArtifactMissing:
            return None

    async def list(self, folder: str) -> Sequence[Entry]:
        """What is directly in a folder ("": the root), sorted by path; nothing if it is none."""
        try:
            with reading(folder):
                found = await obstore.list_with_delimiter_async(self._store, self._key(folder))
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
                async for batch in obstore.list(self._store, self._key(folder)):
                    for meta in batch:
                        if (path := _path(meta["path"])) != folder:
                            yield Entry(path, meta["size"])
        except ArtifactMissing:
            return

    async def delete(self, path: str) -> None:
        """Remove the file at a path, and all files below it. None there is no error."""
        keys = [self._key(entry.path) async for entry in self.walk(path)]
        with translated(path):
            for start in range(0, len(keys), DELETES_AT_ONCE):
                await obstore.delete_async(self._store, keys[start : start + DELETES_AT_ONCE])

    def _key(self, path: str) -> str:
        encoded = path.encode()
        longest = max(map(len, encoded.split(b"/")))
        if len(encoded) > self.path_bytes_max or longest > PART_OF_PATH_BYTES_MAX:
            raise PathRefused(path, "the path is too long")
        return f"{FILES}/{path}" if path else FILES

    def _unique(self) -> str:
        return self._random(NAME_BYTES).hex()

    async def _write(self, key: str, chunks: AsyncIterator[bytes]) -> Stored:
        hashed = _Hashed(chunks, self.block_bytes)
        first = await anext(hashed.blocks, b"")
        if len(first) < self.block_bytes:
            result = await obstore.put_async(self._store, key, first, use_multipart=False)
        else:
            result = await obstore.put_async(
                self._store,
                key,
                _chain(first, hashed.blocks),
                use_multipart=True,
                chunk_size=self.block_bytes,
                max_concurrency=WRITES_AT_ONCE,
            )
        return replace(hashed.stored, tag=result["e_tag"])


class _Hashed:
    """Chunks of any size as blocks of at least `block_bytes`, but the last one; their hash."""

    def __init__(self, chunks: AsyncIterator[bytes], block_bytes: int) -> None:
        self._block_bytes = block_bytes
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
            if size >= self._block_bytes:
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


async def _read(found: obstore.GetResult, path: str) -> AsyncIterator[bytes]:
    with translated(path):
        async for block in found.stream(min_chunk_size=BLOCK_BYTES):
            yield bytes(block)


def _path(key: str) -> str:
    return key.removeprefix(f"{FILES}/")
