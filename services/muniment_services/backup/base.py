"""What a backup is, and the place where backups are kept.

    PLACE/backups/<time>-<digest>.json          a manifest: one backup
    PLACE/log/<log id>/<topic>-<partition>/<first>-<end>-<digest>.zst     segments of the log
    PLACE/artifacts/files/<digest>              artifacts, each content once
    PLACE/keys/…                                keys, each sealed under the passphrase

What always holds: a manifest is written after all that it names, and bears its own SHA-256 in its
name, as all other files do or have it in the manifest. Nothing that a manifest names is changed
ever; only the keys of erased principals go (`create.py`). So backups share what they have in
common, one that was broken off goes on where it was, and every damage can be told.

    BackupError
    ├── BackupMissing      there is none, or none of that name
    ├── BackupRefused      it cannot be made or restored so; the message says what to do
    ├── PassphraseWrong    keys there are sealed under another passphrase
    └── BackupDamaged      a file is missing, cut off or changed (a LogCorrupt, too)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import obstore
from obstore.store import ObjectStore

from muniment_schemas.ids import Offset
from muniment_services.artifacts.base import ArtifactMissing, ArtifactStore
from muniment_services.artifacts.failures import translated
from muniment_services.artifacts.local import LocalArtifacts
from muniment_services.artifacts.objects import ObjectArtifacts
from muniment_services.artifacts.place import folder_of, open_bucket, open_folder
from muniment_services.log.base import LogCorrupt, LogError, TopicPartition

FORMAT = 1
BACKUPS, LOG, ARTIFACTS, KEYS = "backups", "log", "artifacts", "keys"


class BackupError(LogError):
    """Base of what backups can raise, besides the errors of the place where they are kept."""


class BackupMissing(BackupError):
    """There is no such backup."""


class BackupRefused(BackupError):
    """It cannot be made or restored so; the message says what to do."""


class PassphraseWrong(BackupError):
    """The keys in the place are sealed under another passphrase."""


class BackupDamaged(BackupError, LogCorrupt):
    """A file of a backup is missing, cut off or changed."""


class Segment(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Records of one topic-partition, from offset `start` up to before `end`, compressed.

    stored_bytes, sha256: of the file; the digest in hexadecimal.
    """

    topic: str
    partition: int
    start: int
    end: int
    stored_bytes: int
    sha256: str

    @property
    def at(self) -> TopicPartition:
        """The topic-partition."""
        return TopicPartition(self.topic, self.partition)

    def path(self, log_id: str) -> str:
        """Where the file is in the place."""
        name = f"{self.start:015d}-{self.end:015d}-{self.sha256}.zst"
        return f"{LOG}/{log_id}/{self.topic}-{self.partition}/{name}"


