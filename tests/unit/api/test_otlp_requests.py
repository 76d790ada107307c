"""POST /v1/traces: what a request comes to, and what it is refused with."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.spans import ERROR, START_NS, TRACE, span, traces_data
from muniment_schemas.events import SpansSummary
from muniment_services.api.errors import ApiError
from muniment_services.api.otlp import SPANS_BYTES_MAX, ExportRequest, Refused, read_request
from muniment_services.api.span_summary import preview
from muniment_services.domain.errors import Invalid

HEADERS = {b"content-type": b"application/x-protobuf", b"x-mlflow-experiment-id": b"7"}
BODY = traces_data([span(1)]).SerializeToString()


def requested(*spans: Span, resource: Mapping[str, Any] | None = None) -> ExportRequest:
    return read_request(HEADERS, traces_data(spans, resource).SerializeToString())


def summary_of(*spans: Span, resource: Mapping[str, Any] | None = None) -> SpansSummary:
    (command,) = requested(*spans, resource=resource).commands
    return command.summary


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"", BODY),
        (b"gzip", gzip.compress(BODY, mtime=0)),
        (b"GZIP", gzip.compress(BODY, mtime=0)),
        (b"deflate", zlib.compress(BODY)),
        (b"deflate", zlib.compress(BODY, wbits=-15)),
    ],
)
def test_bodies_may_be_compressed(encoding: bytes, body: bytes) -> None:
    (command,) = read_request({**HEADERS, b"content-encoding": encoding}, body).commands
    assert (command.trace_id, command.experiment_id) == (f"tr-{TRACE}", "7")
    assert (command.span_count, command.resource_spans) == (1, BODY)


def test_json_has_ids_in_hex() -> None:
    plain = {
        "traceId": TRACE,
        "spanId": "0000000000000001",
        "name": "j",
        "startTimeUnixNano": str(START_NS),
        "attributes": [{"key": "a", "value": {"intValue": "5"}}],
        "unknownField": 1,
    }
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [plain]}]}]}
    headers = {**HEADERS, b"content-type": b"application/json; charset=utf-8"}
    (command,) = read_request(headers, json.dumps(body).encode()).commands
    assert command.trace_id == f"tr-{TRACE}"
    assert command.summary.first_start_ms == START_NS // 1_000_000


@pytest.mark.parametrize(
    ("headers", "body", "status", "detail"),
    [
        ({b"content-encoding": b"gzip"}, b"x", 400, "Failed to decompress gzip payload"),
        (
            {b"content-encoding": b"gzip"},
            gzip.compress(BODY, mtime=0)[:-9],
            400,
            "Failed to decompress",
        ),
        ({b"content-encoding": b"deflate"}, b"xx", 400, "Failed to decompress deflate payload"),
        ({b"content-encoding": b"br"}, b"x", 400, "Unsupported Content-Encoding: br"),
        ({b"content-type": b"text/plain"}, BODY, 400, "Invalid Content-Type: text/plain. Expected"),
        ({}, b"\xff\xff garbage", 400, "Invalid OpenTelemetry format"),
        ({}, b"", 400, "Invalid OpenTelemetry format - no spans found"),
        ({b"content-type": b"application/json"}, b"{nope", 400, "Invalid OpenTelemetry format"),
        ({b"content-type": b"application/json"}, b"[1]", 400, "Invalid OpenTelemetry format"),
        ({b"content-type": b"application/json"}, b"{}", 400, "no spans found"),
        (
            {b"content-type": b"application/json"},
            b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}',
            400,
            "Invalid OpenTelemetry format",
        ),
        (
            {},
            traces_data([Span(name="no ids")]).SerializeToString(),
            422,
            "Cannot convert OpenTelemetry span to MLflow span",
        ),
    ],
)
def test_refusals(headers: Mapping[bytes, bytes], body: bytes, status: int, detail: str) -> None:
    with pytest.raises(Refused) as raised:
        read_request({**HEADERS, **headers}, body)
    assert raised.value.status == status
    assert detail in str(raised.value.detail)


def test_the_experiment_header_is_required_as_fastapi_says_it() -> None:
    with pytest.raises(Refused) as raised:
        read_request({b"content-type": HEADERS[b"content-type"]}, BODY)
    assert raised.value.status == 422
    place = ["header", "x-mlflow-experiment-id"]
    missing = {"type": "missing", "loc": place, "msg": "Field required", "input": None}
    assert raised.value.detail == [missing]


def test_a_small_body_that_unpacks_without_end_is_refused() -> None:
    bomb = gzip.compress(bytes(SPANS_BYTES_MAX + 1))
    with pytest.raises(ApiError) as raised:
        read_request({**HEADERS, b"content-encoding": b"gzip"}, bomb)
    assert raised.value.error_code == "REQUEST_TOO_LARGE"


def test_each_trace_is_a_command_of_its_own() -> None:
    other = "f" * 32
    request = requested(span(1), span(2, trace=other, parent=9), span(3, parent=1))
    assert [(c.trace_id, c.span_count) for c in request.commands] == [
        (f"tr-{TRACE}", 2),
        (f"tr-{other}", 1),
    ]
    assert request.roots == (f"tr-{TRACE}",)


def test_times_state_and_previews_follow_from_the_root() -> None:
    found = summary_of(
        span(2, parent=1, took_ms=0),
        span(1, status=ERROR, mlflow__spanInputs={"x": 1}, mlflow__spanOutputs="out"),
    )
    start_ms = START_NS // 1_000_000
    assert (found.first_start_ms, found.last_end_ms) == (start_ms, start_ms + 1500)
    assert found.root_state == "ERROR"
    assert (found.request_preview, found.response_preview) == ('{"x": 1}', '"out"')
    alone = summary_of(span(2, parent=1, took_ms=0))
    assert (alone.root_state, alone.last_end_ms, alone.request_preview) == (None, None, None)


def test_tags_come_from_the_resource_and_over_it_from_the_root() -> None:
    found = summary_of(
        span(1, mlflow__traceTag__team="red", mlflow__traceTag__both="span"),
        span(2, parent=1, mlflow__traceTag__other="no"),
        resource={
            "service.name": "shop",
            "both": "resource",
            "many": [1, 2],
            "long": "v" * 5000,
            "telemetry.sdk.name": "otel",
            "mlflow.trace.spansLocation": "no",
            "bad!key": "x",
            "k" * 251: "x",
        },
    )
    assert found.tags == {
        "service.name": "shop",
        "both": "span",
        "many": "[1, 2]",
        "long": "v" * 4096,
        "team": "red",
    }


def test_session_user_tokens_and_cost() -> None:
    found = summary_of(
        span(1, user__id="u", gen_ai__conversation__id="s"),
        span(
            2,
            parent=1,
            session__id="later",
            mlflow__chat__tokenUsage={"input_tokens": 3, "odd": "x"},
            mlflow__llm__cost={"total_cost": 0.25},
        ),
    )
    assert (found.session_id, found.user_id) == ("s", "u")
    root, child = found.usages
    assert (root.tokens, root.cost, root.parent_span_id) == (None, None, None)
    assert (child.tokens, child.cost) == ({"input_tokens": 3}, {"total_cost": 0.25})
    with pytest.raises(Invalid, match="'Session ID' exceeds"):
        summary_of(span(1, session__id="s" * 251))


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "x", "content": "y"}]}, "hi"),
        ({"messages": [{"role": "x", "content": "only"}]}, "only"),
        ({"choices": [{"message": {"role": "assistant", "content": "yes"}}]}, "yes"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "part"}]}]}, "part"),
        ({"output": [{"role": "user", "content": ["first", "second"]}]}, "first"),
        ({"request": {"input": [{"role": "user", "content": "inner"}]}}, "inner"),
        ({"messages": []}, '{"messages": []}'),
        ({"messages": ["x"]}, '{"messages": ["x"]}'),
        ({"messages": [{"role": "user", "content": None}]}, None),
        ([1], "[1]"),
        ("a" * 2000, '"' + "a" * 996 + "..."),
    ],
)
def test_previews_show_the_last_message(body: Any, shown: str | None) -> None:
    text = json.dumps(body)
    assert preview(text, "user") == (text if shown is None else shown)
