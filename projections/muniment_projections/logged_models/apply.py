"""Writes logged models: the last state that a batch gives each of them replaces its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import pyarrow as pa

from muniment_projections.base import Connection, Folded, document, last_applied, run_with
from muniment_projections.logged_models import tables

_STRINGS = pa.map_(pa.string(), pa.string())
_SCHEMA = pa.schema(
    [
        ("model_id", pa.string()),
        ("experiment_id", pa.string()),
        ("name", pa.string()),
        ("model_type", pa.string()),
        ("status", pa.string()),
        ("source_run_id", pa.string()),
        ("created_at_ms", pa.int64()),
        ("updated_at_ms", pa.int64()),
        ("params", _STRINGS),
        ("tags", _STRINGS),
        ("lifecycle", pa.string()),
        ("document", pa.binary()),
    ]
)


class LoggedModelRow(Protocol):
    """What the table needs of a logged model's state."""

    model_id: str
    experiment_id: str
    name: str
    model_type: str
    status: str
    source_run_id: str
    created_at_ms: int
    updated_at_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    lifecycle: str


class LoggedModelsProjection:
    """Table `logged_models`."""

    @property
    def name(self) -> str:
        """Name of the projection."""
        return "logged_models"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the rows of the batch's logged models; void events change nothing."""
        last = last_applied(batch, "logged_model")
        if not last:
            return
        rows = [_row(item) for item in last.values()]
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        run_with(tx, tables.INCOMING, table, (tables.DELETE, tables.INSERT))


def _row(item: Folded) -> dict[str, object]:
    assert item.after is not None, "a logged model never ceases to exist"
    model = cast(LoggedModelRow, item.after)
    return {
        "model_id": model.model_id,
        "experiment_id": model.experiment_id,
        "name": model.name,
        "model_type": model.model_type,
        "status": model.status,
        "source_run_id": model.source_run_id,
        "created_at_ms": model.created_at_ms,
        "updated_at_ms": model.updated_at_ms,
        "params": list(model.params.items()),
        "tags": list(model.tags.items()),
        "lifecycle": model.lifecycle,
        "document": document(item.after),
    }
