"""Spans in protobuf, as an OpenTelemetry library would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import (
    ResourceSpans,
    ScopeSpans,
    Span,
    Status,
    TracesData,
)

TRACE = "0123456789abcdef0123456789abcdef"
START_NS = 1_700_000_000_123_456_789
OK, ERROR = 1, 2


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP has it."""
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            made = AnyValue()
            made.array_value.values.extend(any_value(item) for item in value)
            return made
        case dict():
            made = AnyValue()
            made.kvlist_value.values.extend(key_values(value))
            return made
        case None:
            return AnyValue()
    return AnyValue(string_value=value)


def key_values(entries: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in entries.items()]


def span(
    span_id: int,
    parent: int | None = None,
    *,
    trace: str = TRACE,
    name: str = "work",
    status: Any = 0,
    took_ms: int = 1500,
    **attributes: Any,
) -> Span:
    """One span; `took_ms` 0 has not ended. Attribute names are written with __ for a dot."""
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
        name=name,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=START_NS + took_ms * 1_000_000 if took_ms else 0,
        status=Status(code=status),
        attributes=key_values({k.replace("__", "."): v for k, v in attributes.items()}),
    )


def traces_data(spans: Sequence[Span], resource: Mapping[str, Any] | None = None) -> TracesData:
    """Spans of one resource."""
    group = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    group.resource.attributes.extend(key_values(resource or {}))
    return TracesData(resource_spans=[group])
