"""Spans from OpenTelemetry's protobuf to the JSON that MLflow keeps of a span.

In that JSON attribute values are JSON texts themselves, ids are base64, and attributes of other
libraries' conventions also stand under MLflow's names (`conventions`).
Source: OTLP 1.x, trace.proto; answers of MLflow 3.17's server.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from muniment_projections.traces.conventions import TYPE, translate

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
REQUEST_ID = "mlflow.traceRequestId"
STATUSES = ("UNSET", "OK", "ERROR")
Json = dict[str, Any]


class MalformedSpans(Exception):
    """The bytes are no TracesData, or a span in them has an id that cannot be one."""


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """A span: what tables and summaries need of it, and its JSON (`content`).

    Ids are hex; times nanoseconds since 1970, end_ns 0 while it has not ended. resource: attributes
    of the OpenTelemetry resource that it came from.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    status: str
    start_ns: int
    end_ns: int
    content: Json
    resource: Json

    @property
    def attributes(self) -> Mapping[str, str]:
        """Attribute values as JSON texts."""
        attributes: Mapping[str, str] = self.content["attributes"]
        return attributes

    @property
    def type(self) -> str | None:
        """MLflow's span type: LLM, TOOL, …"""
        return text_of(self.attributes.get(TYPE))


def parse(data: bytes) -> TracesData:
    """TracesData, or an ExportTraceServiceRequest, which is the same on the wire.

    Raises MalformedSpans.
    """
    try:
        parsed: TracesData = TracesData.FromString(data)
    except DecodeError as error:
        raise MalformedSpans(str(error)) from error
    return parsed


def split(data: TracesData) -> dict[str, bytes]:
    """Each trace's spans as TracesData of its own, by trace id. Raises MalformedSpans."""
    traces: dict[str, TracesData] = {}
    for resource_spans in data.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            begun: dict[str, Any] = {}
            for span in scope_spans.spans:
                trace_id = trace_id_of(span)
                if trace_id not in begun:
                    begun[trace_id] = _begin(
                        traces.setdefault(trace_id, TracesData()), resource_spans, scope_spans
                    )
                begun[trace_id].append(span)
    return {trace_id: trace.SerializeToString() for trace_id, trace in traces.items()}


def _begin(trace: TracesData, resource_spans: Any, scope_spans: Any) -> Any:
    group = trace.resource_spans.add(schema_url=resource_spans.schema_url)
    if resource_spans.HasField("resource"):
        group.resource.CopyFrom(resource_spans.resource)
    scope = group.scope_spans.add(schema_url=scope_spans.schema_url)
    if scope_spans.HasField("scope"):
        scope.scope.CopyFrom(scope_spans.scope)
    return scope.spans


def read(data: TracesData) -> Iterator[ReadSpan]:
    """All spans, in order. Raises MalformedSpans."""
    for resource_spans in data.resource_spans:
        resource = _plain(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _read_span(span, resource)


def trace_id_of(span: Span) -> str:
    """MLflow's id of a span's trace. Raises MalformedSpans."""
    return f"tr-{_id(span.trace_id, TRACE_ID_BYTES).hex()}"


def content_text(content: Json) -> str:
    """A span's JSON as the text that is kept and searched; other scripts are not escaped."""
    return json.dumps(content, ensure_ascii=False, default=str)


def text_of(value: str | None) -> str | None:
    """A text out of an attribute's JSON text; anything else as it is."""
    if value is None:
        return None
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, str) else value


def _read_span(span: Span, resource: Json) -> ReadSpan:
    trace_id, span_id = trace_id_of(span), _id(span.span_id, SPAN_ID_BYTES)
    parent = _id(span.parent_span_id, SPAN_ID_BYTES) if span.parent_span_id else None
    status = STATUSES[span.status.code if 0 <= span.status.code < len(STATUSES) else 0]
    attributes = {key: json_text(value) for key, value in _plain(span.attributes).items()}
    events = [
        {
            "name": event.name,
            "time_unix_nano": event.time_unix_nano,
            "attributes": _plain(event.attributes),
        }
        for event in span.events
    ]
    attributes = {**attributes, REQUEST_ID: json_text(trace_id)}
    content = {
        "trace_id": _base64(_id(span.trace_id, TRACE_ID_BYTES)),
        "span_id": _base64(span_id),
        "parent_span_id": None if parent is None else _base64(parent),
        "name": span.name,
        "start_time_unix_nano": span.start_time_unix_nano,
        "end_time_unix_nano": span.end_time_unix_nano,
        "events": events,
        "status": {"code": f"STATUS_CODE_{status}", "message": span.status.message},
        "attributes": translate({key: _once(value) for key, value in attributes.items()}, events),
        "links": [_link(link) for link in span.links],
    }
    return ReadSpan(
        trace_id=trace_id,
        span_id=span_id.hex(),
        parent_span_id=None if parent is None else parent.hex(),
        name=span.name,
        status=status,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        content=content,
        resource=resource,
    )


def _link(link: Span.Link) -> Json:
    attributes = {
        key: _base64(value) if isinstance(value, bytes) else value
        for key, value in _plain(link.attributes).items()
    }
    return {
        "trace_id": f"tr-{_id(link.trace_id, TRACE_ID_BYTES, empty=True).hex()}",
        "span_id": _id(link.span_id, SPAN_ID_BYTES, empty=True).hex(),
        "attributes": attributes or None,
    }


def _id(raw: bytes, size: int, empty: bool = False) -> bytes:
    """An id in full length; shorter ones are numbers with leading zeros left out."""
    if (not raw and not empty) or len(raw.lstrip(b"\0")) > size:
        raise MalformedSpans(f"an id of {len(raw)} bytes")
    return raw.lstrip(b"\0").rjust(size, b"\0")


def _plain(attributes: Iterable[KeyValue]) -> Json:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    # The depth is bounded: protobuf refuses to parse about 100 messages in one another.
    kind = value.WhichOneof("value")
    match kind:
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: _value(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)


def json_text(value: object) -> str:
    """An attribute's value as JSON text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _once(value: str) -> str:
    """MLflow's clients send some values as JSON texts already; those are not quoted twice.

    Only texts that hold a string, list or object are taken for such: "1" stays a text.
    """
    try:
        inner = json.loads(value)
        if isinstance(inner, str) and isinstance(json.loads(inner), (str, dict, list)):
            return inner
    except (ValueError, RecursionError):
        return value
    return value


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
