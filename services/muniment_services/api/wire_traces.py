"""Traces, spans and assessments to MLflow's JSON, and the times in both directions.

Source: MLflow 3.17 REST API (TraceInfo, OTLP spans in snake_case, ProtoJSON times).
"""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from muniment_services.api.wire import Json, without_none
from muniment_services.domain.assessment import rfc3339
from muniment_services.domain.limits import INT64_MAX, INT64_MIN
from muniment_services.domain.trace import Trace

EXPERIMENT_LOCATION = "MLFLOW_EXPERIMENT"

VALUE_DEPTH_MAX = 30
"""Lists and objects of an attribute's value that are written as such; protobuf, which clients read
answers with, takes about 100 messages in one another, and each of these is up to three.
"""


def time_ms(text: str) -> int:
    """An RFC 3339 time as milliseconds since 1970. Raises ValueError."""
    timestamp = Timestamp()
    timestamp.FromJsonString(text)
    return int(timestamp.ToMilliseconds())


def duration_ms(text: str) -> int:
    """A ProtoJSON duration ("1.5s") as milliseconds. Raises ValueError."""
    duration = Duration()
    duration.FromJsonString(text)
    return int(duration.ToMilliseconds())


def duration(ms: int) -> str:
    """Milliseconds as a ProtoJSON duration: no fraction, or three digits."""
    sign, ms = ("-", -ms) if ms < 0 else ("", ms)
    seconds, millis = divmod(ms, 1000)
    return f"{sign}{seconds}.{millis:03d}s" if millis else f"{sign}{seconds}s"


def trace_info(trace: Trace) -> Json:
    """MLflow's TraceInfo."""
    took_ms = trace.execution_duration_ms
    metadata, tags = trace.metadata, trace.tags
    return without_none(
        trace_id=trace.trace_id,
        client_request_id=trace.client_request_id,
        trace_location={
            "type": EXPERIMENT_LOCATION,
            "mlflow_experiment": {"experiment_id": trace.experiment_id},
        },
        request_time=rfc3339(trace.request_time_ms),
        execution_duration=None if took_ms is None else duration(took_ms),
        state=trace.state,
        trace_metadata=metadata or None,
        tags=tags or None,
        request_preview=trace.request_preview,
        response_preview=trace.response_preview,
        assessments=list(trace.assessments.values()) or None,
    )


def trace_info_v2(trace: Trace) -> Json:
    """TraceInfo of API 2.0: milliseconds, lists of {key, value}, no previews."""
    state = trace.state
    return {
        "request_id": trace.trace_id,
        "experiment_id": trace.experiment_id,
        "timestamp_ms": trace.request_time_ms,
        "execution_time_ms": trace.execution_duration_ms or 0,
        "status": "TRACE_STATUS_UNSPECIFIED" if state == "STATE_UNSPECIFIED" else state,
        "request_metadata": _pairs(trace.metadata),
        "tags": _pairs(trace.tags),
    }


def _pairs(entries: dict[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in entries.items()]


def trace_with_spans(trace: Trace, spans: list[str]) -> Json:
    """MLflow's Trace. spans: each as the JSON text that is kept of it."""
    answer: Json = {"trace_info": trace_info(trace)}
    if spans:
        answer["spans"] = [span(json.loads(content)) for content in spans]
    return answer


def span(content: Json) -> Json:
    """A span as OTLP has it, of what is kept. Unset fields are left out; times are numbers."""
    answer: Json = {"trace_id": content["trace_id"], "span_id": content["span_id"]}
    if content["parent_span_id"]:
        answer["parent_span_id"] = content["parent_span_id"]
    answer["name"] = content["name"]
    answer["start_time_unix_nano"] = content["start_time_unix_nano"]
    if content["end_time_unix_nano"]:
        answer["end_time_unix_nano"] = content["end_time_unix_nano"]
    attributes = {key: _loaded(text) for key, text in content["attributes"].items()}
    answer["attributes"] = _key_values(attributes)
    if content["events"]:
        answer["events"] = [_event(event) for event in content["events"]]
    if content["links"]:
        answer["links"] = [_link(link) for link in content["links"]]
    status: Json = {}
    if content["status"]["message"]:
        status["message"] = content["status"]["message"]
    if content["status"]["code"] != "STATUS_CODE_UNSET":
        status["code"] = content["status"]["code"]
    answer["status"] = status
    return answer


def _event(event: Json) -> Json:
    answer = {"time_unix_nano": event["time_unix_nano"], "name": event["name"]}
    if event["attributes"]:
        answer["attributes"] = _key_values(event["attributes"])
    return answer


def _link(link: Json) -> Json:
    answer: Json = {
        "trace_id": base64.b64encode(bytes.fromhex(link["trace_id"].removeprefix("tr-"))).decode(),
        "span_id": base64.b64encode(bytes.fromhex(link["span_id"])).decode(),
    }
    if link["attributes"]:
        answer["attributes"] = _key_values(link["attributes"])
    return answer


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _key_values(entries: Json, depth: int = 0) -> list[Json]:
    return [{"key": key, "value": _any_value(value, depth)} for key, value in entries.items()]


def _any_value(value: Any, depth: int) -> Json:
    """OTLP's AnyValue. Integers beyond 64 bits become doubles, what is nested too deep a text."""
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int():
            if INT64_MIN <= value <= INT64_MAX:
                return {"int_value": value}
            return {"double_value": float(value)}
        case float():
            return {"double_value": _double(value)}
        case list() | dict() if depth >= VALUE_DEPTH_MAX:
            return {"string_value": json.dumps(value)}
        case list():
            items = [_any_value(item, depth + 1) for item in value]
            return {"array_value": {"values": items} if items else {}}
        case dict():
            pairs = _key_values(value, depth + 1)
            return {"kvlist_value": {"values": pairs} if pairs else {}}
    raise AssertionError(f"{type(value).__name__} does not come out of JSON")


def _double(value: float) -> float | str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value
