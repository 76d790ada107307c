"""Bodies to traces and assessments, as leniently as MLflow reads them; states back to JSON."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.spans import OK, key_values, span, traces_data
from muniment_projections.traces.otlp import read
from muniment_services.api.errors import ApiError
from muniment_services.api.trace_requests import (
    assessment_changes,
    assessment_of,
    info_fields,
    update_mask,
)
from muniment_services.api.wire_traces import VALUE_DEPTH_MAX, duration, duration_ms, time_ms
from muniment_services.api.wire_traces import span as wire_span


def fields(**info: Any) -> dict[str, Any]:
    return info_fields({"trace_info": info})


def test_all_fields_of_an_info() -> None:
    found = fields(
        trace_id="tr-1",
        traceLocation={"mlflowExperiment": {"experimentId": "7"}},
        request_time="2024-03-01T12:00:00.123456789+02:00",
        execution_duration="1.5s",
        state="OK",
        request_preview="q",
        trace_metadata={"k": "v"},
        tags={"t": "u"},
        client_request_id=None,
        unknown=1,
    )
    assert found == {
        "trace_id": "tr-1",
        "trace_location": "7",
        "request_time": 1_709_287_200_123,
        "execution_duration": 1500,
        "state": "OK",
        "request_preview": "q",
        "trace_metadata": {"k": "v"},
        "tags": {"t": "u"},
    }


def test_reading_ends_at_a_field_that_cannot_be_read() -> None:
    assert fields(state="OK", request_time="yesterday", tags={"a": "b"}) == {"state": "OK"}
    assert fields(execution_duration="long", state="OK") == {"execution_duration": 0}
    assert fields(trace_metadata="x", state="OK") == {}
    assert fields(tags={"a": 1}) == {}
    assert fields(state="NOPE") == {"state": "STATE_UNSPECIFIED"}
    assert info_fields({}) == info_fields("x") == info_fields({"trace_info": []}) == {}


def read_back(**raw: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(assessment_of({"assessment_name": "n", **raw}))
    return found


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ({"feedback": {"value": 1}}, {"feedback": {"value": 1.0}}),
        ({"feedback": {"value": [1, {"a": 2}]}}, {"feedback": {"value": [1.0, {"a": 2.0}]}}),
        (
            {"feedback": {"error": {"error_code": "E", "stack_trace": ""}}},
            {"feedback": {"value": None, "error": {"error_code": "E"}}},
        ),
        ({"expectation": {"value": "x"}}, {"expectation": {"value": "x"}}),
        (
            {"expectation": {"value": {"a": [1, None]}}},
            {
                "expectation": {
                    "serialized_value": {
                        "serialization_format": "JSON_FORMAT",
                        "value": '{"a": [1.0, null]}',
                    }
                }
            },
        ),
        (
            {
                "expectation": {
                    "serializedValue": {"serializationFormat": "JSON_FORMAT", "value": '{"a":1}'}
                }
            },
            {
                "expectation": {
                    "serialized_value": {
                        "serialization_format": "JSON_FORMAT",
                        "value": '{"a": 1}',
                    }
                }
            },
        ),
        ({"issue": {"issue_name": "slow"}}, {"issue": {"issue_name": "slow"}}),
        ({"feedback": {"value": 1}, "expectation": {"value": 2}}, {"feedback": {"value": 1.0}}),
    ],
)
def test_values(raw: dict[str, Any], kept: dict[str, Any]) -> None:
    found = read_back(**raw)
    assert {
        kind: found[kind] for kind in ("feedback", "expectation", "issue") if kind in found
    } == (kept)


def test_the_other_fields_of_an_assessment() -> None:
    found = read_back(
        feedback={},
        source={"source_type": "AI_JUDGE", "source_id": ""},
        create_time="2024-03-01T10:00:00.500Z",
        metadata={},
        span_id="",
        rationale="",
        overrides="a-1",
    )
    assert found["source"] == {"source_type": "LLM_JUDGE"}
    assert found["create_time"] == "2024-03-01T10:00:00.500Z"
    assert found["overrides"] == "a-1"
    assert found.keys().isdisjoint({"metadata", "span_id", "rationale"})
    assert read_back(feedback={}, source={"source_type": "NOPE"})["source"] == {
        "source_type": "SOURCE_TYPE_UNSPECIFIED"
    }


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "Unknown assessment type: None"),
        ("x", "Unknown assessment type: None"),
        ({"feedback": {}, "assessment_name": 1}, "1 is not a text"),
        ({"feedback": {}, "metadata": {"a": 1}}, "1 is not a text"),
        (
            {"expectation": {"serialized_value": {"serialization_format": "X", "value": "1"}}},
            "Unknown serialization format: X. Only JSON_FORMAT is supported.",
        ),
        (
            {
                "expectation": {
                    "serialized_value": {"serialization_format": "JSON_FORMAT", "value": "{"}
                }
            },
            "The serialized value is no JSON",
        ),
    ],
)
def test_assessments_that_cannot_be_read(raw: object, message: str) -> None:
    with pytest.raises(ApiError) as raised:
        assessment_of(raw)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert message in raised.value.message


def test_an_update_says_what_its_mask_names() -> None:
    mask = update_mask("assessmentName,rationale, metadata,nope")
    raw = {"assessment_name": "n", "feedback": {"value": 1}, "metadata": {"a": "b"}}
    assert assessment_changes(raw, mask) == {
        "name": "n",
        "rationale": "",
        "metadata": {"a": "b"},
    }
    with pytest.raises(ApiError):
        update_mask(["feedback"])
    with pytest.raises(ApiError):
        assessment_changes({"rationale": 1}, {"rationale"})


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (1500, "1.500s"), (2000, "2s"), (-1, "-0.001s"), (7, "0.007s")]
)
def test_durations(ms: int, text: str) -> None:
    assert duration(ms) == text
    assert duration_ms(text) == ms


def test_times() -> None:
    assert time_ms("2024-03-01T10:00:00.25Z") == 1_709_287_200_250
    with pytest.raises(ValueError):
        time_ms("yesterday")


def test_a_span_goes_out_as_it_came_in() -> None:
    one = span(2, parent=1, status=OK, i=3, f=1.5, b=True, l=["a"], d={"q": 1}, e=[], s="7", z=None)
    one.events.add(name="exc", time_unix_nano=5, attributes=key_values({"k": 3}))
    one.links.add(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8, attributes=key_values({"x": "y"}))
    (kept,) = read(traces_data([one]))
    found = wire_span(kept.content)
    values = {item["key"]: item["value"] for item in found["attributes"]}
    assert values.pop("mlflow.traceRequestId") == {"string_value": kept.trace_id}
    assert values == {
        "i": {"int_value": 3},
        "f": {"double_value": 1.5},
        "b": {"bool_value": True},
        "l": {"array_value": {"values": [{"string_value": "a"}]}},
        "d": {"kvlist_value": {"values": [{"key": "q", "value": {"int_value": 1}}]}},
        "e": {"array_value": {}},
        "s": {"string_value": "7"},
        "z": {},
    }
    assert found["status"] == {"code": "STATUS_CODE_OK"}
    assert found["events"] == [
        {
            "time_unix_nano": 5,
            "name": "exc",
            "attributes": [{"key": "k", "value": {"int_value": 3}}],
        }
    ]
    assert found["links"][0]["trace_id"] == "q6urq6urq6urq6urq6urqw=="


def test_numbers_that_otlp_cannot_write() -> None:
    (kept,) = read(traces_data([span(1, n='{"big": 99999999999999999999, "odd": NaN}')]))
    (item,) = [i for i in wire_span(kept.content)["attributes"] if i["key"] == "n"]
    pairs = {p["key"]: p["value"] for p in item["value"]["kvlist_value"]["values"]}
    assert pairs == {"big": {"double_value": 1e20}, "odd": {"double_value": "NaN"}}


def test_values_nested_too_deep_go_out_as_texts() -> None:
    (kept,) = read(traces_data([span(1, n="[" * 300 + "]" * 300)]))
    (item,) = [i for i in wire_span(kept.content)["attributes"] if i["key"] == "n"]
    value, depth = item["value"], 0
    while "array_value" in value:
        value, depth = value["array_value"]["values"][0], depth + 1
    assert depth == VALUE_DEPTH_MAX
    left = 300 - VALUE_DEPTH_MAX
    assert value == {"string_value": "[" * left + "]" * left}


def test_a_span_without_end_parent_or_status() -> None:
    (kept,) = read(traces_data([span(1, took_ms=0)]))
    found = wire_span(kept.content)
    assert found["status"] == {}
    assert found.keys().isdisjoint({"end_time_unix_nano", "parent_span_id", "events", "links"})
