"""Writes metric points: the packed columns of a batch's events, joined without touching a point.

Numbers are the events' bytes one after the other, read as one array. Names (run, key, model,
dataset) are codes into one dictionary per column; all that is done per event is a look-up of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from muniment_projections.base import Connection, Folded, applied, run_with
from muniment_projections.metrics import tables
from muniment_schemas.columns import NO_CONTEXT
from muniment_schemas.events import BatchLogged, MetricColumns

Codes = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]
Logged = Sequence[tuple[str, MetricColumns]]
"""(run id, its points) of each event."""

ABSENT = -1
"""Code of a name that is not there."""


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
        """Append the points of the batch's events; points measured on a model go to both tables.

        Raises ValueError when an event's columns are not as long as it says.
        """
        logged = [
            (item.event.envelope.aggregate_id, item.event.metrics)
            for item in applied(batch)
            if isinstance(item.event, BatchLogged) and item.event.metrics is not None
        ]
        if logged:
            run_with(tx, tables.INCOMING, _run_points(logged), (tables.INSERT_POINTS,))
        on_models = [(run_id, columns) for run_id, columns in logged if columns.contexts]
        if on_models:
            rows = _model_points(on_models)
            run_with(tx, tables.INCOMING, rows, (tables.INSERT_MODEL_POINTS,))


def _run_points(logged: Logged) -> pa.Table:
    return pa.table(_point_columns(logged))


def _model_points(logged: Logged) -> pa.Table:
    index = _joined((columns.context_index for _, columns in logged), "<u2")
    rows = index != NO_CONTEXT
    contexts = [columns.contexts for _, columns in logged]
    places = index.astype(np.int64) + _starts(contexts, _counts(logged))
    flat = [context for each in contexts for context in each]
    named = {
        column: _names([getattr(context, column) for context in flat], places[rows])
        for column in ("model_id", "dataset_name", "dataset_digest")
    }
    points = pa.table(_point_columns(logged)).filter(pa.array(rows))
    table = pa.table(
        {
            "model_id": named["model_id"],
            **dict(zip(points.column_names, points.columns, strict=True)),
        }
    )
    for column in ("dataset_name", "dataset_digest"):
        table = table.append_column(column, named[column])
    return table.filter(table["model_id"].is_valid())


def _point_columns(logged: Logged) -> dict[str, pa.Array]:
    counts = _counts(logged)
    keys = [columns.keys for _, columns in logged]
    index = _joined((columns.key_index for _, columns in logged), "<u2").astype(np.int64)
    _check_length(len(index), counts)
    numbers = {
        "step": _joined((columns.step for _, columns in logged), "<i8"),
        "timestamp_ms": _joined((columns.timestamp_ms for _, columns in logged), "<i8"),
        "value": _joined((columns.value for _, columns in logged), "<f8"),
    }
    for column in numbers.values():
        _check_length(len(column), counts)
    runs = np.repeat(np.arange(len(logged)), counts)
    return {
        "run_id": _names([run_id for run_id, _ in logged], runs),
        "key": _names([key for each in keys for key in each], index + _starts(keys, counts)),
        **{name: pa.array(column) for name, column in numbers.items()},
    }


def _counts(logged: Logged) -> Codes:
    return np.array([columns.count for _, columns in logged], np.int64)


def _check_length(length: int, counts: Codes) -> None:
    if length != counts.sum():
        raise ValueError(f"metric columns hold {length} points where {counts.sum()} are announced")


def _joined(chunks: Iterable[bytes], dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(b"".join(chunks), dtype)


def _starts(groups: Sequence[Sequence[object]], counts: Codes) -> Codes:
    """Per point the place where its event's names begin among all names."""
    sizes = np.array([len(group) for group in groups], np.int64)
    return np.repeat(np.cumsum(sizes) - sizes, counts)


def _names(names: Sequence[str | None], places: Codes) -> pa.Array:
    """A column of strings: `names[place]` for each place, as codes into distinct names."""
    distinct: dict[str, int] = {}
    codes = [ABSENT if n is None else distinct.setdefault(n, len(distinct)) for n in names]
    indices = np.array(codes, np.int32)[places]
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=indices == ABSENT), pa.array(list(distinct), pa.string())
    )
