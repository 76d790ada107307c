"""Writes traces: each changed trace's last state, and the spans that arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from muniment_projections.base import Connection, Folded, applied, document
from muniment_projections.traces import otlp, tables
from muniment_projections.traces.tables import TraceRow
from muniment_schemas.events import SpansLogged, TraceDeleted

_MAP = pa.map_(pa.string(), pa.string())
_LIST = pa.list_(pa.string())


class TracesProjection:
    """Tables `traces` and `trace_spans`."""

    @property
    def name(self) -> str:
        """Name of the projection."""
        return "traces"

    def create(self, tx: Connection) -> None:
        """Create the tables."""
        tx.execute(tables.CREATE_TRACES)
        tx.execute(tables.CREATE_SPANS)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the rows of the batch's traces, add or replace the spans that it brings."""
        items = [item for item in applied(batch) if item.event.AGGREGATE == "trace"]
        if not items:
            return
        last = {item.event.envelope.aggregate_id: item.after for item in items}
        tx.execute(tables.DELETE, [list(last)])
        kept = [state for state in last.values() if state is not None]
        if kept:
            _write(tx, tables.INCOMING, _rows(kept), [tables.INSERT])
        _apply_spans(tx, items)


def _apply_spans(tx: Connection, items: Sequence[Folded]) -> None:
    # In log order, since spans may arrive for a trace that was deleted before.
    deleted: set[str] = set()
    arrived: dict[str, dict[str, dict[str, Any]]] = {}
    for item in items:
        trace_id = item.event.envelope.aggregate_id
        match item.event:
            case TraceDeleted():
                deleted.add(trace_id)
                arrived.pop(trace_id, None)
            case SpansLogged():
                spans = otlp.read(otlp.parse(item.event.resource_spans))
                arrived.setdefault(trace_id, {}).update({s.span_id: _span_row(s) for s in spans})
    if deleted:
        tx.execute(tables.DELETE_SPANS_OF, [list(deleted)])
    rows = [row for spans in arrived.values() for row in spans.values()]
    if rows:
        incoming = pa.Table.from_pylist(rows, tables.SPAN_SCHEMA)
        _write(tx, tables.INCOMING_SPANS, incoming, [tables.DELETE_SPANS, tables.INSERT_SPANS])


def _span_row(span: otlp.ReadSpan) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "name": span.name,
        "type": span.type,
        "status": span.status,
        "start_ns": span.start_ns,
        "content": otlp.content_text(span.content),
    }


def _write(tx: Connection, name: str, rows: pa.Table, statements: Sequence[str]) -> None:
    tx.register(name, rows)
    try:
        for statement in statements:
            tx.execute(statement)
    finally:
        tx.unregister(name)


def _rows(states: Sequence[Any]) -> pa.Table:
    """One row per state, in the table's order of columns."""
    traces = cast(Sequence[TraceRow], states)
    return pa.table(
        {
            "trace_id": pa.array([t.trace_id for t in traces], pa.string()),
            "experiment_id": pa.array([t.experiment_id for t in traces], pa.string()),
            "request_time_ms": pa.array([t.request_time_ms for t in traces], pa.int64()),
            "execution_duration_ms": pa.array(
                [t.execution_duration_ms for t in traces], pa.int64()
            ),
            "state": pa.array([t.state for t in traces], pa.string()),
            "client_request_id": pa.array([t.client_request_id for t in traces], pa.string()),
            "tags": pa.array([_pairs(t.tags) for t in traces], _MAP),
            "metadata": pa.array([_pairs(t.metadata) for t in traces], _MAP),
            "run_ids": pa.array([list(t.run_ids) for t in traces], _LIST),
            "prompts": pa.array([list(t.prompts) for t in traces], _LIST),
            "assessments": pa.array(
                [_assessments(t) for t in traces], pa.list_(tables.ASSESSMENT_TYPE)
            ),
            "document": pa.array([document(state) for state in states], pa.binary()),
        }
    )


def _pairs(entries: Mapping[str, str]) -> list[tuple[str, str]]:
    return list(entries.items())


def _assessments(trace: TraceRow) -> list[dict[str, object]]:
    return [
        {
            "kind": assessment.kind,
            "name": assessment.name,
            "value": assessment.value,
            "number": assessment.number,
            "valid": assessment.valid,
        }
        for assessment in trace.assessments.values()
    ]