class SavedArtifact(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A file as the log has it at the cut. sha256: hexadecimal, also its name in the place."""

    path: str
    size_bytes: int
    sha256: str


class SavedKey(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A key, sealed. sha256: of the sealed form, hexadecimal."""

    name: str
    sha256: str

    @property
    def path(self) -> str:
        """Where the sealed form is in the place."""
        return f"{KEYS}/{self.name}.sealed"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One backup. Times by our clock, in milliseconds since 1970.

    partitions: by topic. missing: paths of artifacts that the log has and the store had not, or not
    so. keys: None when they were left out. erased: ids of the keys of erased principals.
    """

    format: int = FORMAT
    log_id: str
    muniment_version: str
    created_at_ms: int
    partitions: dict[str, int]
    segments: tuple[Segment, ...]
    artifacts: tuple[SavedArtifact, ...]
    missing: tuple[str, ...]
    keys: tuple[SavedKey, ...] | None
    erased: tuple[str, ...]

    def ends(self) -> Mapping[TopicPartition, Offset]:
        """Where the log was cut: the next offset of every topic-partition."""
        ends = {
            TopicPartition(t, p): Offset(0) for t, n in self.partitions.items() for p in range(n)
        }
        for segment in self.segments:
            ends[segment.at] = max(ends[segment.at], Offset(segment.end))
        return ends


class Backups:
    """A place with backups. Blocking but for the artifacts; nothing is made before `put`.

    Everything raises ArtifactError when the place cannot be reached, read or written.
    """

    def __init__(self, store: ObjectStore, place: str, folder: Path | None) -> None:
        """place: what people call it. folder: where it is on this machine, if it is."""
        self.place = place
        self._store = store
        self._folder = folder

    def artifacts(self) -> ArtifactStore:
        """The artifacts of all backups of the place, by digest; not started."""
        if self._folder is not None:
            return LocalArtifacts(self._folder / ARTIFACTS, shared=True)
        where = f"{self.place.rstrip('/')}/{ARTIFACTS}"
        return ObjectArtifacts(open_bucket(where), where)

    def names(self) -> list[str]:
        """Names of the backups, the newest first."""
        names = [path.removeprefix(f"{BACKUPS}/") for path in self.sizes(BACKUPS)]
        return sorted((n.removesuffix(".json") for n in names if n.endswith(".json")), reverse=True)

    def manifest(self, name: str | None = None) -> Manifest:
        """A backup by the beginning of its name, or the newest.

        Raises BackupMissing, BackupDamaged.
        """
        names = [known for known in self.names() if known.startswith(name or "")]
        if not names or (name is not None and len(names) > 1):
            what = "no backup" if name is None else f"no backup (or not just one) {name}"
            raise BackupMissing(
                f"there is {what} in {self.place}. `muniment backup list PLACE` tells which there "
                "are, `muniment backup create --to PLACE` makes one."
            )
        return self.named(names[0])

    def named(self, name: str) -> Manifest:
        """A backup by its whole name. Raises BackupDamaged."""
        path = f"{BACKUPS}/{name}.json"
        content = self.get(path, name.partition("-")[2])
        try:
            manifest = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            raise BackupDamaged(f"{path} cannot be read: {error}.") from error
        if manifest.format != FORMAT:
            raise BackupDamaged(f"{path} is of format {manifest.format}: use a newer muniment.")
        return manifest

    def newest_of(self, log_id: str) -> Manifest | None:
        """The newest backup of one log."""
        manifests = (self.named(name) for name in self.names())
        return next((found for found in manifests if found.log_id == log_id), None)

    def erased(self, manifest: Manifest) -> frozenset[str]:
        """Keys of principals that are erased, as the newest backup of the same log knows it."""
        newest = self.newest_of(manifest.log_id)
        return frozenset(() if newest is None else newest.erased)

    def store(self, manifest: Manifest) -> str:
        """Write a manifest, which makes the backup one. Returns its name."""
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        name = f"{manifest.created_at_ms:015d}-{hashlib.sha256(content).hexdigest()}"
        self.put(f"{BACKUPS}/{name}.json", content)
        return name

    def sizes(self, folder: str) -> dict[str, int]:
        """Paths of all files below a folder, and their bytes."""
        with translated(self.place):
            listed = obstore.list(self._store, folder)
            return {meta["path"]: meta["size"] for batch in listed for meta in batch}

    def put(self, path: str, content: bytes) -> None:
        """Keep a file, durable before this returns."""
        with translated(path):
            obstore.put(self._store, path, content, use_multipart=False)
            if self._folder is not None:
                _sync(self._folder, path)

    def get(self, path: str, sha256: str) -> bytes:
        """A file that has this digest. Raises BackupDamaged."""
        try:
            with translated(path):
                content = bytes(obstore.get(self._store, path).bytes())
        except ArtifactMissing:
            raise BackupDamaged(f"{path} is missing.") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BackupDamaged(f"{path} is not what was stored: its SHA-256 is another.")
        return content

    def read(self, path: str) -> bytes | None:
        """A file that speaks for itself; None when there is none."""
        try:
            with translated(path):
                return bytes(obstore.get(self._store, path).bytes())
        except ArtifactMissing:
            return None

    def remove(self, path: str) -> None:
        """Remove a file. None there is no error."""
        try:
            with translated(path):
                obstore.delete(self._store, path)
        except ArtifactMissing:
            return


def open_backups(where: str, *, make: bool) -> Backups:
    """The place of backups: a folder or a bucket. Raises ConfigError, BackupMissing.

    make: whether a folder that is not there is made.
    """
    folder = folder_of(where)
    if folder is None:
        return Backups(open_bucket(where), where, None)
    if not make and not folder.is_dir():
        raise BackupMissing(f"there is no folder {where}, so no backup in it.")
    return Backups(open_folder(folder), where, folder)


def _sync(root: Path, path: str) -> None:
    # The file, and the folders on the way to it.
    place = root / path
    for one in (place, *place.parents):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if one == root:
            return
