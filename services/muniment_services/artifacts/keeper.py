"""Changing artifacts: the file and its event, in the order that a crash forgives.

An upload is durable in the store before its event is appended, a deletion's events are durable
before the files go. A crash between the two leaves a file that no event speaks of, never an event
whose file is not there. An upload that replaced a file and crashed there left new content under the
old digest. `verify_artifacts` finds both; no client had been told that they were accepted.

Several servers may share a store and a log. Changes of one path on one server wait for each other;
those on different servers do not, and there is no lock between them. What holds all the same: once
the events of uploads to a path have been answered, the newest of them has the digest of the file
that is there. Each server looks at the file again when its event is durable. If another content is
there by then, it records that content too: whichever of the two events is later, it is right.
What can be left to `verify_artifacts`, which reports the file as missing or changed: a file that
one server removes while another uploads it anew, and uploads to one path on two servers while the
log refuses both. A download's ETag is the digest in the log, which another server's upload may be
about to change.

A change that has begun to be visible is brought to its end whoever gives up waiting for it: either
its event is in the log, or what was there before is there again, whatever the reason. One case is
left: where the log could not be heard (LogUnavailable after the event was handed to it), the old
file is put back, and the log may have the event all the same. The event decides: the file is then
reported as changed, and is to be uploaded again, as the refusal asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from muniment_services.artifacts.base import (
    ArtifactMissing,
    ArtifactStore,
    Overtaken,
    Stored,
    StoreUnavailable,
)
from muniment_services.domain.artifact import owner_of

RecordUpload = Callable[[Stored, bool], Awaitable[None]]
"""Appends the event of a stored file; told whether it replaced one. Returns when it is durable."""

RecordDeletion = Callable[[Mapping[str, int]], AsyncIterator[str]]
"""Appends the events of a deletion; told how many files each owner loses. Yields each owner as soon
as its event is durable."""


AGREE_TRIES_MAX = 5
"""Times that an upload records what other servers have put in the place of its file."""


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
        self._changes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Prepare both stores. Raises StoreUnavailable, which says what to do."""
        await self.store.start()
        await self.parts.start()

    def is_changing(self, path: str) -> bool:
        """Whether a file is being published or removed, so that its digest may be an old one."""
        return self._paths.overlap(path)

    @asynccontextmanager
    async def unchanged(self, path: str) -> AsyncIterator[None]:
        """Have this server publish and remove nothing at, above or below a path meanwhile."""
        async with self._paths.hold(path):
            yield

    async def upload(self, path: str, chunks: AsyncIterator[bytes], record: RecordUpload) -> None:
        """Store a file and record it. What `chunks` or `record` raise is passed on.

        When the record is refused, what was there before is there again. On one server,
        whoever is last to send its last byte to a path is also last in the log. Raises Overtaken
        when other servers go on changing the file; `record` may be called several times.
        """
        begun = asyncio.Event()
        await self._to_its_end(begun, self._upload(path, chunks, record, begun))

    async def _upload(
        self, path: str, chunks: AsyncIterator[bytes], record: RecordUpload, begun: asyncio.Event
    ) -> None:
        async with AsyncExitStack() as held:
            kept: str | None = None

            async def until_last() -> AsyncIterator[bytes]:
                nonlocal kept
                async for chunk in chunks:
                    yield chunk
                # All is here, nothing is visible yet: from now on the path is ours.
                await held.enter_async_context(self._paths.hold(path))
                begun.set()
                kept = await self.store.keep(path)

            stored = await self.store.put(path, until_last())
            try:
                await record(stored, kept is not None)
            except BaseException:
                await self._take_back(path, stored, kept)
                raise
            await self._forget(kept)
            await self._agree(path, stored, record)

    async def _take_back(self, path: str, stored: Stored, kept: str | None) -> None:
        if await self.store.is_current(path, stored):
            await self.store.restore(path, kept)
        else:
            await self._forget(kept)

    async def _forget(self, kept: str | None) -> None:
        if kept is not None:
            with suppress(StoreUnavailable):  # A later start removes it.
                await self.store.forget(kept)

    async def _agree(self, path: str, stored: Stored, record: RecordUpload) -> None:
        # Until the newest event of the path is that of the content which is there.
        for left in reversed(range(AGREE_TRIES_MAX)):
            if await self.store.is_current(path, stored):
                return
            if not left:
                raise Overtaken(path, "other servers replace the file again and again")
            try:
                stored = await self.store.describe(path)
            except ArtifactMissing:
                raise Overtaken(path, "another server has removed the file") from None
            await record(stored, True)

    async def delete(self, path: str, record: RecordDeletion) -> None:
        """Record the removal of the files at and below a path, then remove them.

        What `record` raises is passed on; the files of owners that it had yielded are gone then.
        """
        begun = asyncio.Event()
        await self._to_its_end(begun, self._delete(path, record, begun))

    async def _delete(self, path: str, record: RecordDeletion, begun: asyncio.Event) -> None:
        async with self._paths.hold(path):
            owners = Counter([owner_of(entry.path) async for entry in self.store.walk(path)])
            if not owners:
                return
            begun.set()
            recorded: set[str] = set()
            try:
                async for owner in record(owners):
                    recorded.add(owner)
            except BaseException:
                files = [entry.path async for entry in self.store.walk(path)] if recorded else ()
                for file in files:
                    if owner_of(file) in recorded:
                        await self.store.delete(file)
                raise
            await self.store.delete(path)

    async def _to_its_end(
        self, begun: asyncio.Event, change: Coroutine[object, object, None]
    ) -> None:
        """Make a change, which nobody can cancel any more once it has begun to be visible."""
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun.is_set():
                task.cancel()
            await asyncio.wait([task])
            raise


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
