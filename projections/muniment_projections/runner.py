"""Writes what the fold yields into the store, in batches, and lets readers wait for it.

A batch is written when a reader needs it, when it is large, or when it is FLUSH_AGE_S old. No
batch is ever skipped: if the store cannot write (disk full), the batch is kept and tried again, and
readers are told that projections are not available.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import duckdb
import structlog

from muniment_projections.base import BATCH_EVENTS_MAX, Connection, Folded
from muniment_projections.store import Store, is_damage
from muniment_schemas.envelope import ACCESS

FLUSH_AGE_S = 0.3
RETRY_S = 2.0
READERS = 4
PENDING_EVENTS_MAX = 200_000
"""Events that may wait for the store; beyond it, writes are refused until it has caught up."""

T = TypeVar("T")
_log = structlog.get_logger("muniment.projections")


class ProjectionsUnavailable(Exception):
    """The store cannot write now; what was folded is kept and written when it can again."""

    retry_after_s = 5


class Runner:
    """One writer thread and a few reader threads over one store. Lives on one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.failure: str | None = None
        self.damage: str | None = None
        self._pending: list[Folded] = []
        self._checkpoints: dict[tuple[str, int], int] = {}
        self._added = 0
        self._due = 0
        self._written = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._urgent = False
        self._closing = False
        self._writer = ThreadPoolExecutor(1, "projections-writer")
        self._readers = ThreadPoolExecutor(READERS, "projections-reader")
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._reads: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Begin to write in the background."""
        self._task = asyncio.create_task(self._run())

    @property
    def written(self) -> int:
        """Events that the store holds, of those that were added."""
        return self._written

    @property
    def backlog(self) -> int:
        """Events that are folded and not yet written."""
        return self._added - self._written

    def add(self, batch: Sequence[Folded], checkpoints: Mapping[tuple[str, int], int]) -> None:
        """Take what was folded. checkpoints: next offset of each topic-partition of the batch."""
        self._pending.extend(batch)
        self._checkpoints.update(checkpoints)
        for place in range(len(batch), 0, -1):
            if batch[place - 1].topic != ACCESS:
                self._due = self._added + place
                break
        self._added += len(batch)
        self._wake.set()

    async def fresh(self, trail: bool = False) -> None:
        """Wait until all that was added so far can be read. Raises ProjectionsUnavailable.

        Calls that were only recorded are waited for with `trail` alone: every read leaves one, and
        the next would wait for a transaction that holds nothing for it.
        """
        due = self._added if trail else self._due
        if self._written >= due:
            return
        if self.failure is not None:
            raise ProjectionsUnavailable(self.failure)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((due, waiter))
        self._urgent = True
        self._wake.set()
        await waiter

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query function in a reader thread.

        Raises ProjectionsUnavailable when the file turns out to be damaged; a rebuild mends it.
        """
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(self._readers, self.store.read, query)
        self._reads.add(reading)
        reading.add_done_callback(self._reads.discard)
        try:
            return await reading
        except duckdb.Error as error:
            if not is_damage(error):
                raise
            self.damage = (
                f"the projections' file is damaged ({error}); nothing is lost, "
                "`muniment rebuild` makes it anew from the log"
            )
            _log.error("projections cannot be read", reason=self.damage)
            raise ProjectionsUnavailable(self.damage) from error

    async def swap(
        self, new: Store, level: Callable[[Mapping[tuple[str, int], int]], None]
    ) -> Store:
        """Put another store in the place of this one; returns the old one, which nobody reads then.

        level: brings `new` to exactly the checkpoints that it is given. It runs in the writer's
        thread while nothing is written, so it should have little to do. Readers under way finish on
        the old store; when `level` raises, the old store stays.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            await loop.run_in_executor(self._writer, level, dict(self.store.checkpoints))
            assert new.checkpoints == self.store.checkpoints, "the stores are not level"
            old, self.store = self.store, new
            self.damage = None
            reads = tuple(self._reads)
        if reads:
            await asyncio.wait(reads)
        return old

    async def paused(self, work: Callable[[Store], T]) -> T:
        """Run something on the store in the writer's thread while nothing is written to it.

        Readers go on; those who wait for something newer wait until it is done.
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._writer, work, self.store)

    async def close(self) -> None:
        """Write what is pending, then stop. Idempotent."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None
        self._readers.shutdown()
        self._writer.shutdown()
        self.store.close()

    async def _run(self) -> None:
        try:
            while not (self._closing and (not self._pending or self.failure is not None)):
                await self._wait_for_batch()
                async with self._turn:
                    if self._pending:
                        await self._write()
        except Exception as error:  # noqa: BLE001
            # The edge of this task: rows that cannot be made of events are our fault. Stop and say
            # so; readers and writers are told, the log goes on.
            _log.critical("the projections have stopped", error=str(error), exc_info=True)
            self.failure = f"the projections have stopped: {error}"
            self._fail_waiters()

    async def _wait_for_batch(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        deadline = asyncio.get_running_loop().time() + FLUSH_AGE_S
        while not (self._urgent or self._closing or len(self._pending) >= BATCH_EVENTS_MAX):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                return
            self._wake.clear()

    async def _write(self) -> None:
        # Everything pending goes in one transaction, so that the checkpoints of the fold are
        # those of the rows; the fold bounds how much there can be.
        batch, self._pending = self._pending, []
        checkpoints, self._checkpoints = self._checkpoints, {}
        self._urgent = False
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self.store.write, batch, checkpoints)
        except duckdb.Error as error:
            self._pending = batch + self._pending
            self._checkpoints = {**checkpoints, **self._checkpoints}
            await self._failed(str(error))
            return
        self.failure = None
        self._written += len(batch)
        self._release()

    async def _failed(self, reason: str) -> None:
        if self.failure is None:
            _log.error("projections cannot be written", reason=reason, retry_s=RETRY_S)
        self.failure = reason
        self._fail_waiters()
        if not self._closing:
            await asyncio.sleep(RETRY_S)
        self._wake.set()

    def _fail_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ProjectionsUnavailable(self.failure))

    def _release(self) -> None:
        still = []
        for needed, waiter in self._waiters:
            if needed > self._written:
                still.append((needed, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = still
        if still:
            self._urgent = True
            self._wake.set()
