"""Snapshots: projections as of a checkpoint, kept where other replicas find them.

A snapshot is a copy of the DuckDB file in compressed parts, and a manifest that says of which log
it is, as of which offsets, and what every part must be. What always holds: the manifest is written
after the last part and removed before the first, so a snapshot is there whole or not at all; what
is not as its manifest says is refused. A snapshot is a cache of the log, like the projections:
losing all of them costs time and nothing else.

    SnapshotError
    ├── SnapshotMissing    there is none of that name, or none that fits
    ├── SnapshotUnfit      it is of another log, or its tables have another layout
    ├── SnapshotDamaged    a part is not as the manifest says
    └── NoRoom             the disk has not enough space for it
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path

import msgspec
import obstore
import pyarrow as pa
import structlog
from obstore.store import ObjectStore

from muniment_projections.store import Checkpoints, StoreError
from muniment_services.artifacts.base import ArtifactError, ArtifactMissing
from muniment_services.artifacts.failures import translated
from muniment_services.artifacts.place import folder_of, open_bucket, open_folder
from muniment_services.config import Settings

FOLDER = "snapshots"
"""Name of the folder in data_dir where snapshots are kept unless the settings name another."""

MANIFEST = "manifest.json"
FORMAT = 1

PART_BYTES = 32 * 1024 * 1024
"""Bytes of the file in one part: large enough for a request of its own, small enough that
TRANSFERS_AT_ONCE of them fit in memory twice."""

TRANSFERS_AT_ONCE = 4
"""More than cores, since a transfer waits for the network most of its time."""

ZSTD_LEVEL = 1
"""The quickest: documents are stored uncompressed in DuckDB, the rest is packed already."""

ABANDONED_MS = 24 * 3600 * 1000
"""Parts without a manifest are removed when they are so old: nobody is writing to them any more."""

KEEP_DEFAULT = 3

Told = Callable[[int], None]
"""Told after every part how many bytes of the file it has. What it raises ends the transfer."""

_log = structlog.get_logger("muniment.snapshots")


class SnapshotError(StoreError):
    """Base of what snapshots can raise, besides the errors of the place where they are kept."""


class SnapshotMissing(SnapshotError):
    """There is no such snapshot."""


class SnapshotUnfit(SnapshotError):
    """The snapshot cannot serve this log and this release; the message says what to do."""


class SnapshotDamaged(SnapshotError):
    """A part is missing, cut off or changed."""


class NoRoom(SnapshotError):
    """Not enough space. Nothing was left behind."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the file. sha256: of its bytes as they are in the file, hexadecimal."""

    file_bytes: int
    stored_bytes: int
    sha256: str


