"""The `quarantine` table: records that were not folded, and why."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection, Folded

CREATE = """
CREATE TABLE quarantine (
    topic VARCHAR NOT NULL,
    "partition" INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    event_type VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    held BOOLEAN NOT NULL
)
"""

ALL = """
SELECT topic, "partition", "offset", kind, id, event_type, reason, held
FROM quarantine ORDER BY topic, "partition", "offset"
"""


class QuarantineProjection:
    """One row per record in quarantine; the first of each history is the one that is not good."""

    name = "quarantine"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Add the records of a batch that are in quarantine."""
        rows = [
            [
                item.topic,
                item.partition,
                item.offset,
                item.event.envelope.aggregate_kind,
                item.event.envelope.aggregate_id,
                item.event.envelope.type,
                item.quarantine.reason,
                item.quarantine.held,
            ]
            for item in batch
            if item.quarantine is not None
        ]
        if rows:
            tx.executemany("INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
