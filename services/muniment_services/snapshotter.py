"""Makes snapshots: of the projections of a running server, or of those at rest.

The life of one snapshot:
1. The writer of projections pauses. A process of its own copies the file and its write-ahead log:
   at the disk's speed, and in no time where blocks can be shared.
2. The copy is opened once, which puts the write-ahead log into the file. It must then be a database
   of the layout, the log and the checkpoints that are expected.
3. It is compressed and stored in parts, the manifest last; the copy is removed.
4. All but the newest snapshots of this log are removed.

What always holds: reads and writes are answered all the time. Dying at any point leaves a copy that
the next start removes, and parts without a manifest, which are no snapshot.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import msgspec
import structlog

from muniment_projections.runner import Runner
from muniment_projections.store import Checkpoints, Store, wal_of
from muniment_services.artifacts.base import ArtifactError
from muniment_services.file_copy import copy_by_process
from muniment_services.projection_files import remove, unfinished
from muniment_services.snapshot import (
    KEEP_DEFAULT,
    Manifest,
    Shelf,
    SnapshotDamaged,
    SnapshotError,
    Told,
    checkpoints_of,
    name_of,
    require_room,
)

COPY_NAME = "projections.snapshot.duckdb"
"""Name of the copy in the data folder, before the suffix of unfinished files."""

NAME_BYTES = 4

LOOK_S = 300.0
"""How often a server looks whether there is a newer snapshot than it knows."""

COPY_MEMORY = "512MB"
"""What opening the copy may take beside a server that is at work."""

LAYOUT = "SELECT version, log_id FROM layout"
CHECKPOINTS = 'SELECT topic, "partition", next_offset FROM checkpoints'

_log = structlog.get_logger("muniment.snapshots")


class SnapshotUnderWay(Exception):
    """A snapshot is being made already; there is one at a time."""


class _Stopped(Exception):
    """The server stops; the snapshot is given up."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where a snapshot is. phase: idle, copying, storing, done or failed; bytes of the file."""

    phase: str = "idle"
    bytes: int = 0
    total: int = 0
    name: str | None = None
    events: int = 0
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """What making snapshots needs besides the projections. folder: where the copy is made."""

    folder: Path
    open_shelf: Callable[[], Shelf]
    version: str
    now_ms: Callable[[], int]
    random: Callable[[int], bytes]

    @property
    def copy_path(self) -> Path:
        """Where the copy is; a start removes what is left there."""
        return unfinished(self.folder / COPY_NAME)

    def copy(self, store: Store) -> Checkpoints:
        """Copy a store's file. Blocking, while nothing is written. Raises NoRoom, OSError."""
        remove(self.copy_path)
        files = (store.path, wal_of(store.path))
        sizes = [path.stat().st_size for path in files if path.exists()]
        require_room(self.folder, sum(sizes))
        return store.copy_to(self.copy_path, copy_by_process)

    def store(
        self, checkpoints: Checkpoints, keep: int, told: Callable[[Manifest], Told]
    ) -> Manifest:
        """Store the copy, remove it and what is too old. Blocking.

        told: gets the manifest without its parts, and returns who is told of every part. Raises
        SnapshotError, ArtifactError, OSError.
        """
        shelf = self.open_shelf()
        try:
            draft = self._draft(checkpoints)
            if shelf.folder is not None:
                require_room(shelf.folder, draft.file_bytes)
            manifest = shelf.store(self.copy_path, draft, told(draft))
        finally:
            remove(self.copy_path)
        removed = shelf.keep_newest(keep, manifest, self.now_ms())
        _log.info("snapshot made", name=manifest.name, events=manifest.events, removed=removed)
        return manifest

    def _draft(self, checkpoints: Checkpoints) -> Manifest:
        frugal = {"threads": "1", "memory_limit": COPY_MEMORY}
        with duckdb.connect(str(self.copy_path), config={**frugal}) as connection:
            layout_version, log_id = connection.execute(LAYOUT).fetchall()[0]
            rows = connection.execute(CHECKPOINTS).fetchall()
            connection.execute("CHECKPOINT")
        found = {(topic, partition): offset for topic, partition, offset in rows}
        if found != checkpoints:
            raise SnapshotDamaged("the copy of the projections is of another moment; try again.")
        if not log_id:
            raise SnapshotError(
                "the projections are empty: there is nothing to make a snapshot of."
            )
        now_ms = self.now_ms()
        return Manifest(
            name=name_of(now_ms, self.random(NAME_BYTES)),
            log_id=log_id,
            layout_version=layout_version,
            muniment_version=self.version,
            created_at_ms=now_ms,
            events=sum(found.values()),
            file_bytes=self.copy_path.stat().st_size,
            stored_bytes=0,
            checkpoints=checkpoints_of(found),
            parts=(),
        )


class Snapshotter:
    """At most one snapshot at a time of a running server. Lives on one event loop."""

    def __init__(self, runner: Runner, maker: Maker) -> None:
        self.status = Status()
        self.newest_at_ms: int | None = None
        """When the newest snapshot that this server knows of was made."""
        self._runner = runner
        self._maker = maker
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._stopping = threading.Event()

    def start(self, keep: int = KEEP_DEFAULT) -> Status:
        """Begin a snapshot in the background. Raises SnapshotUnderWay."""
        if self._task is not None and not self._task.done():
            raise SnapshotUnderWay("A snapshot is being made already.")
        self.status = Status(phase="copying", started_at_ms=self._maker.now_ms())
        self._task = asyncio.create_task(self._run(keep))
        return self.status

    async def look(self) -> None:
        """Find out when the newest snapshot of this log was made. Raises ArtifactError."""
        log_id = self._runner.store.log_id
        found = await asyncio.to_thread(lambda: self._maker.open_shelf().manifests())
        times = [manifest.created_at_ms for manifest in found if manifest.log_id == log_id]
        self.newest_at_ms = max(times, default=None)

    def start_looking(self) -> None:
        """Keep `newest_at_ms` up to date in the background: others make snapshots too."""
        self._looking = asyncio.create_task(self._look_now_and_then())

    async def _look_now_and_then(self) -> None:
        while True:
            try:
                await self.look()
            except (ArtifactError, SnapshotError, OSError) as error:
                _log.warning("snapshots cannot be looked at", reason=str(error))
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Give up a snapshot that is under way. Idempotent."""
        self._stopping.set()
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        if self._task is not None:
            await self._task
            self._task = None

    async def _run(self, keep: int) -> None:
        try:
            checkpoints = await self._runner.paused(self._maker.copy)
            self._note(phase="storing")
            manifest = await asyncio.to_thread(self._maker.store, checkpoints, keep, self._began)
        except Exception as error:  # noqa: BLE001
            # The edge of this task: whatever ended the snapshot, the server serves on.
            self._note(phase="failed", error=str(error), ended_at_ms=self._maker.now_ms())
            if not self._stopping.is_set():
                _log.error("no snapshot could be made", reason=str(error))
            return
        self.newest_at_ms = manifest.created_at_ms
        self._note(phase="done", ended_at_ms=self._maker.now_ms())

    def _note(self, **changes: object) -> None:
        self.status = msgspec.structs.replace(self.status, **changes)

    def _began(self, draft: Manifest) -> Told:
        # These are called in a worker thread; the status is replaced whole.
        self._note(name=draft.name, total=draft.file_bytes, events=draft.events)

        def told(stored: int) -> None:
            if self._stopping.is_set():
                raise _Stopped("the server stopped")
            self._note(bytes=self.status.bytes + stored)

        return told
