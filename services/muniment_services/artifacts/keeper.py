"""Changing artifacts: the file and its event, in the order that a crash forgives.

An upload is durable in the store before its event is appended, a deletion's events are durable
before the files go. A crash between the two leaves a file that no event speaks of, never an event
whose file is not there. An upload that replaced a file and crashed there left new content under the
old digest. `verify_artifacts` finds both; no client had been told that they were accepted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from muniment_services.artifacts.base import ArtifactStore, Stored
from muniment_services.domain.artifact import owner_of
from muniment_services.log.base import LogError

RecordUpload = Callable[[Stored, bool], Awaitable[None]]
"""Appends the event of a stored file; told whether it replaced one. Returns when it is durable."""

RecordDeletion = Callable[[Mapping[str, int]], Awaitable[None]]
"""Appends the events of a deletion; told how many files each owner loses."""


class Artifacts:
    """The store, and who may change what at the same time. Lives on one event loop.

    parts: where parts of multipart uploads wait. random: so many random bytes, for upload ids.
    """

    def __init__(
        self, store: ArtifactStore, parts: ArtifactStore, random: Callable[[int], bytes]
    ) -> None:
        self.store = store
        self.parts = parts
        self.random = random
        self._paths = _Paths()

    async def start(self) -> None:
        """Prepare both stores; multipart uploads of an earlier process are forgotten."""
        await self.store.start()
        await self.parts.start()

    def is_changing(self, path: str) -> bool:
        """Whether a file is being published or removed, so that its digest may be an old one."""
        return self._paths.overlap(path)

    async def upload(self, path: str, chunks: AsyncIterator[bytes], record: RecordUpload) -> None:
        """Store a file and record it. What `chunks` or `record` raise is passed on.

        When the log refuses the record, what was there before is there again.

        Whoever is last to send its last byte to a path is also last in the log.
        """
        async with AsyncExitStack() as held:
            kept: str | None = None

            async def until_last() -> AsyncIterator[bytes]:
                nonlocal kept
                async for chunk in chunks:
                    yield chunk
                # All is here, nothing is visible yet: from now on the path is ours.
                await held.enter_async_context(self._paths.hold(path))
                kept = await self.store.keep(path)

            stored = await self.store.put(path, until_last())
            try:
                await record(stored, kept is not None)
            except LogError:
                await self.store.restore(path, kept)
                raise
            if kept is not None:
                await self.store.forget(kept)

    async def delete(self, path: str, record: RecordDeletion) -> None:
        """Record the removal of the files at and below a path, then remove them."""
        async with self._paths.hold(path):
            owners = Counter([owner_of(entry.path) async for entry in self.store.walk(path)])
            if owners:
                await record(owners)
                await self.store.delete(path)


class _Paths:
    """Paths in use. Using one excludes what is at, above or below it, and nothing else."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._waiters: list[asyncio.Future[None]] = []

    def overlap(self, path: str) -> bool:
        """Whether someone uses this path, one above or one below it."""
        return any(_overlap(path, held) for held in self._held)

    @asynccontextmanager
    async def hold(self, path: str) -> AsyncIterator[None]:
        """Use a path, as soon as nobody else uses one that overlaps with it."""
        while self.overlap(path):
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(freed)
            await freed
        self._held.append(path)
        try:
            yield
        finally:
            self._held.remove(path)
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


def _overlap(one: str, other: str) -> bool:
    return (
        one == other
        or not one
        or not other
        or one.startswith(f"{other}/")
        or other.startswith(f"{one}/")
    )