class Place(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """How far a snapshot is in one topic-partition."""

    topic: str
    partition: int
    next_offset: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is. events: those that its checkpoints stand for. Times by our clock."""

    format: int = FORMAT
    name: str
    log_id: str
    layout_version: int
    muniment_version: str
    created_at_ms: int
    events: int
    file_bytes: int
    stored_bytes: int
    checkpoints: tuple[Place, ...]
    parts: tuple[Part, ...]

    def refuse_if_unfit(self, log_id: str, layout_version: int) -> None:
        """Raise SnapshotUnfit when projections of that log and layout cannot begin with this."""
        if self.layout_version != layout_version:
            raise SnapshotUnfit(
                f"snapshot {self.name} has tables of layout {self.layout_version}, and this "
                f"release has layout {layout_version}: just start the server, it builds them from "
                "the log; then make a new snapshot."
            )
        if self.log_id != log_id:
            raise SnapshotUnfit(
                f"snapshot {self.name} is of log {self.log_id}, not of log {log_id}: name the "
                "place of this log's own snapshots, or just start the server, it builds "
                "projections from the log."
            )


class Shelf:
    """Where snapshots are kept: a folder or a bucket. Blocking; for any number of processes.

    Everything raises ArtifactError when the place cannot be reached, read or written.
    """

    def __init__(self, store: ObjectStore, place: str, folder: Path | None) -> None:
        """place: what people call it. folder: where it is on this machine, if it is."""
        self.place = place
        self.folder = folder
        self._store = store

    def manifests(self) -> list[Manifest]:
        """All whole snapshots, the newest first. Those of a later format are left out, loudly."""
        found = [self._manifest(name) for name in self._names()]
        return sorted(
            (manifest for manifest in found if manifest is not None),
            key=lambda manifest: (manifest.created_at_ms, manifest.name),
            reverse=True,
        )

    def manifest(self, name: str) -> Manifest:
        """One snapshot. Raises SnapshotMissing."""
        found = None if _born_ms(name) is None or "/" in name else self._manifest(name)
        if found is None:
            raise SnapshotMissing(f"there is no snapshot {name} in {self.place}.")
        return found

    def store(self, file: Path, draft: Manifest, told: Told) -> Manifest:
        """Keep a file that nobody changes; `draft` lacks its parts. Returns the full manifest.

        When anything goes wrong the parts are removed again, as far as that can be done.
        """
        try:
            parts = self._upload(file, draft, told)
            manifest = msgspec.structs.replace(
                draft, parts=parts, stored_bytes=sum(part.stored_bytes for part in parts)
            )
            self._put(f"{draft.name}/{MANIFEST}", msgspec.json.encode(manifest))
        except BaseException:
            self._try_to_remove(draft.name)
            raise
        return manifest

    def fetch(self, manifest: Manifest, target: Path, told: Told) -> None:
        """Write a snapshot's file, every byte of it verified. Raises SnapshotDamaged, NoRoom.

        A file that is left when this raises is not whole.
        """
        require_room(target.parent, manifest.file_bytes)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.truncate(descriptor, manifest.file_bytes)
            starts = _starts(manifest)

            def fetch(number: int) -> int:
                content = self._part(manifest, number)
                _write_all(descriptor, content, starts[number])
                return len(content)

            for fetched in _each(fetch, range(len(manifest.parts))):
                told(fetched)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove a snapshot; from the first moment on it is none any more."""
        keys = [f"{name}/{MANIFEST}", *self._keys(name)]
        with translated(name):
            for key in keys:
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue  # Another server removes it, too.

    def keep_newest(self, count: int, like: Manifest, now_ms: int) -> list[str]:
        """Remove all but the newest snapshots of one log, and parts that were abandoned long ago.

        Returns what was removed.
        """
        whole = self.manifests()
        ours = [manifest for manifest in whole if manifest.log_id == like.log_id]
        old = [manifest.name for manifest in ours[count:]]
        known = {manifest.name for manifest in whole}
        for name in self._names():
            born_ms = _born_ms(name)
            if name not in known and born_ms is not None and born_ms < now_ms - ABANDONED_MS:
                old.append(name)
        for name in old:
            self.remove(name)
        return old

    def _names(self) -> list[str]:
        with translated(self.place):
            return sorted(obstore.list_with_delimiter(self._store)["common_prefixes"])

    def _keys(self, name: str) -> list[str]:
        with translated(name):
            return [meta["path"] for batch in obstore.list(self._store, name) for meta in batch]

    def _manifest(self, name: str) -> Manifest | None:
        try:
            content = self._get(f"{name}/{MANIFEST}")
        except ArtifactMissing:
            return None
        try:
            found = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            _log.warning("a snapshot's manifest cannot be read", name=name, reason=str(error))
            return None
        if found.format != FORMAT or found.name != name:
            _log.warning("a snapshot is of another format", name=name, format=found.format)
            return None
        return found

    def _upload(self, file: Path, draft: Manifest, told: Told) -> tuple[Part, ...]:
        found: dict[int, Part] = {}
        with file.open("rb") as source:

            def upload(number: int) -> int:
                length = min(PART_BYTES, draft.file_bytes - number * PART_BYTES)
                content = os.pread(source.fileno(), length, number * PART_BYTES)
                assert len(content) == length, "the copy is as long as it was"
                found[number] = self._put_part(f"{draft.name}/{_part_name(number)}", content)
                return length

            for uploaded in _each(upload, range(-(-draft.file_bytes // PART_BYTES))):
                told(uploaded)
        return tuple(found[number] for number in sorted(found))

    def _put_part(self, key: str, content: bytes) -> Part:
        packed = _zstd().compress(content, asbytes=True)
        self._put(key, packed)
        return Part(
            file_bytes=len(content),
            stored_bytes=len(packed),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def _part(self, manifest: Manifest, number: int) -> bytes:
        part, name = manifest.parts[number], f"{manifest.name}/{_part_name(number)}"
        try:
            packed = self._get(name)
            if len(packed) != part.stored_bytes:
                raise SnapshotDamaged(f"{name} has {len(packed)} bytes, not {part.stored_bytes}.")
            content: bytes = _zstd().decompress(packed, part.file_bytes, asbytes=True)
        except ArtifactMissing:
            raise SnapshotDamaged(f"{name} is missing.") from None
        except (pa.ArrowException, OSError) as error:
            raise SnapshotDamaged(f"{name} cannot be unpacked: {error}.") from error
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise SnapshotDamaged(f"{name} is not what was stored: its SHA-256 is another.")
        return content

    def _put(self, key: str, content: bytes) -> None:
        with translated(key):
            obstore.put(self._store, key, content, use_multipart=False)

    def _get(self, key: str) -> bytes:
        with translated(key):
            return bytes(obstore.get(self._store, key).bytes())

    def _try_to_remove(self, name: str) -> None:
        try:
            self.remove(name)
        except ArtifactError as error:
            _log.warning("parts of a failed snapshot are left behind", name=name, reason=str(error))


def open_shelf(settings: Settings) -> Shelf:
    """Where the settings keep snapshots. Nothing is asked yet. Raises ConfigError."""
    given = settings.snapshots
    where = str(settings.data_dir / FOLDER) if given is None else given
    folder = folder_of(where)
    return Shelf(open_bucket(where) if folder is None else open_folder(folder), where, folder)


def checkpoints_of(checkpoints: Checkpoints) -> tuple[Place, ...]:
    """A store's checkpoints as a manifest has them."""
    return tuple(
        sorted(Place(topic=t, partition=p, next_offset=o) for (t, p), o in checkpoints.items())
    )


def in_events(manifest: Manifest, advance: Callable[[int], None]) -> Told:
    """Tells in events what is done in bytes, as if they were spread evenly."""
    done_bytes = done_events = 0

    def told(more: int) -> None:
        nonlocal done_bytes, done_events
        done_bytes += more
        events = manifest.events * done_bytes // manifest.file_bytes
        advance(events - done_events)
        done_events = events

    return told


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raise NoRoom unless a folder's disk has so much space."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if free < needed_bytes:
        raise NoRoom(
            f"{folder} has room for {free:,} bytes and needs {needed_bytes:,}: free some space, or "
            "put the data folder on a larger disk."
        )


def name_of(now_ms: int, chance: bytes) -> str:
    """A new snapshot's name; names sort by time."""
    return f"{now_ms:015d}-{chance.hex()}"


def _born_ms(name: str) -> int | None:
    head = name.partition("-")[0]
    return int(head) if len(head) == 15 and head.isdigit() else None


def _part_name(number: int) -> str:
    return f"part-{number:05d}.zst"


def _starts(manifest: Manifest) -> list[int]:
    starts = [0]
    for part in manifest.parts:
        starts.append(starts[-1] + part.file_bytes)
    if starts[-1] != manifest.file_bytes:
        raise SnapshotDamaged(f"the parts of {manifest.name} do not make up its file.")
    return starts


def _each(work: Callable[[int], int], numbers: range) -> Iterator[int]:
    # Results in the order in which they are ready; at most TRANSFERS_AT_ONCE are in memory. The
    # first error ends it, once what is under way has come to its end.
    left = iter(numbers)
    with ThreadPoolExecutor(TRANSFERS_AT_ONCE, "snapshot") as pool:
        running: set[Future[int]] = {
            pool.submit(work, number) for number in islice(left, TRANSFERS_AT_ONCE)
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(work, number) for number in islice(left, len(done))}


def _write_all(descriptor: int, content: bytes, start: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written


def _zstd() -> pa.Codec:
    return pa.Codec("zstd", compression_level=ZSTD_LEVEL)
