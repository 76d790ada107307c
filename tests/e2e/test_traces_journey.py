"""Traces: what a traced application, a reviewer and MLflow's UI do with them."""

import gzip
import json
import urllib.request
import uuid

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Assessment, AssessmentSource, Expectation, Feedback, SpanType
from mlflow.exceptions import MlflowException
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData


@mlflow.trace(span_type=SpanType.RETRIEVER)
def retrieve(question: str) -> list[str]:
    """A child span."""
    return [f"about {question}"]


@mlflow.trace(name="answer", span_type=SpanType.CHAIN, attributes={"team": "red"})
def answer(question: str) -> dict[str, object]:
    """A root span with a child, and with tags, metadata and tokens of its own."""
    mlflow.update_current_trace(
        tags={"color": "blau"}, metadata={"release": "7"}, client_request_id="c-1"
    )
    documents = retrieve(question)
    with mlflow.start_span("model", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs({"messages": [{"role": "user", "content": question}]})
        span.set_attribute(
            "mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        )
        span.set_outputs("größer")
    return {"text": "größer", "documents": documents, "score": 0.5}


def traced(question: str) -> str:
    """Call the application once; the trace's id, when all of it has been sent."""
    answer(question)
    mlflow.flush_trace_async_logging()
    trace_id = mlflow.get_last_active_trace_id()
    assert trace_id is not None
    return trace_id


@pytest.mark.usefixtures("experiment_id")
def test_traced_call_comes_back_as_it_was() -> None:
    """Spans, their tree, inputs and outputs, attributes, tags, metadata and token usage."""
    trace = mlflow.get_trace(traced("how large?"))
    assert trace is not None
    by_name = {span.name: span for span in trace.data.spans}
    assert set(by_name) == {"answer", "retrieve", "model"}
    root = by_name["answer"]
    assert root.parent_id is None
    assert {by_name[name].parent_id for name in ("retrieve", "model")} == {root.span_id}
    assert root.inputs == {"question": "how large?"}
    assert root.outputs == {"text": "größer", "documents": ["about how large?"], "score": 0.5}
    assert root.span_type == SpanType.CHAIN
    assert root.get_attribute("team") == "red"
    assert root.status.status_code == "OK"
    assert trace.info.state == "OK"
    assert trace.info.tags["color"] == "blau"
    assert trace.info.tags["mlflow.traceName"] == "answer"
    assert trace.info.trace_metadata["release"] == "7"
    assert trace.info.client_request_id == "c-1"
    assert trace.info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert json.loads(trace.data.request) == {"question": "how large?"}


@pytest.mark.usefixtures("experiment_id")
def test_a_failing_call_is_an_error_with_its_exception() -> None:
    """The exception is an event of the span that raised it."""

    @mlflow.trace
    def fails() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        fails()
    mlflow.flush_trace_async_logging()
    trace_id = mlflow.get_last_active_trace_id()
    assert trace_id is not None
    trace = mlflow.get_trace(trace_id)
    assert trace is not None
    assert trace.info.state == "ERROR"
    (event,) = [e for e in trace.data.spans[0].events if e.name == "exception"]
    assert event.attributes["exception.message"] == "no such thing"


def test_search_by_tag_status_name_span_and_text(experiment_id: str) -> None:
    """Each filter finds the one trace that fits, with its spans."""
    wanted = traced("größe?")
    with mlflow.start_span("other") as span:
        span.set_inputs("nothing")
    mlflow.flush_trace_async_logging()
    for where in (
        "tags.color = 'blau'",
        "name = 'answer'",
        "attributes.name LIKE 'ans%'",
        "span.type = 'RETRIEVER'",
        "span.name = 'model' AND status = 'OK'",
        "metadata.release = '7'",
        "client_request_id = 'c-1'",
        "trace.text LIKE '%größe?%'",
        "span.attributes.team LIKE '%red%'",
    ):
        found = mlflow.search_traces(
            locations=[experiment_id], filter_string=where, return_type="list"
        )
        assert [trace.info.trace_id for trace in found] == [wanted], where
        assert len(found[0].data.spans) == 3
    everything = mlflow.search_traces(locations=[experiment_id], return_type="list")
    assert len(everything) == 2
    assert len(mlflow.search_traces(locations=[experiment_id], max_results=1)) == 1


@pytest.mark.usefixtures("experiment_id")
def test_feedback_and_expectations_are_kept_changed_and_removed() -> None:
    """A judgement of any JSON value; one that overrides another makes it invalid."""
    trace_id = traced("good?")
    source = AssessmentSource(source_type="HUMAN", source_id="ada")
    first = mlflow.log_feedback(
        trace_id=trace_id, name="good", value=False, source=source, rationale="too short"
    )
    first_id = str(first.assessment_id)
    mlflow.log_expectation(
        trace_id=trace_id, name="expected", value={"text": "größer", "least": 1}, source=source
    )
    second = mlflow.override_feedback(
        trace_id=trace_id, assessment_id=first_id, value=True, source=source
    )
    second_id = str(second.assessment_id)
    held = _assessments(trace_id)
    assert held[first_id].valid is False
    assert held[first_id].rationale == "too short"
    judged = held[second_id]
    assert isinstance(judged, Feedback)
    assert judged.value is True
    (expected,) = [a for a in held.values() if isinstance(a, Expectation)]
    assert expected.value == {"text": "größer", "least": 1}
    mlflow.update_assessment(
        trace_id=trace_id,
        assessment_id=second_id,
        assessment=Feedback(name="good", value=0.25, source=source),
    )
    changed = mlflow.get_assessment(trace_id, second_id)
    assert isinstance(changed, Feedback)
    assert changed.value == 0.25
    mlflow.delete_assessment(trace_id, second_id)
    held = _assessments(trace_id)
    assert second_id not in held
    assert held[first_id].valid is True


def _assessments(trace_id: str) -> dict[str, Assessment]:
    trace = mlflow.get_trace(trace_id)
    assert trace is not None
    return {str(a.assessment_id): a for a in trace.info.assessments}


def test_tags_runs_and_deletion(client: MlflowClient, experiment_id: str) -> None:
    """Tags set and removed later, links to runs both ways, deletion by id and by time."""
    trace_id = traced("tags?")
    client.set_trace_tag(trace_id, "reviewed", "yes")
    client.delete_trace_tag(trace_id, "color")
    tags = client.get_trace(trace_id).info.tags
    assert tags["reviewed"] == "yes"
    assert "color" not in tags
    run = client.create_run(experiment_id)
    client.link_traces_to_run([trace_id], run.info.run_id)
    linked = mlflow.search_traces(
        locations=[experiment_id], run_id=run.info.run_id, return_type="list"
    )
    assert [trace.info.trace_id for trace in linked] == [trace_id]
    with mlflow.start_run() as active:
        inside = traced("inside a run?")
    found = client.search_traces(
        locations=[experiment_id], filter_string=f"run_id = '{active.info.run_id}'"
    )
    assert [trace.info.trace_id for trace in found] == [inside]
    assert client.delete_traces(experiment_id, trace_ids=[trace_id]) == 1
    with pytest.raises(MlflowException, match="not found"):
        client.get_trace(trace_id)
    assert client.delete_traces(experiment_id, max_timestamp_millis=2**42) == 1


def test_spans_of_another_library_make_a_trace(experiment_id: str, tracking_uri: str) -> None:
    """OTLP without MLflow's client: the trace, its preview and tokens follow from the spans."""
    root = Span(span_id=b"\1" * 8, name="request", attributes=[_text("input.value", "how large?")])
    child = Span(span_id=b"\2" * 8, parent_span_id=root.span_id, name="chat")
    for kind, count in (("input", 5), ("output", 6)):
        tokens = AnyValue(int_value=count)
        child.attributes.append(KeyValue(key=f"gen_ai.usage.{kind}_tokens", value=tokens))
    for span in (root, child):
        span.trace_id = uuid.uuid4().bytes if span is root else root.trace_id
        span.start_time_unix_nano, span.end_time_unix_nano = 10**18, 10**18 + 1_500_000_000
    request = urllib.request.Request(f"{tracking_uri}/v1/traces", method="POST")
    request.add_header("content-type", "application/x-protobuf")
    request.add_header("content-encoding", "gzip")
    request.add_header("x-mlflow-experiment-id", experiment_id)
    for span in (child, root):
        group = ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])
        group.resource.attributes.append(_text("service.name", "shop"))
        request.data = gzip.compress(TracesData(resource_spans=[group]).SerializeToString())
        with urllib.request.urlopen(request, timeout=60) as sent:
            assert sent.status == 200
    (trace,) = mlflow.search_traces(locations=[experiment_id], return_type="list")
    assert [span.name for span in trace.data.spans] == ["request", "chat"]
    assert trace.info.state == "OK"
    assert trace.info.execution_duration == 1500
    assert trace.info.tags["service.name"] == "shop"
    assert trace.info.request_preview == '"how large?"'
    assert trace.info.token_usage == {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def test_unknown_trace_is_no_trace(client: MlflowClient) -> None:
    """Reading and judging what is not there says so."""
    unknown = f"tr-{uuid.uuid4().hex}"
    with pytest.raises(MlflowException, match="not found"):
        client.get_trace(unknown)
    with pytest.raises(MlflowException, match="not found"):
        mlflow.log_feedback(trace_id=unknown, name="good", value=True)
