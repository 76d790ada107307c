"""Writes metric points: the packed columns of a batch's events, joined without touching a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muniment_projections.base import Connection, Folded, applied
from muniment_projections.metrics import tables
from muniment_schemas.columns import NO_CONTEXT, Points, context_index, points
from muniment_schemas.events import BatchLogged, MetricColumns, MetricContext

Codes = npt.NDArray[np.int32]

ABSENT = -1
"""Code of a name that is not there."""


@dataclass(slots=True)
class _Names:
    """Distinct strings and their codes: one dictionary for a column of a whole batch."""

    codes: dict[str, int] = field(default_factory=dict)

    def code(self, name: str | None) -> int:
        return ABSENT if name is None else self.codes.setdefault(name, len(self.codes))

    def column(self, chunks: Sequence[Codes]) -> pa.Array:
        codes = np.concatenate(chunks)
        indices = pa.array(codes, mask=codes == ABSENT)
        return pa.DictionaryArray.from_arrays(indices, pa.array(list(self.codes), pa.string()))


@dataclass(slots=True)
class _Gathered:
    """Columns of many events, in chunks."""

    names: dict[str, _Names]
    coded: dict[str, list[Codes]]
    numbers: dict[str, list[npt.NDArray[np.generic]]]

    @classmethod
    def of(cls, named: Sequence[str]) -> _Gathered:
        """No rows yet; `named` are the columns of strings, which precede step, time and value."""
        return cls(
            {column: _Names() for column in named},
            {column: [] for column in named},
            {"step": [], "timestamp_ms": [], "value": []},
        )

    def add_numbers(self, read: Points, rows: npt.NDArray[np.bool_] | slice) -> None:
        for column, chunks in self.numbers.items():
            chunks.append(getattr(read, column)[rows])

    def table(self, order: Sequence[str]) -> pa.Table:
        """The rows, with the columns in the order of the table."""
        columns = {
            column: self.names[column].column(chunks) for column, chunks in self.coded.items()
        }
        columns |= {c: pa.array(np.concatenate(chunks)) for c, chunks in self.numbers.items()}
        return pa.table({column: columns[column] for column in order})


class MetricsProjection:
    """Tables `points` and `model_points`."""

    @property
    def name(self) -> str:
        """Name of the projection."""
        return "metrics"

    def create(self, tx: Connection) -> None:
        """Create the tables."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Append the points of the batch's events; points measured on a model go to both tables."""
        logged = [
            (item.event.envelope.aggregate_id, item.event.metrics)
            for item in applied(batch)
            if isinstance(item.event, BatchLogged) and item.event.metrics is not None
        ]
        if logged:
            _insert(tx, tables.INSERT_POINTS, _run_points(logged))
        on_models = [(run_id, columns) for run_id, columns in logged if columns.contexts]
        if on_models:
            _insert(tx, tables.INSERT_MODEL_POINTS, _model_points(on_models))


def _insert(tx: Connection, statement: str, rows: pa.Table) -> None:
    tx.register(tables.INCOMING, rows)
    try:
        tx.execute(statement)
    finally:
        tx.unregister(tables.INCOMING)


def _run_points(logged: Sequence[tuple[str, MetricColumns]]) -> pa.Table:
    gathered = _Gathered.of(("run_id", "key"))
    for run_id, columns in logged:
        read = points(columns)
        _add_run_and_key(gathered, run_id, read, slice(None))
        gathered.add_numbers(read, slice(None))
    return gathered.table(("run_id", "key", "step", "timestamp_ms", "value"))


def _add_run_and_key(
    gathered: _Gathered, run_id: str, read: Points, rows: npt.NDArray[np.bool_] | slice
) -> None:
    keys = gathered.names["key"]
    index = read.key_index[rows]
    lookup = np.array([keys.code(key) for key in read.keys], np.int32)
    gathered.coded["key"].append(lookup[index])
    run_code = gathered.names["run_id"].code(run_id)
    gathered.coded["run_id"].append(np.full(len(index), run_code, np.int32))


def _model_points(logged: Sequence[tuple[str, MetricColumns]]) -> pa.Table:
    gathered = _Gathered.of(("model_id", "run_id", "key", "dataset_name", "dataset_digest"))
    for run_id, columns in logged:
        read, contexts = points(columns), context_index(columns)
        on_model = np.array([context.model_id is not None for context in columns.contexts])
        rows = contexts != NO_CONTEXT
        rows[rows] = on_model[contexts[rows]]
        _add_run_and_key(gathered, run_id, read, rows)
        _add_contexts(gathered, columns.contexts, contexts[rows])
        gathered.add_numbers(read, rows)
    return gathered.table(
        (
            "model_id",
            "run_id",
            "key",
            "step",
            "timestamp_ms",
            "value",
            "dataset_name",
            "dataset_digest",
        )
    )


def _add_contexts(
    gathered: _Gathered, contexts: Sequence[MetricContext], index: npt.NDArray[np.uint16]
) -> None:
    for column in ("model_id", "dataset_name", "dataset_digest"):
        names = gathered.names[column]
        lookup = np.array([names.code(getattr(context, column)) for context in contexts], np.int32)
        gathered.coded[column].append(lookup[index])
