"""Are the artifacts what the log says they are? Compares every file with its last upload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from muniment_projections.artifacts.reader import RecordedArtifact, recorded_artifacts
from muniment_projections.base import Connection
from muniment_services.artifacts.base import ArtifactStore, Entry

MISSING = "missing"
CHANGED = "changed"
UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not as recorded. kind: MISSING, CHANGED (content) or UNRECORDED."""

    kind: str
    path: str


async def verify_artifacts(store: ArtifactStore, connection: Connection) -> AsyncIterator[Finding]:
    """Read every file and yield what differs; nothing is yielded when all is well.

    An unrecorded file is what a crash between upload and event leaves; the client was never told
    that it had been accepted. Memory grows with the number of files, not with their size.
    """
    recorded = dict(recorded_artifacts(connection))
    async for entry in store.walk(""):
        expected = recorded.pop(entry.path, None)
        if expected is None:
            yield Finding(UNRECORDED, entry.path)
        elif not await _is_same(store, entry, expected):
            yield Finding(CHANGED, entry.path)
    for path in recorded:
        yield Finding(MISSING, path)


async def _is_same(store: ArtifactStore, entry: Entry, recorded: RecordedArtifact) -> bool:
    if entry.size_bytes != recorded.size_bytes:
        return False
    return (await store.describe(entry.path)).sha256 == recorded.sha256
