"""Reads traces: documents and spans by id, and which traces are the oldest."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection
from muniment_projections.traces import tables


def find_documents(connection: Connection, trace_ids: Sequence[str]) -> dict[str, bytes]:
    """The states of these traces, those that are only linked included; others are left out."""
    return dict(connection.execute(tables.DOCUMENTS, [list(trace_ids)]).fetchall())


def find_spans(connection: Connection, trace_ids: Sequence[str]) -> dict[str, list[str]]:
    """The spans of these traces as JSON texts, roots first, then by start."""
    found: dict[str, list[str]] = {}
    for trace_id, content in connection.execute(tables.SPANS, [list(trace_ids)]).fetchall():
        found.setdefault(trace_id, []).append(content)
    return found


def oldest(connection: Connection, experiment_id: str, until_ms: int, most: int) -> list[str]:
    """Ids of an experiment's traces that began until then, at most so many, oldest first."""
    rows = connection.execute(tables.OLDEST, [experiment_id, until_ms, most]).fetchall()
    return [trace_id for (trace_id,) in rows]
