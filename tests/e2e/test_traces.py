"""Traces: a call with nested spans, found, read back whole, tagged, judged and deleted."""

import time
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import (
    Assessment,
    AssessmentSource,
    SpanStatusCode,
    SpanType,
    Trace,
    TraceState,
)
from mlflow.exceptions import MlflowException

SOURCE = AssessmentSource(source_type="HUMAN", source_id="ana@example.com")


@mlflow.trace(span_type=SpanType.RETRIEVER, attributes={"index": "docs"})
def retrieve(question: str) -> list[str]:
    """The inner call."""
    return [f"about {question}", "größe"]


@mlflow.trace(name="answer")
def answer(question: str, limit: int = 2) -> dict[str, Any]:
    """The outer call."""
    found = retrieve(question)[:limit]
    with mlflow.start_span("compose", span_type=SpanType.LLM) as span:
        span.set_inputs({"documents": found})
        span.set_attribute("temperature", 0.5)
        span.set_outputs("text")
    return {"text": "text", "documents": len(found)}


@mlflow.trace
def breaks() -> None:
    """A call that fails."""
    raise ValueError("no such document")


def traces_of(experiment_id: str, **search: Any) -> list[Trace]:
    """The experiment's traces, of those that were sent."""
    found: list[Trace] = mlflow.search_traces(
        locations=[experiment_id], return_type="list", **search
    )
    return found


def id_of(assessment: Assessment) -> str:
    """The id that the server gave to an assessment."""
    assert assessment.assessment_id is not None
    return assessment.assessment_id


def judged(trace_id: str, assessment: Assessment) -> Any:
    """An assessment as the server has it now."""
    return mlflow.get_assessment(trace_id, id_of(assessment))


def test_a_traced_call_is_kept_whole(client: MlflowClient, experiment_id: str) -> None:
    before_ms = int(time.time() * 1000) - 1
    answer("cats")
    mlflow.flush_trace_async_logging()
    (found,) = traces_of(experiment_id)
    trace = mlflow.get_trace(found.info.trace_id)
    assert trace is not None
    assert trace.info.state == TraceState.OK
    assert trace.info.experiment_id == experiment_id
    assert before_ms <= trace.info.request_time <= time.time() * 1000
    assert trace.info.execution_duration is not None
    assert trace.info.tags["mlflow.traceName"] == "answer"
    for read in (trace, found):
        spans = {span.name: span for span in read.data.spans}
        assert set(spans) == {"answer", "retrieve", "compose"}
        root = spans["answer"]
        assert root.parent_id is None
        assert spans["retrieve"].parent_id == spans["compose"].parent_id == root.span_id
        assert root.inputs == {"question": "cats", "limit": 2}
        assert root.outputs == {"text": "text", "documents": 2}
        assert spans["retrieve"].outputs == ["about cats", "größe"]
        assert spans["retrieve"].span_type == SpanType.RETRIEVER
        assert spans["retrieve"].attributes["index"] == "docs"
        assert spans["compose"].attributes["temperature"] == 0.5
        assert all(span.status.status_code == SpanStatusCode.OK for span in spans.values())
        ends_ns = [span.end_time_ns for span in spans.values() if span.end_time_ns is not None]
        assert len(ends_ns) == 3
        assert root.start_time_ns <= spans["retrieve"].start_time_ns <= max(ends_ns)
        assert root.end_time_ns == max(ends_ns)
    by_client = client.get_trace(found.info.trace_id)
    assert by_client.to_dict() == trace.to_dict()


def test_a_failing_call_is_kept_too(experiment_id: str) -> None:
    with pytest.raises(ValueError, match="no such document"):
        breaks()
    mlflow.flush_trace_async_logging()
    (trace,) = traces_of(experiment_id, filter_string="status = 'ERROR'")
    assert trace.info.state == TraceState.ERROR
    (span,) = trace.data.spans
    assert span.status.status_code == SpanStatusCode.ERROR
    (event,) = [event for event in span.events if event.name == "exception"]
    assert event.attributes["exception.message"] == "no such document"
    assert traces_of(experiment_id, filter_string="status = 'OK'") == []


def test_traces_are_tagged_and_found(client: MlflowClient, experiment_id: str) -> None:
    answers = {}
    for question in ("cats", "dogs", "birds"):
        answer(question)
        answers[question] = mlflow.get_last_active_trace_id()
    mlflow.flush_trace_async_logging()
    mlflow.set_trace_tag(answers["cats"], "kind", "pet")
    client.set_trace_tag(answers["dogs"], "kind", "pet")
    client.set_trace_tag(answers["birds"], "kind", "wild")
    client.set_trace_tag(answers["birds"], "gone", "soon")
    client.delete_trace_tag(answers["birds"], "gone")
    oldest_first = ["timestamp_ms ASC"]
    pets = traces_of(experiment_id, filter_string="tags.kind = 'pet'", order_by=oldest_first)
    assert {trace.info.trace_id for trace in pets} == {answers["cats"], answers["dogs"]}
    assert pets[0].info.request_time <= pets[1].info.request_time
    (wild,) = traces_of(experiment_id, filter_string="tags.kind = 'wild'")
    assert "gone" not in wild.info.tags
    named = traces_of(experiment_id, filter_string="name = 'answer'", max_results=2)
    assert len(named) == 2
    assert traces_of(experiment_id, filter_string="name = 'other'") == []
    frame = mlflow.search_traces(locations=[experiment_id], order_by=oldest_first)
    assert sorted(frame["trace_id"]) == sorted(map(str, answers.values()))
    assert frame["request_time"].is_monotonic_increasing


