"""What an artifact store is: files by path, written whole or not at all.

Every backend says the same of its writes: **a file that `put` returned for is durable** (it
outlives a power cut), and until then nothing of it can be seen. Nothing here knows folders of a
file system: a folder exists as long as a file is in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

ABANDONED_S = 3 * 24 * 3600
"""What an upload of another server left is removed at a start once it is so old. No upload takes
longer between its last two steps; a server that shares the store may still be working on what is
younger."""

BLOCK_BYTES = 4 * 1024 * 1024
"""Bodies are hashed, written and read in blocks of this size: large enough that handing one to
another thread costs nothing beside it, small enough that a thousand uploads fit in memory."""


class ArtifactError(Exception):
    """Base of what an artifact store can raise.

    ArtifactError
    ├── ArtifactMissing    there is no such file
    ├── ArtifactIsFolder   there are files below that path, but none at it
    ├── PathRefused        the store cannot have a file of that name there
    └── StoreUnavailable   the store cannot do it now; nothing was changed
        ├── StorageFull    because there is no room
        └── Overtaken      because another server changed the same file meanwhile
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path = path
        self.reason = reason


class ArtifactMissing(ArtifactError):
    """There is no such file."""


class ArtifactIsFolder(ArtifactError):
    """There are files below that path, but none at it."""


class PathRefused(ArtifactError):
    """A file stands where a folder would have to be, or the other way; or a name is too long."""


class StoreUnavailable(ArtifactError):
    """The store cannot do it now. Nothing was changed; try again."""

    retry_after_s = 5
    effect = "Nothing was changed."


class StorageFull(StoreUnavailable):
    """There is no room for the file. Nothing of it was kept."""

    retry_after_s = 30


class Overtaken(StoreUnavailable):
    """Another server replaced or removed the file while it was being published."""

    retry_after_s = 1
    effect = "Upload the file again."


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds. tag: the store's own mark of this content, the same for nothing else."""

    size_bytes: int
    sha256: bytes
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a folder (size_bytes None). path: from the store's root."""

    path: str
    size_bytes: int | None

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        return self.size_bytes is None


@dataclass(frozen=True, slots=True)
class Opened:
    """A file being read: all of it is `size_bytes`; `chunks` are the bytes that were asked for."""

    size_bytes: int
    chunks: AsyncIterator[bytes]


class ArtifactStore(Protocol):
    """Files by path. Paths have been checked: relative, no empty, `.` or `..` parts, no `#`."""

    async def start(self) -> None:
        """Make what the store needs, and remove what interrupted uploads left.

        Raises StoreUnavailable, which says what to do, when the store cannot be read and written.
        """

    async def put(self, path: str, chunks: AsyncIterator[bytes]) -> Stored:
        """Store a file, replacing one of that name. Durable and visible when this returns.

        When `chunks` raises, nothing was stored and the error is passed on. Raises PathRefused,
        StorageFull, StoreUnavailable.
        """

    async def keep(self, path: str) -> str | None:
        """Keep the file at a path aside, so that it can be restored; None if there is no file."""

    async def restore(self, path: str, kept: str | None) -> None:
        """Put back what `keep` kept of this path; None: remove the file."""

    async def forget(self, kept: str) -> None:
        """Remove what `keep` kept."""

    async def is_current(self, path: str, stored: Stored) -> bool:
        """Whether the file at a path still is what was stored, as no other server changed it."""

    async def describe(self, path: str) -> Stored:
        """What the file at a path holds now; reads all of it. Raises ArtifactMissing."""

    async def get(self, path: str, span: range | None = None) -> Opened:
        """Open a file, or a part of it (`range(start, stop)`, not empty, within the file).

        Raises ArtifactMissing, ArtifactIsFolder.
        """

    async def size(self, path: str) -> int | None:
        """A file's size in bytes, None if there is no such file."""

    async def list(self, folder: str) -> Sequence[Entry]:
        """What is directly in a folder ("": the root), sorted by path; nothing if it is none."""

    def walk(self, folder: str) -> AsyncIterator[Entry]:
        """All files at or below a path, in no particular order."""

    async def delete(self, path: str) -> None:
        """Remove the file at a path, and all files below it. None there is no error."""
