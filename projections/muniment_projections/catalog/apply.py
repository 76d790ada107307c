"""The `catalog` table: what a start needs of access, principals, credentials and schemas."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection, Folded, applied, document

KINDS = frozenset(
    {
        *("access", "credential", "hold", "principal", "promotion_policy"),
        *("schema", "schema_id", "workspace"),
    }
)
REMOVED = frozenset({"credential", "hold", "promotion_policy", "workspace"})
"""Those that may come to an end."""

CREATE = "CREATE TABLE catalog (kind VARCHAR NOT NULL, id VARCHAR NOT NULL, document BLOB NOT NULL)"

PRINCIPALS = "SELECT id, document FROM catalog WHERE kind = 'principal'"
SCHEMAS = "SELECT id, document FROM catalog WHERE kind = 'schema'"
SCHEMA_IDS = "SELECT id, document FROM catalog WHERE kind = 'schema_id'"
HOLDS = "SELECT id, document FROM catalog WHERE kind = 'hold'"
ACCESS = "SELECT id, document FROM catalog WHERE kind = 'access'"
POLICIES = "SELECT id, document FROM catalog WHERE kind = 'promotion_policy'"
WORKSPACES = "SELECT id, document FROM catalog WHERE kind = 'workspace'"
CREDENTIALS = "SELECT id, document FROM catalog WHERE kind = 'credential'"


class CatalogProjection:
    """One row per principal, credential, schema and registry id of one; one of all grants."""

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
            tx.execute("DELETE FROM catalog WHERE kind = ? AND id = ?", [kind, aggregate_id])
            if state is None:
                assert kind in REMOVED, f"a {kind} is never removed"
                continue
            tx.execute(
                "INSERT INTO catalog VALUES (?, ?, ?)", [kind, aggregate_id, document(state)]
            )
