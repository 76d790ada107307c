"""The latest value of each metric: the point with the greatest (step, timestamp, value).

NaN counts as 0 in that comparison, as MLflow has it. Points are a set, so folding one twice, or in
another order, gives the same result.
"""

from __future__ import annotations

import math
from struct import unpack
from typing import NamedTuple

import numpy as np

from muniment_schemas.columns import points
from muniment_schemas.events import MetricColumns

LOOP_POINTS_MAX = 16
"""Up to here a plain loop is faster than NumPy's sort (both were timed)."""


class Metric(NamedTuple):
    """One metric point without its key."""

    value: float
    timestamp_ms: int
    step: int


def merge_latest(latest: dict[str, Metric], columns: MetricColumns) -> dict[str, Metric]:
    """`latest` with the points of `columns` taken in, as a new dict."""
    merged = latest.copy()
    for key, metric in _newest(columns):
        known = merged.get(key)
        if known is None or _rank(metric) >= _rank(known):
            merged[key] = metric
    return merged


def _rank(metric: Metric) -> tuple[int, int, float]:
    value = metric.value
    return metric.step, metric.timestamp_ms, 0.0 if math.isnan(value) else value


def _newest(columns: MetricColumns) -> list[tuple[str, Metric]]:
    # Every point when there are few; otherwise the newest of each key, found by one sort.
    count = columns.count
    if count <= LOOP_POINTS_MAX:
        index = unpack(f"<{count}H", columns.key_index)
        metrics = map(
            Metric,
            unpack(f"<{count}d", columns.value),
            unpack(f"<{count}q", columns.timestamp_ms),
            unpack(f"<{count}q", columns.step),
        )
        return [(columns.keys[i], metric) for i, metric in zip(index, metrics, strict=True)]
    read = points(columns)
    ranked = np.where(np.isnan(read.value), 0.0, read.value)
    order = np.lexsort((ranked, read.timestamp_ms, read.step, read.key_index))
    keys = read.key_index[order]
    last = order[np.flatnonzero(np.append(keys[1:] != keys[:-1], True))]
    newest = map(
        Metric,
        read.value[last].tolist(),
        read.timestamp_ms[last].tolist(),
        read.step[last].tolist(),
    )
    return [
        (columns.keys[i], metric)
        for i, metric in zip(read.key_index[last].tolist(), newest, strict=True)
    ]
