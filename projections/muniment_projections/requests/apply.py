"""The `requests` table: where each keyed request was first recorded."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection, Folded, applied

CREATE = """
CREATE TABLE requests (
    topic VARCHAR NOT NULL,
    "partition" INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    key_sha256 BLOB NOT NULL,
    request_sha256 BLOB NOT NULL
)
"""

NEWEST = """
SELECT topic, "partition", "offset", key_sha256, request_sha256
FROM requests
QUALIFY row_number() OVER (PARTITION BY topic, "partition" ORDER BY "offset" DESC) <= ?
ORDER BY "offset"
"""
"""The newest keyed requests of each topic-partition, oldest first. Takes how many."""


class RequestsProjection:
    """One row per keyed request that was recorded."""

    name = "requests"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Add the keyed requests of a batch."""
        rows = [
            [item.topic, item.partition, item.offset, keyed.key_sha256, keyed.request_sha256]
            for item in applied(batch)
            if (keyed := item.event.envelope.idempotency) is not None
        ]
        if rows:
            tx.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?)", rows)
