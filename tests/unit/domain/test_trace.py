"""Traces: info and spans in any order, tags, links, deletion, with MLflow's rules and words."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.documents import parse
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.experiment import CreateExperiment, DeleteExperiment
from muniment_services.domain.spans import SPANS_COUNTED_MAX, merged, total
from muniment_services.domain.trace import KIND, Trace, evolve, find
from muniment_services.domain.trace_data import (
    BeginTrace,
    DeleteTrace,
    DeleteTraceTag,
    EndTrace,
    LinkPrompts,
    LinkTraceToRun,
    LogSpans,
    SetTraceTag,
    StartTrace,
    TraceCommand,
)

ID = "tr-0123456789abcdef0123456789abcdef"
LOCATION = f"root:/1/traces/{ID}/artifacts"


def new_world() -> TestWorld:
    world = TestWorld()
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    return world


def info(**more: Any) -> StartTrace:
    fields: dict[str, Any] = {
        "trace_id": ID,
        "experiment_id": "1",
        "request_time_ms": 1000,
        "execution_duration_ms": 50,
        "state": "OK",
        "metadata": {},
        "tags": {},
    }
    return StartTrace(**{**fields, **more})


def summary(**more: Any) -> e.SpansSummary:
    fields: dict[str, Any] = {"first_start_ms": 2000, "tags": {}, "usages": ()}
    return e.SpansSummary(**{**fields, **more})


def spans(given_summary: e.SpansSummary | None = None, experiment_id: str = "1") -> LogSpans:
    return LogSpans(
        trace_id=ID,
        experiment_id=experiment_id,
        span_count=1,
        resource_spans=b"",
        summary=given_summary or summary(),
    )


def trace_of(world: TestWorld) -> Trace:
    found = find(world.state, ID)
    assert found is not None
    return found


def test_info_alone() -> None:
    world = new_world()
    world.do(info(client_request_id="c", request_preview="q", metadata={"k": "v"}, tags={"t": "1"}))
    made = trace_of(world)
    assert (made.request_time_ms, made.execution_duration_ms, made.state) == (1000, 50, "OK")
    assert (made.client_request_id, made.request_preview, made.response_preview) == ("c", "q", None)
    assert made.metadata == {"k": "v", "mlflow.trace.infoFinalized": "true"}
    assert made.tags == {"t": "1", "mlflow.artifactLocation": LOCATION}
    assert not made.has_spans


def test_spans_alone_make_a_trace() -> None:
    world = new_world()
    world.do(
        spans(
            summary(
                last_end_ms=2600,
                root_state="ERROR",
                request_preview="q",
                session_id="s",
                user_id="u",
                tags={"service.name": "shop"},
            )
        )
    )
    made = trace_of(world)
    assert (made.request_time_ms, made.execution_duration_ms, made.state) == (2000, 600, "ERROR")
    assert made.request_preview == "q"
    assert made.metadata == {"mlflow.trace.session": "s", "mlflow.trace.user": "u"}
    assert made.tags == {
        "service.name": "shop",
        "mlflow.artifactLocation": LOCATION,
        "mlflow.trace.spansLocation": "TRACKING_STORE",
    }


def test_without_its_root_a_trace_is_in_progress_and_the_root_ends_it() -> None:
    world = new_world()
    world.do(spans())
    assert trace_of(world).state == "IN_PROGRESS"
    assert trace_of(world).execution_duration_ms is None
    world.do(spans(summary(first_start_ms=1900, last_end_ms=2500, root_state="OK")))
    ended = trace_of(world)
    assert (ended.state, ended.request_time_ms, ended.execution_duration_ms) == ("OK", 1900, 600)


ARRIVALS: tuple[TraceCommand, ...] = (
    info(
        state="IN_PROGRESS",
        tags={"both": "info", "mlflow.trace.spansLocation": "ARTIFACT_REPO"},
        metadata={"mlflow.trace.user": "info"},
    ),
    spans(
        summary(
            last_end_ms=2600,
            root_state="OK",
            request_preview="root's",
            user_id="spans",
            session_id="s",
            tags={"both": "spans", "only": "spans"},
            usages=(e.SpanUsage(span_id="1", tokens={"input_tokens": 1}),),
        )
    ),
    spans(
        summary(
            first_start_ms=1500,
            usages=(e.SpanUsage(span_id="2", parent_span_id="1", tokens={"input_tokens": 5}),),
        )
    ),
    LinkTraceToRun(trace_id=ID, run_id="r1"),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(ARRIVALS)))))
def test_the_order_of_arrival_makes_no_difference(order: tuple[int, ...]) -> None:
    world = new_world()
    for index in order:
        world.do(ARRIVALS[index])
    made = trace_of(world)
    assert (made.request_time_ms, made.execution_duration_ms, made.state) == (1000, 50, "OK")
    assert made.request_preview == "root's"
    assert made.experiment_id == "1"
    assert made.run_ids == ("r1",)
    assert made.tags == {
        "both": "info",
        "only": "spans",
        "mlflow.artifactLocation": LOCATION,
        "mlflow.trace.spansLocation": "TRACKING_STORE",
    }
    assert made.metadata == {
        "mlflow.trace.user": "info",
        "mlflow.trace.session": "s",
        "mlflow.trace.infoFinalized": "true",
        "mlflow.trace.tokenUsage": json.dumps(
            {"input_tokens": 1, "output_tokens": 0, "total_tokens": 0}
        ),
    }


def test_a_second_info_replaces_what_it_says_and_adds_to_the_rest() -> None:
    world = new_world()
    world.do(info(request_preview="q", metadata={"a": "1"}, tags={"t": "1"}, state="IN_PROGRESS"))
    world.do(info(execution_duration_ms=9, metadata={"b": "2"}, tags={"late": "1"}))
    made = trace_of(world)
    assert (made.state, made.execution_duration_ms, made.request_preview) == ("OK", 9, "q")
    assert made.metadata.keys() == {"a", "b", "mlflow.trace.infoFinalized"}
    assert made.tags.keys() == {"t", "late", "mlflow.artifactLocation"}


def test_tokens_and_cost_of_the_info_are_checked_and_count() -> None:
    world = new_world()
    usage = {"total_tokens": "7", "input_tokens": 3.0, "output_tokens": 1.5, "other": 1}
    given_cost = {"total_cost": 0.5, "input_cost": float("inf")}
    world.do(
        info(
            metadata={
                "mlflow.trace.tokenUsage": json.dumps(usage),
                "mlflow.trace.cost": json.dumps(given_cost),
            }
        )
    )
    world.do(spans(summary(usages=(e.SpanUsage(span_id="1", tokens={"input_tokens": 99}),))))
    assert trace_of(world).metadata == {
        "mlflow.trace.tokenUsage": '{"input_tokens": 3, "total_tokens": 7}',
        "mlflow.trace.cost": '{"total_cost": 0.5}',
        "mlflow.trace.infoFinalized": "true",
    }


def test_usage_that_is_no_object_is_left_out() -> None:
    world = new_world()
    world.do(info(metadata={"mlflow.trace.tokenUsage": "[1]", "mlflow.trace.cost": "{"}))
    assert trace_of(world).metadata == {"mlflow.trace.infoFinalized": "true"}


def test_a_parent_that_reports_stands_for_all_below_it() -> None:
    nodes = {
        "root": (None, None),
        "agent": ("root", {"input_tokens": 10}),
        "step": ("agent", None),
        "call": ("step", {"input_tokens": 10}),
        "other": ("root", {"input_tokens": 1, "output_tokens": 2}),
        "orphan": ("elsewhere", {"input_tokens": 100}),
    }
    assert total(nodes, 0) == {"input_tokens": 111, "output_tokens": 2}
    assert total({"root": (None, None)}, 0) is None


def test_spans_in_a_ring_end() -> None:
    ring: dict[str, tuple[str | None, dict[str, int] | None]] = {
        "a": ("b", None),
        "b": ("a", None),
        "c": ("a", {"input_tokens": 1}),
    }
    assert total(ring, 0) == {"input_tokens": 1}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=12), st.randoms())
def test_usage_does_not_depend_on_how_spans_are_batched(
    given_spans: list[tuple[int, int]], chance: Any
) -> None:
    """Spans numbered i below i // 2; the same number again replaces nothing different."""
    usages = {
        f"{i}": e.SpanUsage(
            span_id=f"{i}",
            parent_span_id=f"{i // 2}" if i else None,
            tokens={"input_tokens": tokens},
        )
        for i, tokens in given_spans
    }
    at_once = merged(None, summary(usages=tuple(usages.values())))
    shuffled = list(usages.values())
    chance.shuffle(shuffled)
    one_by_one = merged(None, summary())
    for usage in shuffled:
        one_by_one = merged(one_by_one, summary(usages=(usage,)))
    assert one_by_one.metadata == (at_once.metadata if usages else {})


