"""Writes runs: the last state that a batch gives each run replaces its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from itertools import chain
from typing import cast

import numpy as np
import pyarrow as pa

from muniment_projections.base import Connection, Folded, document, last_applied, run_with
from muniment_projections.runs import tables
from muniment_projections.runs.tables import RunRow

_PLAIN_COLUMNS = (
    ("run_id", pa.string()),
    ("experiment_id", pa.string()),
    ("name", pa.string()),
    ("user_id", pa.string()),
    ("status", pa.string()),
    ("start_time_ms", pa.int64()),
    ("end_time_ms", pa.int64()),
    ("artifact_uri", pa.string()),
    ("lifecycle", pa.string()),
    ("lifecycle_changed_at_ms", pa.int64()),
)


class RunsProjection:
    """Table `runs`."""

    @property
    def name(self) -> str:
        """Name of the projection."""
        return "runs"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the rows of the batch's runs; events that are void change nothing."""
        last = last_applied(batch, "run")
        if not last:
            return
        table = _rows(list(last.values()))
        run_with(tx, tables.INCOMING, table, (tables.DELETE, tables.INSERT))


def _rows(items: Sequence[Folded]) -> pa.Table:
    """One row per item, in the table's order of columns."""
    assert all(item.after is not None for item in items), "a run never ceases to exist"
    runs = [cast(RunRow, item.after) for item in items]
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(run, name) for run in runs], type_)
        for name, type_ in _PLAIN_COLUMNS
    }
    columns["params"] = _strings([run.params for run in runs])
    columns["tags"] = _strings([run.tags for run in runs])
    columns["metrics"] = _metrics(runs)
    columns["datasets"] = _datasets(runs)
    documents = [document(item.after) for item in items if item.after is not None]
    columns["document"] = pa.array(documents, pa.binary())
    return pa.table(columns)


def _offsets(groups: Sequence[Sized]) -> pa.Array:
    """Where each run's entries begin in the flat arrays, and where the last ones end."""
    return pa.array(np.concatenate(([0], np.cumsum([len(group) for group in groups]))), pa.int32())


def _strings(maps: Sequence[Mapping[str, str]]) -> pa.Array:
    keys = pa.array(list(chain.from_iterable(maps)), pa.string())
    values = pa.array(list(chain.from_iterable(m.values() for m in maps)), pa.string())
    return pa.MapArray.from_arrays(_offsets(maps), keys, values)


def _metrics(runs: Sequence[RunRow]) -> pa.Array:
    maps = [run.metrics for run in runs]
    points = [point for each in maps for point in each.values()]
    parts = [
        pa.array([point.value for point in points], pa.float64()),
        pa.array([point.timestamp_ms for point in points], pa.int64()),
        pa.array([point.step for point in points], pa.int64()),
    ]
    keys = pa.array(list(chain.from_iterable(maps)), pa.string())
    values = pa.StructArray.from_arrays(parts, fields=list(tables.METRIC_TYPE))
    return pa.MapArray.from_arrays(_offsets(maps), keys, values)


def _datasets(runs: Sequence[RunRow]) -> pa.Array:
    groups = [run.datasets for run in runs]
    datasets = list(chain.from_iterable(groups))
    parts = [
        pa.array([dataset.name for dataset in datasets], pa.string()),
        pa.array([dataset.digest for dataset in datasets], pa.string()),
        pa.array([dataset.tags.get(tables.CONTEXT_TAG) for dataset in datasets], pa.string()),
    ]
    values = pa.StructArray.from_arrays(parts, fields=list(tables.DATASET_TYPE))
    return pa.ListArray.from_arrays(_offsets(groups), values)
