"""Metric points as packed columns: built once per request, read by NumPy without a loop.

Point i is `keys[key_index[i]], value[i], timestamp_ms[i], step[i]`, little-endian throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from muniment_schemas.events import MetricColumns, MetricContext

NO_CONTEXT = 0xFFFF

Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Points:
    """Metric points as arrays of one length; `key_index` points into `keys`."""

    keys: tuple[str, ...]
    key_index: Indexes
    value: Doubles
    timestamp_ms: Longs
    step: Longs


def pack(
    names: Sequence[str],
    value: Sequence[float],
    timestamp_ms: Sequence[int],
    step: Sequence[int],
    contexts: Sequence[MetricContext | None] = (),
) -> MetricColumns:
    """Points (four sequences of one length, at most 65,535) as an event's columns.

    contexts: empty, or one per point.
    """
    index = {name: place for place, name in enumerate(dict.fromkeys(names))}
    distinct = {c: place for place, c in enumerate(dict.fromkeys(contexts)) if c is not None}
    if None in contexts:
        distinct = {c: place for place, c in enumerate(distinct)}
    return MetricColumns(
        count=len(names),
        keys=tuple(index),
        key_index=np.array([index[name] for name in names], "<u2").tobytes(),
        value=np.array(value, "<f8").tobytes(),
        timestamp_ms=np.array(timestamp_ms, "<i8").tobytes(),
        step=np.array(step, "<i8").tobytes(),
        contexts=tuple(distinct),
        context_index=np.array(
            [NO_CONTEXT if c is None else distinct[c] for c in contexts], "<u2"
        ).tobytes()
        if distinct
        else b"",
    )


def points(columns: MetricColumns) -> Points:
    """The columns as arrays that share the event's memory (read-only).

    Raises ValueError when the columns are not `count` long.
    """
    read = Points(
        keys=columns.keys,
        key_index=np.frombuffer(columns.key_index, "<u2"),
        value=np.frombuffer(columns.value, "<f8"),
        timestamp_ms=np.frombuffer(columns.timestamp_ms, "<i8"),
        step=np.frombuffer(columns.step, "<i8"),
    )
    lengths = {len(read.key_index), len(read.value), len(read.timestamp_ms), len(read.step)}
    if lengths != {columns.count}:
        raise ValueError(f"metric columns of {columns.count} points have lengths {sorted(lengths)}")
    return read


def context_index(columns: MetricColumns) -> Indexes:
    """Per point the index into `columns.contexts`, NO_CONTEXT for none; empty without contexts."""
    return np.frombuffer(columns.context_index, "<u2")
