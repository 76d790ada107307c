"""Rebuilds the projections of a running server while the old ones serve.

The life of one rebuild:
1. A process of its own, with low priority, builds a new file from the log until it is near its end.
2. The server opens that file and folds the records that came meanwhile.
3. The runner stops writing for a moment, the last records are folded, and the new store takes the
   place of the old one. Readers under way finish on the old one; its file is then deleted.

What always holds: at any point at least one complete file is there (projection_files), and the new
store is exactly as far as the old one when it takes over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from muniment_projections.runner import Runner
from muniment_projections.store import Store
from muniment_schemas.codec import Codec
from muniment_schemas.ids import Offset
from muniment_services import documents
from muniment_services.fold import Fold
from muniment_services.log.base import EventLog, TopicPartition
from muniment_services.projection_files import numbered, remove, unfinished
from muniment_services.rebuild import CatchUp, OpenStore

LEVEL_EVENTS_MAX = 500
"""Records that may be left when writing stops for the exchange."""

LEVEL_ROUNDS_MAX = 20
"""Times that the server tries to come so near while others write; then it exchanges anyway."""

LINE_BYTES_MAX = 64 * 1024

BuilderCommand = Callable[[Path], Sequence[str]]
"""The command line of a process that builds a file at a path and prints a BuilderLine per batch."""

_log = structlog.get_logger("muniment.rebuild")


class RebuildUnderWay(Exception):
    """The projections are being rebuilt already; there is one rebuild at a time."""


class BuilderFailed(Exception):
    """The building process ended before its file was complete."""


class _Stopped(Exception):
    """The server stops; the rebuild is given up."""


class BuilderLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the building process prints: how far it is, and what went wrong, if anything did."""

    events: int = 0
    total: int = 0
    error: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rebuild is. phase: idle, building, exchanging, done or failed; times by our clock."""

    phase: str = "idle"
    events: int = 0
    total: int = 0
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    error: str | None = None


class Rebuilder:
    """At most one rebuild at a time. Lives on one event loop."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        fold: Fold,
        runner: Runner,
        folder: Path,
        open_store: OpenStore,
        command: BuilderCommand,
        settings: bytes,
        now_ms: Callable[[], int],
    ) -> None:
        """settings: what the building process gets on its standard input."""
        self.status = Status()
        self._log = log
        self._codec = codec
        self._fold = fold
        self._runner = runner
        self._folder = folder
        self._open_store = open_store
        self._command = command
        self._settings = settings
        self._now_ms = now_ms
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = threading.Event()

    def start(self) -> Status:
        """Begin a rebuild in the background. Raises RebuildUnderWay."""
        if self._task is not None and not self._task.done():
            raise RebuildUnderWay("The projections are being rebuilt already.")
        self.status = Status(phase="building", started_at_ms=self._now_ms())
        self._task = asyncio.create_task(self._run())
        return self.status

    async def close(self) -> None:
        """Give up a rebuild that is under way. Idempotent."""
        self._stopping.set()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self) -> None:
        path = numbered(self._folder, self._now_ms())
        try:
            await self._build(path)
            await self._exchange(path)
        except Exception as error:  # noqa: BLE001
            # The edge of this task: whatever ended the rebuild, the old projections serve on.
            remove(unfinished(path))
            if not self._stopping.is_set():
                _log.error("the rebuild failed; the old projections serve on", reason=str(error))
            self._note(phase="failed", error=str(error), ended_at_ms=self._now_ms())
            return
        self._note(phase="done", ended_at_ms=self._now_ms())
        _log.info("projections rebuilt", events=self.status.events)

    def _note(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    async def _build(self, path: Path) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command(unfinished(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        assert process.stdin is not None
        # One that has ended already takes nothing; its status is what is told of it.
        with suppress(OSError, RuntimeError):
            process.stdin.write(self._settings)
            process.stdin.close()
        if self._stopping.is_set():
            process.kill()
        last = BuilderLine()
        assert process.stdout is not None
        async for line in process.stdout:
            last = msgspec.json.decode(line, type=BuilderLine)
            self._note(events=last.events, total=last.total)
        ended = await process.wait()
        self._process = None
        if ended != 0:
            raise BuilderFailed(last.error or f"the building process ended with status {ended}")

    async def _exchange(self, path: Path) -> None:
        # The builder may have read what our runner has not written yet; let it come to that first.
        self._note(phase="exchanging")
        await self._fold.caught_up()
        await self._runner.fresh()
        unfinished(path).rename(path)
        try:
            new = await asyncio.to_thread(self._open_store, path)
        except BaseException:
            remove(path)
            raise
        try:
            rest = await asyncio.to_thread(CatchUp, self._log, self._codec, new)
            await self._come_near(rest)
            if self._fold.state.quarantine:
                old = await self._take_up_quarantine(rest, new)
            else:
                old = await self._runner.swap(new, lambda at: self._level(rest, at))
        except BaseException:
            new.close()
            remove(path)
            raise
        old.close()
        remove(old.path)

    async def _take_up_quarantine(self, rest: CatchUp, new: Store) -> Store:
        """Exchange the state in memory too, since it lacks what an older release could not fold."""
        async with self._fold.paused():
            await self._runner.fresh()
            old = await self._runner.swap(new, lambda at: self._level(rest, at))
            state = await asyncio.to_thread(documents.current_state, new)
            self._fold.exchange(state)
        return old

    async def _come_near(self, rest: CatchUp) -> None:
        for _ in range(LEVEL_ROUNDS_MAX):
            ends = _ends(self._runner.store.checkpoints)
            if rest.left(ends) <= LEVEL_EVENTS_MAX:
                return
            self._note(total=self.status.events + rest.left(ends))
            await asyncio.to_thread(rest.run, ends, self._count)

    def _level(self, rest: CatchUp, checkpoints: Mapping[tuple[str, int], int]) -> None:
        rest.run(_ends(checkpoints), self._count)

    def _count(self, events: int) -> None:
        # Called in a worker thread; the status is replaced whole, so readers see one or the other.
        if self._stopping.is_set():
            raise _Stopped("the server stopped")
        done = self.status.events + events
        self._note(events=done, total=max(done, self.status.total))


def _ends(checkpoints: Mapping[tuple[str, int], int]) -> dict[TopicPartition, Offset]:
    return {TopicPartition(*at): Offset(offset) for at, offset in checkpoints.items()}
