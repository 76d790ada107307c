"""Keeps the `experiments` table equal to the experiments' current state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from muniment_projections.base import Connection, Folded, applied, document
from muniment_projections.experiments import tables


class ExperimentRow(Protocol):
    """What the table needs of an experiment's state."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle: str
    lifecycle_changed_at_ms: int
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]
    created_by: str
    workspace: str


class ExperimentsProjection:
    """One row per experiment."""

    name = "experiments"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the row of every experiment that the batch changed by its last state."""
        changed = {
            item.event.envelope.aggregate_id: item.after
            for item in applied(batch)
            if item.event.AGGREGATE == "experiment"
        }
        for experiment_id, state in changed.items():
            assert state is not None, "experiments are never removed"
            tx.execute(tables.DELETE, [experiment_id])
            tx.execute(tables.INSERT, _row(state))  # type: ignore[arg-type]


def _row(state: ExperimentRow) -> list[object]:
    return [
        state.experiment_id,
        state.name,
        state.artifact_location,
        state.lifecycle,
        state.lifecycle_changed_at_ms,
        state.created_at_ms,
        state.updated_at_ms,
        list(state.tags.keys()),
        list(state.tags.values()),
        state.created_by,
        state.workspace,
        document(state),  # type: ignore[arg-type]
    ]
