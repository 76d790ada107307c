"""Metric points as packed columns: built once per request, read by NumPy without a loop.

Point i is `keys[key_index[i]], value[i], timestamp_ms[i], step[i]`, little-endian throughout.
"""

from __future__ import annotations

import struct
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

    contexts: empty, or one per point. Raises struct.error when an integer is over 64 bits.
    """
    count = len(names)
    index = {name: place for place, name in enumerate(dict.fromkeys(names))}
    distinct = {c: place for place, c in enumerate(c for c in dict.fromkeys(contexts) if c)}
    places = [NO_CONTEXT if c is None else distinct[c] for c in contexts] if distinct else ()
    return MetricColumns(
        count=count,
        keys=tuple(index),
        key_index=struct.pack(f"<{count}H", *[index[name] for name in names]),
        value=struct.pack(f"<{count}d", *value),
        timestamp_ms=struct.pack(f"<{count}q", *timestamp_ms),
        step=struct.pack(f"<{count}q", *step),
        contexts=tuple(distinct),
        context_index=struct.pack(f"<{len(places)}H", *places),
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
