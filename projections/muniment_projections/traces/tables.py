"""The tables of traces: one row per trace, one per span, and what a state must have for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import pyarrow as pa

CREATE_TRACES = """
CREATE TABLE traces (
    trace_id VARCHAR NOT NULL,
    experiment_id VARCHAR NOT NULL,
    request_time_ms BIGINT NOT NULL,
    execution_duration_ms BIGINT,
    state VARCHAR NOT NULL,
    client_request_id VARCHAR,
    tags MAP(VARCHAR, VARCHAR) NOT NULL,
    metadata MAP(VARCHAR, VARCHAR) NOT NULL,
    run_ids VARCHAR[] NOT NULL,
    prompts VARCHAR[] NOT NULL,
    assessments STRUCT(
        kind VARCHAR, name VARCHAR, value VARCHAR, number DOUBLE, valid BOOLEAN
    )[] NOT NULL,
    document BLOB NOT NULL
)
"""
"""A trace that has only been linked to a run has experiment_id '' and is in no search's scope."""

CREATE_SPANS = """
CREATE TABLE trace_spans (
    trace_id VARCHAR NOT NULL,
    span_id VARCHAR NOT NULL,
    parent_span_id VARCHAR,
    name VARCHAR NOT NULL,
    type VARCHAR,
    status VARCHAR NOT NULL,
    start_ns UBIGINT NOT NULL,
    content VARCHAR NOT NULL
)
"""

INCOMING = "incoming_traces"
INCOMING_SPANS = "incoming_trace_spans"

DELETE = "DELETE FROM traces WHERE trace_id IN (SELECT unnest(?))"
INSERT = f"INSERT INTO traces SELECT * FROM {INCOMING}"
DELETE_SPANS_OF = "DELETE FROM trace_spans WHERE trace_id IN (SELECT unnest(?))"
DELETE_SPANS = f"""
DELETE FROM trace_spans
WHERE (trace_id, span_id) IN (SELECT (trace_id, span_id) FROM {INCOMING_SPANS})
"""
INSERT_SPANS = f"INSERT INTO trace_spans SELECT * FROM {INCOMING_SPANS}"

DOCUMENTS = "SELECT trace_id, document FROM traces WHERE trace_id IN (SELECT unnest(?))"
SPANS = """
SELECT trace_id, content FROM trace_spans WHERE trace_id IN (SELECT unnest(?))
ORDER BY parent_span_id IS NOT NULL, start_ns, span_id
"""
OLDEST = """
SELECT trace_id FROM traces WHERE experiment_id = ? AND request_time_ms <= ?
ORDER BY request_time_ms, trace_id LIMIT ?
"""

ASSESSMENT_TYPE = pa.struct(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("value", pa.string()),
        ("number", pa.float64()),
        ("valid", pa.bool_()),
    ]
)
SPAN_SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
        ("name", pa.string()),
        ("type", pa.string()),
        ("status", pa.string()),
        ("start_ns", pa.uint64()),
        ("content", pa.string()),
    ]
)


class AssessmentRow(Protocol):
    """What the table reads of an assessment. `value` is JSON text."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def number(self) -> float | None: ...
    @property
    def valid(self) -> bool: ...


class TraceRow(Protocol):
    """What the table reads of a trace's state."""

    @property
    def trace_id(self) -> str: ...
    @property
    def experiment_id(self) -> str: ...
    @property
    def request_time_ms(self) -> int: ...
    @property
    def execution_duration_ms(self) -> int | None: ...
    @property
    def state(self) -> str: ...
    @property
    def client_request_id(self) -> str | None: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def run_ids(self) -> Sequence[str]: ...
    @property
    def prompts(self) -> Sequence[str]: ...
    @property
    def assessments(self) -> Mapping[str, AssessmentRow]: ...
