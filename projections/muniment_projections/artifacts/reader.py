"""What the log says of artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from muniment_projections.artifacts import tables
from muniment_projections.base import Connection

ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class RecordedArtifact:
    """Size and digest of a file, as its last upload was recorded."""

    size_bytes: int
    sha256: bytes


def find_artifact(connection: Connection, path: str) -> RecordedArtifact | None:
    """What is recorded of one file, None if nothing is."""
    row = connection.execute(tables.FIND, [path]).fetchone()
    return None if row is None else RecordedArtifact(*row)


def recorded_artifacts(connection: Connection) -> Iterator[tuple[str, RecordedArtifact]]:
    """All files that should be there, by path."""
    rows = connection.execute(tables.ALL)
    while batch := rows.fetchmany(ROWS_AT_ONCE):
        for path, size_bytes, sha256 in batch:
            yield path, RecordedArtifact(size_bytes, sha256)
