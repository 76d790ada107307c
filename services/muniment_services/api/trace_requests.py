"""Traces and assessments out of JSON bodies.

MLflow reads a body field by field in the order of the JSON, and goes on with what it has when a
field cannot be read. So does this.
Source: MLflow 3.17 server answers; ProtoJSON mapping.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from muniment_services.api.errors import ApiError
from muniment_services.api.wire_traces import duration_ms, time_ms
from muniment_services.domain.assessment import (
    Assessment,
    AssessmentError,
    Expectation,
    Feedback,
    IssueReference,
    SerializedValue,
    Source,
    rfc3339,
)
from muniment_services.domain.trace import STATES

JSON_FORMAT = "JSON_FORMAT"
SOURCE_UNSPECIFIED = "SOURCE_TYPE_UNSPECIFIED"
_SOURCE_TYPES = {name: name for name in (SOURCE_UNSPECIFIED, "HUMAN", "LLM_JUDGE", "CODE")} | {
    "AI_JUDGE": "LLM_JUDGE"
}
_VALUES = ("feedback", "expectation", "issue")
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


class _Unreadable(ValueError):
    """A field's value does not have its type."""


def snake(name: str) -> str:
    """A ProtoJSON name as the proto has it."""
    return _CAMEL.sub(lambda match: f"_{match[1].lower()}", name)


def info_fields(trace: object) -> dict[str, Any]:
    """What a body's `trace` says of its trace_info, by field name: ids, times in ms, texts."""
    info = trace.get("trace_info", trace.get("traceInfo")) if isinstance(trace, dict) else None
    fields: dict[str, Any] = {}
    for name, raw in _fields(info):
        reader = _INFO_READERS.get(name)
        if reader is None:
            continue
        try:
            fields[name] = reader(raw)
        except ValueError:
            if name == "execution_duration":
                fields[name] = 0
            break
    return fields


def assessment_of(raw: object) -> Assessment:
    """An assessment; id and times are empty texts where it has none. Raises ApiError."""
    try:
        return _assessment(raw)
    except ValueError as error:
        raise ApiError("INVALID_PARAMETER_VALUE", str(error)) from None


def update_mask(raw: object) -> set[str]:
    """The fields that a mask ("a,bC") names. Raises ApiError."""
    if not isinstance(raw, str):
        raise ApiError("INVALID_PARAMETER_VALUE", "'update_mask' must be a text of field names.")
    return {snake(path.strip()) for path in raw.split(",")}


def assessment_changes(raw: object, mask: set[str]) -> dict[str, Any]:
    """What an update changes: name, feedback, expectation, rationale, metadata. Raises ApiError."""
    given = dict(_fields(raw))
    readers: dict[str, tuple[str, Callable[[Any], Any], Any]] = {
        "assessment_name": ("name", _text, ""),
        "feedback": ("feedback", _feedback, {}),
        "expectation": ("expectation", _expectation, {}),
        "rationale": ("rationale", _text, ""),
        "metadata": ("metadata", _texts, {}),
    }
    try:
        return {
            name: read(given.get(field, default))
            for field, (name, read, default) in readers.items()
            if field in mask
        }
    except ValueError as error:
        raise ApiError("INVALID_PARAMETER_VALUE", str(error)) from None


def _fields(raw: object) -> Iterator[tuple[str, Any]]:
    """An object's fields in order, names as the proto has them; null counts as absent."""
    for name, value in raw.items() if isinstance(raw, dict) else ():
        if value is not None:
            yield snake(name), value


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise _Unreadable(f"{json.dumps(raw, default=str)} is not a text")
    return raw