def test_traces_are_paged(client: MlflowClient, experiment_id: str) -> None:
    for number in range(7):
        with mlflow.start_span(f"call {number}"):
            pass
    mlflow.flush_trace_async_logging()
    names: list[str] = []
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            max_results=3,
            order_by=["timestamp_ms ASC"],
            page_token=token,
        )
        names += [trace.info.tags["mlflow.traceName"] for trace in page]
        token = page.token
        if not token:
            break
    assert sorted(names) == [f"call {number}" for number in range(7)]


def test_a_trace_knows_its_run_session_and_client(experiment_id: str) -> None:
    with mlflow.start_run() as run, mlflow.start_span("chat"):
        mlflow.update_current_trace(
            tags={"env": "test"}, metadata={"version": "v1"}, client_request_id="request-7"
        )
    answer("outside of the run")
    mlflow.flush_trace_async_logging()
    (trace,) = traces_of(experiment_id, run_id=run.info.run_id)
    assert trace.info.client_request_id == "request-7"
    assert trace.info.tags["env"] == "test"
    assert trace.info.trace_metadata["version"] == "v1"
    assert trace.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
    for filter_string in (
        "client_request_id = 'request-7'",
        "metadata.version = 'v1'",
        f"attributes.run_id = '{run.info.run_id}'",
    ):
        (found,) = traces_of(experiment_id, filter_string=filter_string)
        assert found.info.trace_id == trace.info.trace_id


def test_traces_are_judged(experiment_id: str) -> None:
    answer("cats")
    mlflow.flush_trace_async_logging()
    (trace,) = traces_of(experiment_id)
    trace_id = trace.info.trace_id
    good = mlflow.log_feedback(
        trace_id=trace_id, name="good", value=True, source=SOURCE, rationale="it is right"
    )
    mlflow.log_feedback(trace_id=trace_id, name="score", value=0.75)
    truth = mlflow.log_expectation(trace_id=trace_id, name="text", value={"a": [1]}, source=SOURCE)
    read = judged(trace_id, good)
    assert (read.name, read.value, read.rationale) == ("good", True, "it is right")
    assert read.source.source_id == "ana@example.com"
    (found,) = traces_of(experiment_id)
    given: list[Any] = found.info.assessments
    assert {one.name: one.value for one in given} == {
        "good": True,
        "score": 0.75,
        "text": {"a": [1]},
    }
    mlflow.update_assessment(
        trace_id, id_of(truth), mlflow.entities.Expectation(name="text", value="changed")
    )
    assert judged(trace_id, truth).value == "changed"
    mlflow.override_feedback(
        trace_id=trace_id, assessment_id=id_of(good), value=False, source=SOURCE
    )
    (found,) = traces_of(experiment_id)
    feedback: list[Any] = found.search_assessments("good", all=True)
    assert {(one.value, one.valid) for one in feedback} == {(True, False), (False, True)}
    (found,) = traces_of(experiment_id, filter_string="feedback.score = '0.75'")
    assert found.info.trace_id == trace_id
    mlflow.delete_assessment(trace_id, id_of(truth))
    with pytest.raises(MlflowException) as gone:
        judged(trace_id, truth)
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_traces_are_deleted(client: MlflowClient, experiment_id: str) -> None:
    for question in ("a", "b", "c"):
        answer(question)
    mlflow.flush_trace_async_logging()
    traces = traces_of(experiment_id, order_by=["timestamp_ms ASC"])
    first = traces[0].info.trace_id
    assert client.delete_traces(experiment_id, trace_ids=[first]) == 1
    assert len(traces_of(experiment_id)) == 2
    assert mlflow.get_trace(first, silent=True) is None
    later_ms = int(time.time() * 1000) + 60_000
    assert client.delete_traces(experiment_id, max_timestamp_millis=later_ms, max_traces=10) == 2
    assert traces_of(experiment_id) == []


def test_a_trace_by_the_low_level_client(client: MlflowClient, experiment_id: str) -> None:
    root = mlflow.start_span_no_context("root", inputs={"x": 1}, tags={"by": "hand"})
    child = mlflow.start_span_no_context("child", parent_span=root, attributes={"k": "v"})
    child.end(outputs={"y": 2})
    root.end(outputs={"z": 3}, status="OK")
    mlflow.flush_trace_async_logging()
    (trace,) = traces_of(experiment_id)
    assert trace.info.trace_id == root.trace_id
    assert trace.info.tags["by"] == "hand"
    (inner,) = trace.search_spans(name="child")
    assert inner.parent_id == root.span_id
    assert inner.attributes["k"] == "v"
    assert inner.outputs == {"y": 2}


def test_what_is_no_trace_is_said(client: MlflowClient, experiment_id: str) -> None:
    with pytest.raises(MlflowException, match="not found") as told:
        client.get_trace("tr-" + "0" * 32)
    assert told.value.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
    with pytest.raises(MlflowException) as wrong:
        mlflow.search_traces(locations=[experiment_id], filter_string="nonsense ~ 3")
    assert wrong.value.error_code == "INVALID_PARAMETER_VALUE"
