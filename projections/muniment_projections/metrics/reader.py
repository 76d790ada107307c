"""Reads metric points: histories in MLflow's order, samples for charts, and models' metrics.

Points are a set: one that was logged twice is read once. NaN equals NaN, and 0.0 equals -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muniment_projections.base import Connection
from muniment_projections.metrics import tables
from muniment_projections.search import keyset
from muniment_projections.search.keyset import SortKey
from muniment_projections.search.predicate import TRUE, Predicate

_TOKEN_KEYS = (
    SortKey(Predicate("timestamp_ms"), "integer"),
    SortKey(Predicate("step"), "integer"),
    SortKey(Predicate("ordered"), "double"),
    SortKey(Predicate("nan"), "integer"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric; infinite values are as they were logged."""

    timestamp_ms: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class RunPoint:
    """A point and its run."""

    run_id: str
    timestamp_ms: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A point of a logged model, the run that measured it, and the dataset, if it was named."""

    key: str
    run_id: str
    timestamp_ms: int
    step: int
    value: float
    dataset_name: str | None
    dataset_digest: str | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Points in order; a token unless it is the last page."""

    points: list[Point]
    next_page_token: str | None


def wire_value(value: float) -> float:
    """A value as MLflow's API shows it: infinities are the largest double, NaN stays."""
    if value != value:
        return value
    return max(-keyset.DOUBLE_MAX, min(keyset.DOUBLE_MAX, value))


def history(
    connection: Connection,
    run_id: str,
    key: str,
    max_results: int | None = None,
    page_token: str | None = None,
) -> HistoryPage:
    """A metric's points by timestamp, step, value; NaN sorts as 0, behind an equal 0.

    max_results: None for all points. An unknown run or key has none. Raises PageTokenInvalid.
    """
    made_for = keyset.digest(["history", run_id, key])
    after = _after(page_token, made_for)
    limit = Predicate("") if max_results is None else Predicate("LIMIT ?", (max_results + 1,))
    rows = connection.execute(
        f"SELECT timestamp_ms, step, ordered, nan, value FROM ({tables.DISTINCT_POINTS})"
        f" WHERE {after.sql} ORDER BY timestamp_ms, step, ordered, nan {limit.sql}",
        [[run_id], key, *after.parameters, *limit.parameters],
    ).fetchall()
    kept = rows if max_results is None else rows[:max_results]
    token = None
    if len(kept) < len(rows):
        token = keyset.encode(tuple((keyset.PRESENT, v) for v in kept[-1][:4]), made_for)
    return HistoryPage([Point(row[0], row[1], row[4]) for row in kept], token)


def _after(page_token: str | None, made_for: str) -> Predicate:
    if not page_token:
        return TRUE
    cursor = keyset.decode(page_token, _TOKEN_KEYS, made_for)
    return Predicate(
        "(timestamp_ms, step, ordered, nan) > (?, ?, ?, ?)", tuple(value for _, value in cursor)
    )


def history_bulk(
    connection: Connection, run_ids: Sequence[str], key: str, max_results: int
) -> list[RunPoint]:
    """The first points of several runs together, by run id and then as `history` orders them."""
    rows = connection.execute(
        f"SELECT run_id, timestamp_ms, step, value FROM ({tables.DISTINCT_POINTS})"
        " ORDER BY run_id, timestamp_ms, step, ordered, nan LIMIT ?",
        [list(run_ids), key, max_results],
    ).fetchall()
    return [RunPoint(*row) for row in rows]


def sample(
    connection: Connection,
    run_ids: Sequence[str],
    key: str,
    max_results: int,
    start_step: int | None = None,
    end_step: int | None = None,
) -> list[RunPoint]:
    """At most max_results points of each run, evenly spread over those in the step interval.

    Points are ordered by step; the first and the last are always among them, only the last if
    max_results is 1. Runs come in the order asked for. The interval includes both ends, and is all
    steps unless both are given.
    """
    bounds = TRUE
    if start_step is not None and end_step is not None:
        bounds = Predicate("step BETWEEN ? AND ?", (start_step, end_step))
    unique = list(dict.fromkeys(run_ids))
    rows = connection.execute(
        tables.sampled(bounds.sql),
        [max(1, max_results), unique, key, *bounds.parameters],
    ).fetchall()
    by_run: dict[str, list[RunPoint]] = {run_id: [] for run_id in unique}
    for row in rows:
        by_run[row[0]].append(RunPoint(*row))
    return [point for run_id in run_ids for point in by_run[run_id]]


def latest_model_metrics(
    connection: Connection, model_ids: Sequence[str]
) -> dict[str, list[ModelPoint]]:
    """The latest point of each (model, key, dataset): by timestamp, step, then the first run id.

    Models without metrics are left out; a model's points are ordered by key and dataset.
    """
    found: dict[str, list[ModelPoint]] = {}
    rows = connection.execute(tables.LATEST_MODEL_POINTS, [list(model_ids)]).fetchall()
    for model_id, *point in rows:
        found.setdefault(model_id, []).append(ModelPoint(*point))
    return found
