"""The `catalog` table: documents of principals, schemas and their registry ids, to start from."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection, Folded, applied, document

KINDS = frozenset({"principal", "schema", "schema_id"})

CREATE = "CREATE TABLE catalog (kind VARCHAR NOT NULL, id VARCHAR NOT NULL, document BLOB NOT NULL)"

PRINCIPALS = "SELECT id, document FROM catalog WHERE kind = 'principal'"
SCHEMAS = "SELECT id, document FROM catalog WHERE kind = 'schema'"
SCHEMA_IDS = "SELECT id, document FROM catalog WHERE kind = 'schema_id'"


class CatalogProjection:
    """One row per principal, per published schema and per registry id of one."""

    name = "catalog"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the row of everything that the batch changed by its last state."""
        changed = {
            (item.event.AGGREGATE, item.event.envelope.aggregate_id): item.after
            for item in applied(batch)
            if item.event.AGGREGATE in KINDS
        }
        for (kind, aggregate_id), state in changed.items():
            assert state is not None, f"a {kind} is never removed"
            tx.execute("DELETE FROM catalog WHERE kind = ? AND id = ?", [kind, aggregate_id])
            tx.execute(
                "INSERT INTO catalog VALUES (?, ?, ?)", [kind, aggregate_id, document(state)]
            )