def test_a_span_beyond_the_limit_is_not_counted() -> None:
    many = tuple(e.SpanUsage(span_id=f"{i}") for i in range(SPANS_COUNTED_MAX))
    full = merged(None, summary(usages=many))
    more = merged(full, summary(usages=(e.SpanUsage(span_id="new", tokens={"input_tokens": 1}),)))
    assert len(more.usages) == SPANS_COUNTED_MAX
    assert more.metadata == {}


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (info(experiment_id="9"), NotFound, "No Experiment with id=9 exists"),
        (spans(experiment_id="9"), NotFound, "No Experiment with id=9 exists"),
        (
            spans(experiment_id="x"),
            Invalid,
            "Invalid experiment ID 'x'. Experiment ID must be a valid integer.",
        ),
        (
            info(tags={"mlflow.traceName": "n" * 4097}),
            Invalid,
            "'Trace name' exceeds the maximum length of 4096 characters",
        ),
        (
            info(metadata={"mlflow.trace.session": "s" * 251}),
            Invalid,
            "'Session ID' exceeds the maximum length of 250 characters",
        ),
        (
            info(request_time_ms=2**60),
            Invalid,
            f"A trace cannot begin at {2**60} ms since 1970.",
        ),
        (
            SetTraceTag(trace_id=ID, key="a", value="1"),
            NotFound,
            f"Trace with ID '{ID}' not found.",
        ),
        (
            SetTraceTag(trace_id=ID, key="mlflow.trace.spansLocation", value="x"),
            Invalid,
            "Tag 'mlflow.trace.spansLocation' is immutable and cannot be set on a trace.",
        ),
        (
            DeleteTraceTag(trace_id=ID, key="mlflow.trace.spansLocation"),
            Invalid,
            "Tag 'mlflow.trace.spansLocation' is immutable and cannot be deleted on a trace.",
        ),
        (
            DeleteTraceTag(trace_id=ID, key="a"),
            NotFound,
            f"No trace tag with key 'a' for trace with ID '{ID}'",
        ),
        (
            LinkPrompts(trace_id=ID, prompts=("p/1",)),
            NotFound,
            f"Trace with ID '{ID}' not found.",
        ),
    ],
)
def test_refusals(command: Any, error: type[Invalid | NotFound], message: str) -> None:
    world = new_world()
    with pytest.raises(error) as raised:
        world.do(command)
    assert raised.value.message == message


