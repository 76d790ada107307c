"""POST /v1/traces: spans by OTLP over HTTP, protobuf or JSON, plain or compressed.

Each trace in a request becomes one event. Refusals look as MLflow's do, `{"detail": …}`.
Source: OTLP 1.x, OTLP/HTTP; answers of MLflow 3.17's server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from muniment_auth.permissions import Permission as P
from muniment_projections.traces.otlp import MalformedSpans, ReadSpan, parse, read, split
from muniment_services.api.errors import ApiError
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.api.span_summary import summarise
from muniment_services.api.submissions import submit_each
from muniment_services.domain.trace_data import LinkTraceToRun, LogSpans

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
EXPERIMENT_HEADER = b"x-mlflow-experiment-id"
RUN_HEADER = b"x-mlflow-run-id"

SPANS_BYTES_MAX = 20 * 1024 * 1024
"""Largest request after decompression; one trace of it must fit into a record of the log."""

INLINE_BYTES_MAX = 64 * 1024
"""Larger requests are read in a thread, so that others do not wait for it."""

_ID_FIELDS = ("traceId", "spanId", "parentSpanId")


class Refused(Exception):
    """A request that is answered as FastAPI would: a status and a detail."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request. commands: one per trace. roots: traces whose root span is among the spans."""

    commands: tuple[LogSpans, ...]
    roots: tuple[str, ...]


async def export(call: Call) -> Answer:
    """POST /v1/traces."""
    try:
        if len(call.body) > INLINE_BYTES_MAX:
            request = await asyncio.to_thread(read_request, call.headers, call.body)
        else:
            request = read_request(call.headers, call.body)
    except Refused as refused:
        body = msgspec.json.encode({"detail": refused.detail})
        return Answer(body, status=refused.status)
    await submit_each(call, request.commands)
    run_id = call.headers.get(RUN_HEADER, b"").decode("latin-1")
    if run_id:
        links = [LinkTraceToRun(trace_id=trace_id, run_id=run_id) for trace_id in request.roots]
        await submit_each(call, links)
    return Answer(b"", content_type=PROTOBUF)


def read_request(headers: Mapping[bytes, bytes], body: bytes) -> ExportRequest:
    """The commands that a request comes to. Raises Refused, ApiError (size), Invalid (session)."""
    experiment_id = headers.get(EXPERIMENT_HEADER)
    if experiment_id is None:
        place = ["header", EXPERIMENT_HEADER.decode()]
        missing = {"type": "missing", "loc": place, "msg": "Field required", "input": None}
        raise Refused(422, [missing])
    data = _data(headers, body)
    if not data.resource_spans:
        raise Refused(400, "Invalid OpenTelemetry format - no spans found")
    try:
        spans = list(read(data))
        parts = split(data)
    except MalformedSpans:
        raise Refused(422, "Cannot convert OpenTelemetry span to MLflow span") from None
    by_trace: dict[str, list[ReadSpan]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    roots = dict.fromkeys(span.trace_id for span in spans if span.parent_span_id is None)
    return ExportRequest(
        commands=tuple(
            LogSpans(
                trace_id=trace_id,
                experiment_id=experiment_id.decode("latin-1"),
                span_count=len(of_trace),
                resource_spans=parts[trace_id],
                summary=summarise(of_trace),
            )
            for trace_id, of_trace in by_trace.items()
        ),
        roots=tuple(roots),
    )


def _data(headers: Mapping[bytes, bytes], body: bytes) -> TracesData:
    content_type = headers.get(b"content-type")
    given = None if content_type is None else content_type.decode("latin-1")
    media_type = (given or "").partition(";")[0].strip()
    if media_type not in (PROTOBUF, JSON):
        raise Refused(400, f"Invalid Content-Type: {given}. Expected: {PROTOBUF} or {JSON}")
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").lower()
    if encoding:
        body = _decompressed(body, encoding)
    try:
        return parse(body) if media_type == PROTOBUF else _from_json(body)
    except (MalformedSpans, json_format.ParseError, ValueError, RecursionError):
        raise Refused(400, "Invalid OpenTelemetry format") from None


def _decompressed(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            windows: tuple[int, ...] = (16 + zlib.MAX_WBITS,)
        case "deflate":
            windows = (zlib.MAX_WBITS, -zlib.MAX_WBITS)
        case _:
            raise Refused(400, f"Unsupported Content-Encoding: {encoding}")
    for window in windows:
        try:
            inflater = zlib.decompressobj(window)
            plain = inflater.decompress(body, SPANS_BYTES_MAX + 1)
        except zlib.error:
            continue
        if len(plain) > SPANS_BYTES_MAX:
            raise ApiError(
                "REQUEST_TOO_LARGE",
                f"The spans are larger than {SPANS_BYTES_MAX} bytes when unpacked; "
                "send them in several requests.",
            )
        if inflater.eof:
            return plain
    raise Refused(400, f"Failed to decompress {encoding} payload")


def _from_json(body: bytes) -> TracesData:
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("not an object")
    for span in _json_spans(data):
        # OTLP writes ids in hex where ProtoJSON has base64.
        for field in _ID_FIELDS:
            if isinstance(span.get(field), str):
                span[field] = base64.b64encode(bytes.fromhex(span[field])).decode()
    parsed: TracesData = json_format.ParseDict(data, TracesData(), ignore_unknown_fields=True)
    return parsed


def _json_spans(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for resource_spans in _objects(data.get("resourceSpans")):
        for scope_spans in _objects(resource_spans.get("scopeSpans")):
            yield from _objects(scope_spans.get("spans"))


def _objects(value: object) -> Iterator[dict[str, Any]]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


ROUTES = (Route("POST", "/v1/traces", P.TRACE_WRITE, export),)
