"""What the log says of artifacts."""

from __future__ import annotations

import hashlib
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


@dataclass(frozen=True, slots=True)
class Below:
    """The files of a folder. listed: (path, SHA-256) of the first by path. total: how many.

    sha256: over all of them, by path in the order of its UTF-8 bytes: `HEX  PATH` and a newline
    each, as sha256sum writes it.
    """

    listed: tuple[tuple[str, bytes], ...]
    total: int
    sha256: bytes


def artifacts_below(connection: Connection, folder: str, most: int) -> Below:
    """A folder's files, at most so many of them listed."""
    rows = connection.execute(tables.BELOW, [folder, f"{folder}/"])
    listed: list[tuple[str, bytes]] = []
    total, over_all = 0, hashlib.sha256()
    while batch := rows.fetchmany(ROWS_AT_ONCE):
        listed += batch[: most - len(listed)]
        total += len(batch)
        for path, sha256 in batch:
            over_all.update(f"{sha256.hex()}  {path}\n".encode())
    return Below(tuple(listed), total, over_all.digest())