def test_a_deleted_experiment_takes_no_info_but_late_spans_of_its_traces() -> None:
    world = new_world()
    world.do(info())
    world.do(DeleteExperiment(experiment_id="1"))
    with pytest.raises(Invalid, match="must be in the 'active' state"):
        world.do(info())
    assert world.do(spans()) is not None


def test_spans_of_a_known_trace_stay_in_its_experiment() -> None:
    world = new_world()
    world.do(info())
    world.do(spans(experiment_id="77"))
    assert trace_of(world).experiment_id == "1"


def test_tags_are_set_cut_and_deleted() -> None:
    world = new_world()
    world.do(info())
    world.do(SetTraceTag(trace_id=ID, key="k", value="v" * 5000))
    assert trace_of(world).tags["k"] == "v" * 4096
    with pytest.raises(Invalid, match="'key' exceeds the maximum length of 250 characters"):
        world.do(SetTraceTag(trace_id=ID, key="k" * 251, value=""))
    world.do(DeleteTraceTag(trace_id=ID, key="k"))
    assert "k" not in trace_of(world).tags


def test_links_are_kept_once_and_before_the_trace_is_known() -> None:
    world = new_world()
    world.do(LinkTraceToRun(trace_id=ID, run_id="r"))
    assert find(world.state, ID) is None
    assert world.decide(LinkTraceToRun(trace_id=ID, run_id="r")) is None
    world.do(info())
    world.do(LinkPrompts(trace_id=ID, prompts=("p/1", "q/2")))
    assert world.decide(LinkPrompts(trace_id=ID, prompts=("p/1",))) is None
    assert (trace_of(world).run_ids, trace_of(world).prompts) == (("r",), ("p/1", "q/2"))


def test_deletion_is_of_one_experiment_and_for_good() -> None:
    world = new_world()
    world.do(info())
    assert world.decide(DeleteTrace(trace_id=ID, experiment_id="2")) is None
    world.do(DeleteTrace(trace_id=ID, experiment_id="1"))
    assert find(world.state, ID) is None
    assert world.decide(DeleteTrace(trace_id=ID, experiment_id="1")) is None


def test_events_of_a_trace_that_is_gone_are_void() -> None:
    world = new_world()
    world.do(info())
    tagged = world.decide(SetTraceTag(trace_id=ID, key="a", value="1"))
    world.do(DeleteTrace(trace_id=ID, experiment_id="1"))
    assert tagged is not None
    with pytest.raises(Void):
        evolve(None, tagged)


def test_a_trace_of_api_2_is_begun_and_ended() -> None:
    world = new_world()
    begun = world.do(
        BeginTrace(experiment_id="1", request_time_ms=1000, metadata={"a": "b"}, tags={"t": "u"})
    )
    assert isinstance(begun, Trace)
    assert (begun.state, begun.metadata) == ("IN_PROGRESS", {"a": "b"})
    ended = world.do(
        EndTrace(
            trace_id=begun.trace_id,
            end_time_ms=3000,
            state="OK",
            metadata={"c": "d"},
            tags={"v": "w"},
        )
    )
    assert isinstance(ended, Trace)
    assert (ended.state, ended.execution_duration_ms) == ("OK", 2000)
    assert ended.metadata == {"a": "b", "c": "d"}
    assert ended.tags.keys() == {"t", "v", "mlflow.artifactLocation"}


def test_a_state_survives_its_document() -> None:
    world = new_world()
    for command in ARRIVALS:
        world.do(command)
    state = world.state.get(KIND, ID)
    assert state is not None
    assert parse(KIND, msgspec.msgpack.encode(state)) == state
