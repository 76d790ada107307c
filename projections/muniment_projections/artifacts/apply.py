"""Writes down which files there are: uploads add or replace rows, deletions remove them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from muniment_projections.artifacts import tables
from muniment_projections.base import Connection, Folded, applied
from muniment_schemas.events import ArtifactDeleted, ArtifactUploaded

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("owner", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.binary()),
        ("uploaded_at_ms", pa.int64()),
        ("actor", pa.string()),
    ]
)


class ArtifactsProjection:
    """Table `artifacts`."""

    @property
    def name(self) -> str:
        """Name of the projection."""
        return "artifacts"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Fold a batch's uploads and deletions.

        An event reaches the rows of its own owner only, all of whose events are in one partition;
        so the order in which partitions are read makes no difference.
        """
        uploads: dict[str, ArtifactUploaded] = {}
        deletions: list[ArtifactDeleted] = []
        for item in applied(batch):
            if isinstance(item.event, ArtifactUploaded):
                uploads[item.event.path] = item.event
            elif isinstance(item.event, ArtifactDeleted):
                deletions.append(item.event)
                uploads = _without(uploads, item.event)
        for deletion in deletions:
            path = deletion.path
            tx.execute(tables.DELETE_BELOW, [deletion.owner, path, f"{path}/" if path else ""])
        if uploads:
            _write(tx, list(uploads.values()))


def _without(
    uploads: dict[str, ArtifactUploaded], deletion: ArtifactDeleted
) -> dict[str, ArtifactUploaded]:
    folder = f"{deletion.path}/" if deletion.path else ""
    return {
        path: upload
        for path, upload in uploads.items()
        if upload.owner != deletion.owner or not (path == deletion.path or path.startswith(folder))
    }


def _write(tx: Connection, uploads: Sequence[ArtifactUploaded]) -> None:
    rows = [
        {
            "path": upload.path,
            "owner": upload.owner,
            "size_bytes": upload.size_bytes,
            "sha256": upload.sha256,
            "uploaded_at_ms": upload.envelope.recorded_at_ms,
            "actor": upload.envelope.actor.principal_id,
        }
        for upload in uploads
    ]
    tx.register(tables.INCOMING, pa.Table.from_pylist(rows, schema=_SCHEMA))
    try:
        tx.execute(tables.REPLACE)
        tx.execute(tables.INSERT)
    finally:
        tx.unregister(tables.INCOMING)
