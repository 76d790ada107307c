"""What the log says that a backup must hold, and where it can be cut so that all of it is there.

Read from the records themselves, so that it is true of exactly the cut; projections may be ahead
of it, or not there. Files go on being replaced and removed while a backup is made, and a store has
the newest content only. So each partition is cut at the last place at which the backup has all the
files that there were: at or after where the log ended when the backup began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from muniment_schemas.codec import Codec
from muniment_schemas.events import ArtifactDeleted, ArtifactUploaded, PrincipalErased
from muniment_schemas.ids import Offset
from muniment_services.backup.base import Manifest, SavedArtifact
from muniment_services.domain.artifact import owner_of
from muniment_services.log.base import (
    CATALOG,
    RUNS,
    LogReader,
    Record,
    TopicPartition,
    partition_of,
)

_TYPES = frozenset(
    ("ce_type", kind.__name__.encode()) for kind in (ArtifactUploaded, ArtifactDeleted)
)

_ERASED = ("ce_type", PrincipalErased.__name__.encode())
_CATALOG = TopicPartition(CATALOG, 0)

Changed = ArtifactUploaded | ArtifactDeleted


class Contents:
    """The files of one log, read on as it grows. Blocking."""

    def __init__(self, log: LogReader, codec: Codec, begin: Manifest | None) -> None:
        """begin: an earlier backup of the same log, which need not be read again."""
        self._log = log
        self._codec = codec
        self._erased: set[str] = set()
        places = [TopicPartition(RUNS, p) for p in range(log.partitions[RUNS])]
        self._partitions = {at: _Partition(log, codec, at) for at in places}
        if begin is not None:
            ends = begin.ends()
            for at, partition in self._partitions.items():
                partition.due = ends[at]
            for file in begin.artifacts:
                at = TopicPartition(RUNS, partition_of(owner_of(file.path).encode(), len(places)))
                self._partitions[at].files[file.path] = file

    def begin(self, ends: Mapping[TopicPartition, Offset]) -> None:
        """Read up to where the backup begins; it is cut nowhere before."""
        for at, partition in self._partitions.items():
            partition.begin(ends[at])

    def read_on(self, ends: Mapping[TopicPartition, Offset]) -> None:
        """Read what has come since."""
        for at, partition in self._partitions.items():
            partition.read_on(ends[at])

    def settle(self, have: Collection[str]) -> None:
        """Move each partition's cut to the last place at which all files are among `have`."""
        for partition in self._partitions.values():
            partition.settle(have)

    def erased(self) -> frozenset[str]:
        """Ids of the keys that the log orders to be destroyed, up to where it was read."""
        return frozenset(self._erased)

    def read_erasures(self, end: Offset) -> None:
        """Read which keys the catalog orders to be destroyed, up to an offset of it."""
        start = Offset(0)
        while start < end:
            for record in self._log.read(_CATALOG, start)[: end - start]:
                start = Offset(record.offset + 1)
                if _ERASED in record.headers:
                    event = self._codec.decode(record.value)
                    assert isinstance(event, PrincipalErased), "its header says what it is"
                    self._erased.add(event.key_id)

    def files(self) -> tuple[SavedArtifact, ...]:
        """All files at the cut, sorted by path."""
        return tuple(sorted(f for part in self._partitions.values() for f in part.files.values()))

    def latest(self) -> tuple[SavedArtifact, ...]:
        """All files as of what has been read."""
        return tuple(f for part in self._partitions.values() for f in part.latest().values())

    def cut(self) -> Mapping[TopicPartition, Offset]:
        """Where the partitions with files are cut."""
        return {at: partition.due for at, partition in self._partitions.items()}


class _Partition:
    # files: at the cut, by path. due: the cut. _later: what came after it, with the offset behind.
    def __init__(self, log: LogReader, codec: Codec, at: TopicPartition) -> None:
        self.files: dict[str, SavedArtifact] = {}
        self.due = Offset(0)
        self._log = log
        self._codec = codec
        self._at = at
        self._later: list[tuple[Offset, Changed]] = []
        self._read = Offset(0)

    def begin(self, end: Offset) -> None:
        for _, event in self._changes(self.due, end):
            apply(self.files, event)
        self.due = self._read = end

    def read_on(self, end: Offset) -> None:
        self._later += self._changes(self._read, end)
        self._read = end

    def latest(self) -> dict[str, SavedArtifact]:
        files = dict(self.files)
        for _, event in self._later:
            apply(files, event)
        return files

    def settle(self, have: Collection[str]) -> None:
        files, whole = dict(self.files), -1
        lacking = {path for path, file in files.items() if file.sha256 not in have}
        for place in range(len(self._later) + 1):
            if not lacking:
                whole = place
            if place < len(self._later):
                apply(files, event := self._later[place][1])
                lacking &= files.keys()
                if isinstance(event, ArtifactUploaded):
                    (lacking.discard if event.sha256.hex() in have else lacking.add)(event.path)
        if whole >= 0:
            # All up to before the next change of a file.
            for _, event in self._later[:whole]:
                apply(self.files, event)
            self._later = self._later[whole:]
            self.due = Offset(self._later[0][0] - 1) if self._later else self._read

    def _changes(self, start: Offset, end: Offset) -> list[tuple[Offset, Changed]]:
        found: list[tuple[Offset, Changed]] = []
        while start < end:
            for record in self._log.read(self._at, start)[: end - start]:
                start = Offset(record.offset + 1)
                if not _TYPES.isdisjoint(record.headers):
                    found.append((start, self._decoded(record)))
        return found

    def _decoded(self, record: Record) -> Changed:
        event = self._codec.decode(record.value)
        assert isinstance(event, Changed), "its header says what it is"
        return event


def apply(files: dict[str, SavedArtifact], event: Changed) -> None:
    """What an upload or a deletion makes of the files of its partition."""
    if isinstance(event, ArtifactUploaded):
        files[event.path] = SavedArtifact(
            path=event.path, size_bytes=event.size_bytes, sha256=event.sha256.hex()
        )
        return
    folder = f"{event.path}/" if event.path else ""
    for path in [p for p in files if p == event.path or p.startswith(folder)]:
        if owner_of(path) == event.owner:
            del files[path]
