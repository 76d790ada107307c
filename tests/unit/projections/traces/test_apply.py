"""The tables of traces: they follow the fold whatever the batches, and answer searches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.spans import span, traces_data
from harness.world import TestWorld
from muniment_projections.base import Connection, Folded
from muniment_projections.search.entities.traces import TRACES
from muniment_projections.search.page import Search, search
from muniment_projections.search.predicate import Predicate
from muniment_projections.traces.apply import TracesProjection
from muniment_projections.traces.reader import find_documents, find_spans, oldest
from muniment_services.api.otlp import read_request
from muniment_services.documents import parse
from muniment_services.domain.assessment import Assessment, Feedback, Source
from muniment_services.domain.assessment_data import CreateAssessment
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.trace import KIND, Trace
from muniment_services.domain.trace_data import (
    DeleteTrace,
    LinkPrompts,
    LinkTraceToRun,
    SetTraceTag,
    StartTrace,
)
from muniment_services.state import CurrentState

A, B, C = (letter * 32 for letter in "abc")
SCOPE = Predicate("t.experiment_id = '1'")


def sent(world: TestWorld, *spans: Span) -> None:
    headers = {b"content-type": b"application/x-protobuf", b"x-mlflow-experiment-id": b"1"}
    for command in read_request(headers, traces_data(spans).SerializeToString()).commands:
        world.do(command)


def info(trace: str, at_ms: int, **tags: str) -> StartTrace:
    return StartTrace(
        trace_id=f"tr-{trace}",
        experiment_id="1",
        request_time_ms=at_ms,
        state="OK",
        metadata={"k": "v"},
        tags=tags,
    )


def history() -> TestWorld:
    """a: spans in two requests, one of them sent twice, then its info. b: deleted, and come back
    with one span. c: only linked."""
    world = TestWorld()
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    sent(world, span(2, parent=1, trace=A, name="child", mlflow__spanType="LLM"))
    sent(world, span(1, trace=A, name="first", mlflow__spanInputs="größe?"))
    sent(world, span(1, trace=A, name="root", mlflow__spanInputs="größe?", color="blau"))
    world.do(info(A, 1000, team="x"))
    world.do(LinkTraceToRun(trace_id=f"tr-{A}", run_id="r"))
    world.do(LinkPrompts(trace_id=f"tr-{A}", prompts=("p/1",)))
    judged = Assessment(
        assessment_id="",
        assessment_name="good",
        trace_id="",
        source=Source(source_type="HUMAN"),
        create_time="",
        last_update_time="",
        feedback=Feedback(value=0.5),
    )
    world.do(CreateAssessment(trace_id=f"tr-{A}", assessment=judged))
    sent(world, span(1, trace=B), span(2, trace=B), span(3, trace=B))
    world.do(SetTraceTag(trace_id=f"tr-{B}", key="t", value="1"))
    world.do(DeleteTrace(trace_id=f"tr-{B}", experiment_id="1"))
    sent(world, span(9, trace=B, name="late"))
    world.do(info(B, 500))
    world.do(LinkTraceToRun(trace_id=f"tr-{C}", run_id="r"))
    return world


def folded(world: TestWorld) -> list[Folded]:
    state = CurrentState()
    pairs = zip(world.records, world.events, strict=True)
    return [state.fold(record, event) for record, event in pairs]


def written(connection: Connection, items: Sequence[Folded], size: int) -> None:
    projection = TracesProjection()
    projection.create(connection)
    for begin in range(0, len(items), size):
        projection.apply(connection, items[begin : begin + size])


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with duckdb.connect(":memory:") as opened:
        items = folded(history())
        written(opened, items, len(items))
        yield opened


def contents(connection: Connection) -> list[list[tuple[object, ...]]]:
    return [
        sorted(connection.execute(f"FROM {table}").fetchall(), key=repr)
        for table in ("traces", "trace_spans")
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_tables_do_not_depend_on_batches(connection: Connection, size: int) -> None:
    with duckdb.connect(":memory:") as other:
        written(other, folded(history()), size)
        assert contents(other) == contents(connection)


def test_documents_are_the_states(connection: Connection) -> None:
    world = history()
    ids = [f"tr-{letter}" for letter in (A, B, C)]
    found = find_documents(connection, [*ids, "tr-unknown"])
    assert {key: parse(KIND, text) for key, text in found.items()} == {
        trace_id: world.state.get(KIND, trace_id) for trace_id in ids
    }


def test_spans_come_back_roots_first_the_last_one_sent(connection: Connection) -> None:
    found = find_spans(connection, [f"tr-{A}", f"tr-{B}"])
    assert [['"name": "root"' in text, '"name": "child"' in text] for text in found[f"tr-{A}"]] == [
        [True, False],
        [False, True],
    ]
    assert len(found[f"tr-{B}"]) == 1
    assert '"name": "late"' in found[f"tr-{B}"][0]


def test_the_oldest_are_found(connection: Connection) -> None:
    assert oldest(connection, "1", 10**6, 10) == [f"tr-{B}", f"tr-{A}"]
    assert oldest(connection, "1", 10**6, 1) == [f"tr-{B}"]
    assert oldest(connection, "1", 600, 10) == [f"tr-{B}"]
    assert oldest(connection, "", 600, 10) == [f"tr-{C}"]


@pytest.mark.parametrize(
    "where",
    [
        "tags.team = 'x'",
        "metadata.k = 'v' AND timestamp_ms > 600",
        "span.name = 'child' AND span.type = 'LLM'",
        "span.attributes.color LIKE '%blau%'",
        "trace.text LIKE '%größe?%'",
        "feedback.good > 0.4",
        "feedback.good = '0.5'",
        "run_id = 'r'",
        "prompt = 'p/1'",
        "status = 'OK' AND tags.team IS NOT NULL",
    ],
)
def test_searches_find_the_one_that_fits(connection: Connection, where: str) -> None:
    page = search(connection, TRACES, Search(filter=where, scope=SCOPE))
    states = [parse(KIND, document) for document in page.documents]
    assert [s.trace_id for s in states if isinstance(s, Trace)] == [f"tr-{A}"]


def test_what_is_only_linked_is_in_no_search(connection: Connection) -> None:
    page = search(connection, TRACES, Search(scope=SCOPE))
    states = [parse(KIND, document) for document in page.documents]
    assert [s.trace_id for s in states if isinstance(s, Trace)] == [f"tr-{A}", f"tr-{B}"]