def _texts(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise _Unreadable(f"{json.dumps(raw, default=str)} is not a map of texts")
    return {key: _text(value) for key, value in raw.items()}


def _state(raw: object) -> str:
    return raw if isinstance(raw, str) and raw in STATES else "STATE_UNSPECIFIED"


def _location(raw: object) -> str:
    place = dict(_fields(raw)).get("mlflow_experiment")
    return _text(dict(_fields(place)).get("experiment_id", ""))


def _assessments(raw: object) -> tuple[Assessment, ...]:
    if not isinstance(raw, list):
        raise _Unreadable("assessments are a list")
    return tuple(_assessment(item) for item in raw)


_INFO_READERS: Mapping[str, Callable[[Any], Any]] = {
    "trace_id": _text,
    "client_request_id": _text,
    "trace_location": _location,
    "request_preview": _text,
    "response_preview": _text,
    "request_time": lambda raw: time_ms(_text(raw)),
    "execution_duration": lambda raw: duration_ms(_text(raw)),
    "state": _state,
    "trace_metadata": _texts,
    "tags": _texts,
    "assessments": _assessments,
}


def _assessment(raw: object) -> Assessment:
    given = dict(_fields(raw))
    kind = next((name for name in given if name in _VALUES), None)
    if kind is None:
        raise _Unreadable("Unknown assessment type: None")
    common: dict[str, Any] = {
        "assessment_id": _text(given.get("assessment_id", "")),
        "assessment_name": _text(given.get("assessment_name", "")),
        "trace_id": _text(given.get("trace_id", "")),
        "span_id": _text(given.get("span_id", "")) or UNSET,
        "source": _source(given.get("source")),
        "create_time": _time(given.get("create_time")),
        "last_update_time": _time(given.get("last_update_time")),
        "metadata": _texts(given.get("metadata", {})) or UNSET,
    }
    rationale = _text(given.get("rationale", "")) or UNSET
    value = given[kind]
    if kind == "feedback":
        overrides = _text(given.get("overrides", "")) or UNSET
        return Assessment(
            **common, feedback=_feedback(value), rationale=rationale, overrides=overrides
        )
    if kind == "expectation":
        return Assessment(**common, expectation=_expectation(value))
    name = _text(dict(_fields(value)).get("issue_name", ""))
    return Assessment(**common, issue=IssueReference(issue_name=name), rationale=rationale)


def _time(raw: object) -> str:
    return "" if raw is None else rfc3339(time_ms(_text(raw)))


def _source(raw: object) -> Source:
    given = dict(_fields(raw))
    source_type = given.get("source_type")
    return Source(
        source_type=_SOURCE_TYPES.get(str(source_type), SOURCE_UNSPECIFIED),
        source_id=_text(given.get("source_id", "")) or UNSET,
    )


def _feedback(raw: object) -> Feedback:
    given = dict(_fields(raw))
    return Feedback(value=_as_doubles(given.get("value")), error=_error(given.get("error")))


def _error(raw: object) -> AssessmentError | UnsetType:
    if raw is None:
        return UNSET
    given = dict(_fields(raw))
    return AssessmentError(
        error_code=_text(given.get("error_code", "")),
        error_message=_text(given.get("error_message", "")) or UNSET,
        stack_trace=_text(given.get("stack_trace", "")) or UNSET,
    )


def _expectation(raw: object) -> Expectation:
    given = dict(_fields(raw))
    if "serialized_value" in given:
        value = _deserialized(dict(_fields(given["serialized_value"])))
    else:
        value = _as_doubles(given.get("value"))
    if isinstance(value, (list, dict)):
        return Expectation(
            serialized_value=SerializedValue(
                serialization_format=JSON_FORMAT, value=json.dumps(value)
            )
        )
    return Expectation(value=_as_doubles(value))


def _deserialized(given: Mapping[str, Any]) -> Any:
    form = given.get("serialization_format", "")
    if form != JSON_FORMAT:
        raise _Unreadable(f"Unknown serialization format: {form}. Only {JSON_FORMAT} is supported.")
    try:
        return json.loads(_text(given.get("value", "")))
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"The serialized value is no JSON: {error}") from None


def _as_doubles(value: Any) -> Any:
    """Numbers as protobuf's Value has them: doubles all."""
    match value:
        case bool() | None | str():
            return value
        case int() | float():
            return float(value)
        case list():
            return [_as_doubles(item) for item in value]
        case dict():
            return {key: _as_doubles(item) for key, item in value.items()}
    raise _Unreadable(f"{value!r} is no JSON")
