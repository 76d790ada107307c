"""Spans from protobuf to MLflow's JSON of a span, other libraries' conventions included."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from harness.spans import ERROR, START_NS, TRACE, key_values, span, traces_data
from muniment_projections.traces.otlp import (
    MalformedSpans,
    ReadSpan,
    content_text,
    parse,
    read,
    split,
)


def read_one(one: Span) -> ReadSpan:
    (found,) = read(traces_data([one]))
    return found


def attributes(**given: Any) -> dict[str, str]:
    return dict(read_one(span(1, **given)).attributes)


def test_a_span_as_mlflow_keeps_it() -> None:
    one = span(2, parent=1, name="größe", status=ERROR)
    one.status.message = "failed"
    one.events.add(name="exc", time_unix_nano=START_NS, attributes=key_values({"k": 3}))
    one.links.add(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)
    found = read_one(one)
    assert found.content == {
        "trace_id": "ASNFZ4mrze8BI0VniavN7w==",
        "span_id": "AAAAAAAAAAI=",
        "parent_span_id": "AAAAAAAAAAE=",
        "name": "größe",
        "start_time_unix_nano": START_NS,
        "end_time_unix_nano": START_NS + 1_500_000_000,
        "events": [{"name": "exc", "time_unix_nano": START_NS, "attributes": {"k": 3}}],
        "status": {"code": "STATUS_CODE_ERROR", "message": "failed"},
        "attributes": {"mlflow.traceRequestId": f'"tr-{TRACE}"'},
        "links": [{"trace_id": f"tr-{'ab' * 16}", "span_id": "cd" * 8, "attributes": None}],
    }
    assert (found.trace_id, found.span_id) == (f"tr-{TRACE}", "0000000000000002")
    assert (found.parent_span_id, found.status) == ("0000000000000001", "ERROR")
    assert "größe" in content_text(found.content)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", '"plain"'),
        (3, "3"),
        (1.5, "1.5"),
        (True, "true"),
        (["a", 1], '["a", 1]'),
        ({"q": {"r": None}}, '{"q": {"r": null}}'),
        (b"\0", "\"b'\\\\x00'\""),
        (None, "null"),
        ('{"a":1}', '{"a":1}'),
        ('"quoted"', '"quoted"'),
        ("[1]", "[1]"),
        ("7", '"7"'),
        ("true", '"true"'),
        ("größe", '"größe"'),
    ],
)
def test_values_are_json_texts_quoted_once(value: Any, text: str) -> None:
    assert attributes(x=value)["x"] == text


def test_short_ids_are_numbers_and_long_or_missing_ones_are_refused() -> None:
    one = span(1)
    one.trace_id = b"\1\2"
    assert read_one(one).trace_id == f"tr-{258:032x}"
    for field, value in (("trace_id", b""), ("span_id", b""), ("trace_id", b"x" * 17)):
        bad = span(1)
        setattr(bad, field, value)
        with pytest.raises(MalformedSpans):
            read_one(bad)


def test_texts_nested_without_end_stay_texts() -> None:
    deep = "[" * 100_000
    assert attributes(x=deep, input__value=deep)["x"] == json.dumps(deep)


def test_bytes_that_are_no_spans_are_refused() -> None:
    with pytest.raises(MalformedSpans):
        parse(b"\xff\xff\xff garbage")
    assert parse(b"") == TracesData()


def test_an_unknown_status_counts_as_unset() -> None:
    for code in (-1, 0, 7):
        assert read_one(span(1, status=code)).status == "UNSET"


def test_traces_are_split_with_their_resource() -> None:
    other = "f" * 32
    data = traces_data([span(1), span(2, trace=other), span(3, parent=1)], {"service.name": "shop"})
    data.resource_spans[0].scope_spans[0].scope.name = "library"
    parts = {trace_id: parse(part) for trace_id, part in split(data).items()}
    assert [s.span_id for s in read(parts[f"tr-{TRACE}"])] == [f"{1:016x}", f"{3:016x}"]
    (alone,) = read(parts[f"tr-{other}"])
    assert alone.resource == {"service.name": "shop"}
    assert parts[f"tr-{other}"].resource_spans[0].scope_spans[0].scope.name == "library"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (
            {
                "openinference__span__kind": "LLM",
                "llm__token_count__prompt": 3,
                "llm__token_count__completion": 4,
                "llm__token_count__prompt_details__cache_read": 1,
                "input__value": "hello",
                "output__value": "bye",
                "llm__model_name": "m",
                "llm__provider": "p",
            },
            {
                "mlflow.spanType": "LLM",
                "mlflow.spanInputs": "hello",
                "mlflow.spanOutputs": "bye",
                "mlflow.chat.tokenUsage": {
                    "input_tokens": 3,
                    "output_tokens": 4,
                    "total_tokens": 7,
                    "cache_read_input_tokens": 1,
                },
                "mlflow.llm.model": "m",
                "mlflow.llm.provider": "p",
            },
        ),
        (
            {
                "gen_ai__operation__name": "chat",
                "gen_ai__usage__input_tokens": "5",
                "gen_ai__usage__cache_creation__input_tokens": 2,
                "gen_ai__input__messages": '[{"role": "user", "content": "hi"}]',
                "gen_ai__request__model": "asked",
                "gen_ai__response__model": "got",
            },
            {
                "mlflow.spanType": "CHAT_MODEL",
                "mlflow.spanInputs": [{"role": "user", "content": "hi"}],
                "mlflow.chat.tokenUsage": {"input_tokens": 5, "cache_creation_input_tokens": 2},
                "mlflow.llm.model": "got",
            },
        ),
        (
            {
                "traceloop__span__kind": "workflow",
                "traceloop__entity__input": "{}",
                "gen_ai__prompt__0__content": "q",
                "gen_ai__usage__prompt_tokens": 1,
                "gen_ai__system": "openai",
            },
            {
                "mlflow.spanType": "WORKFLOW",
                "mlflow.spanInputs": "q",
                "mlflow.chat.tokenUsage": {"input_tokens": 1},
                "mlflow.llm.provider": "openai",
            },
        ),
        (
            {
                "mlflow__spanType": "UNKNOWN",
                "openinference__span__kind": "TOOL",
                "mlflow__spanInputs": {"model": "in"},
            },
            {
                "mlflow.spanType": "TOOL",
                "mlflow.spanInputs": {"model": "in"},
                "mlflow.llm.model": "in",
            },
        ),
        (
            {"mlflow__spanType": "CHAIN", "openinference__span__kind": "TOOL"},
            {"mlflow.spanType": "CHAIN"},
        ),
        ({"openinference__span__kind": "NONSENSE"}, {}),
    ],
)
def test_conventions(given: dict[str, Any], added: dict[str, Any]) -> None:
    found = {key: json.loads(value) for key, value in attributes(**given).items()}
    ours = {key: value for key, value in found.items() if key.startswith("mlflow.")}
    assert ours.pop("mlflow.traceRequestId") == f"tr-{TRACE}"
    assert ours == added
    for key in given:
        assert key.replace("__", ".") in found


def test_messages_in_events_are_inputs_and_outputs() -> None:
    one = span(1)
    said = (("gen_ai.system.message", "be kind"), ("gen_ai.user.message", "hi"))
    for name, content in (*said, ("gen_ai.choice", "hello"), ("other", "x")):
        one.events.add(name=name, attributes=key_values({"content": content}))
    found = read_one(one).attributes
    assert json.loads(found["mlflow.spanInputs"]) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
    ]
    assert json.loads(found["mlflow.spanOutputs"]) == [{"role": "assistant", "content": "hello"}]
