"""Assessments: made, overridden, changed, removed; what the search table reads of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import UNSET

from harness.world import TestWorld
from muniment_services.domain.assessment import (
    Assessment,
    Expectation,
    Feedback,
    IssueReference,
    SerializedValue,
    Source,
    dumped,
    parsed,
    rfc3339,
)
from muniment_services.domain.assessment_data import (
    CreateAssessment,
    DeleteAssessment,
    UpdateAssessment,
    create,
    require_assessment,
)
from muniment_services.domain.errors import Invalid, NotAllowedNow, NotFound
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.trace import Trace, require
from muniment_services.domain.trace_data import StartTrace, start

ID = "tr-0123456789abcdef0123456789abcdef"


def assessment(**more: Any) -> Assessment:
    fields: dict[str, Any] = {
        "assessment_id": "",
        "assessment_name": "good",
        "trace_id": "",
        "source": Source(source_type="HUMAN", source_id="ada"),
        "create_time": "",
        "last_update_time": "",
        "feedback": Feedback(value=True),
    }
    return Assessment(**{**fields, **more})


def begin(*assessments: Assessment) -> StartTrace:
    return StartTrace(
        trace_id=ID,
        experiment_id="1",
        request_time_ms=1,
        metadata={},
        tags={},
        assessments=assessments,
    )


def new_world() -> TestWorld:
    world = TestWorld()
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    world.do(begin())
    return world


def made(world: TestWorld, **more: Any) -> Assessment:
    before = require(world.state, ID).assessments
    after = world.do(CreateAssessment(trace_id=ID, assessment=assessment(**more)))
    assert isinstance(after, Trace)
    (fresh,) = [a for key, a in after.assessments.items() if key not in before]
    return fresh


def held(world: TestWorld, one: Assessment) -> Assessment:
    return require_assessment(world.state, ID, one.assessment_id)


def test_id_times_and_trace_are_filled_in() -> None:
    world = new_world()
    one = made(world, valid=False)
    assert one.assessment_id.startswith("a-")
    assert len(one.assessment_id) == len("a-") + 32
    assert (one.trace_id, one.valid) == (ID, True)
    assert one.create_time == one.last_update_time == rfc3339(world.now_ms)
    dated = made(world, create_time="2024-03-01T10:00:00Z")
    assert dated.last_update_time == dated.create_time == "2024-03-01T10:00:00Z"


def test_an_override_makes_the_other_invalid_until_it_is_deleted() -> None:
    world = new_world()
    first = made(world)
    second = made(world, overrides=first.assessment_id)
    assert held(world, first).valid is False
    assert held(world, second).valid is True
    world.do(DeleteAssessment(trace_id=ID, assessment_id=second.assessment_id))
    assert held(world, first).valid is True
    assert world.decide(DeleteAssessment(trace_id=ID, assessment_id=second.assessment_id)) is None


def test_an_update_changes_what_it_names() -> None:
    world = new_world()
    one = made(world, rationale="because", metadata={"a": "1"})
    update = UpdateAssessment(
        trace_id=ID,
        assessment_id=one.assessment_id,
        feedback=Feedback(value=0.5),
        metadata={"b": "2"},
    )
    world.do(update)
    after = held(world, one)
    assert after.feedback == Feedback(value=0.5)
    assert after.metadata == {"a": "1", "b": "2"}
    assert (after.rationale, after.create_time) == ("because", one.create_time)
    assert after.last_update_time != one.last_update_time


def test_an_update_that_lost_a_race_is_void() -> None:
    world = new_world()
    one = made(world)
    rename = UpdateAssessment(trace_id=ID, assessment_id=one.assessment_id, name="renamed")
    event = world.decide(rename)
    made(world)
    assert event is not None
    folded = world.state.fold(world.record(event), event)
    assert folded.void == "another event of the same history came first"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expectation": Expectation(value=1)}, "Cannot update expectation value on a Feedback"),
        (
            {"expectation": Expectation(value=1), "feedback": Feedback()},
            "Cannot specify both `expectation` and `feedback` parameters.",
        ),
    ],
)
def test_an_update_of_another_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    world = new_world()
    one = made(world)
    with pytest.raises(Invalid, match=message):
        world.do(UpdateAssessment(trace_id=ID, assessment_id=one.assessment_id, **changes))


def test_feedback_on_an_expectation_is_refused() -> None:
    world = new_world()
    one = made(world, feedback=UNSET, expectation=Expectation(value="x"))
    update = UpdateAssessment(trace_id=ID, assessment_id=one.assessment_id, feedback=Feedback())
    with pytest.raises(Invalid, match="Cannot update feedback value on an Expectation assessment"):
        world.do(update)


def test_what_is_missing_is_named() -> None:
    world = new_world()
    with pytest.raises(NotFound, match=r"Trace with ID 'tr-x' not found\."):
        world.do(CreateAssessment(trace_id="tr-x", assessment=assessment()))
    with pytest.raises(NotFound, match="Assessment with ID 'a-x' not found for trace"):
        world.do(CreateAssessment(trace_id=ID, assessment=assessment(overrides="a-x")))
    with pytest.raises(NotFound, match="Trace with request_id 'tr-x' not found"):
        world.do(UpdateAssessment(trace_id="tr-x", assessment_id="a-x"))
    with pytest.raises(NotFound, match="Assessment with ID 'a-x' not found for trace"):
        world.do(UpdateAssessment(trace_id=ID, assessment_id="a-x"))
    assert world.decide(DeleteAssessment(trace_id="tr-x", assessment_id="a-x")) is None


def test_an_id_that_is_taken_is_refused() -> None:
    world = new_world()
    one = made(world)
    again = CreateAssessment(trace_id=ID, assessment=assessment(assessment_id=one.assessment_id))
    with pytest.raises(NotAllowedNow, match="due to a constraint violation"):
        world.do(again)


def test_assessments_come_with_an_info_too() -> None:
    world = new_world()
    world.do(begin(assessment(assessment_id="a-1"), assessment(assessment_name="other")))
    names = {a.assessment_name for a in require(world.state, ID).assessments.values()}
    assert names == {"good", "other"}


def test_a_keyed_request_gives_the_same_and_different_ids() -> None:
    world = new_world()
    context = replace(world.context(), derive_from=b"key")
    one = create(world.state, CreateAssessment(trace_id=ID, assessment=assessment()), context)
    again = create(world.state, CreateAssessment(trace_id=ID, assessment=assessment()), context)
    assert one.assessment_id == again.assessment_id
    started = start(world.state, begin(assessment(), assessment()), context)
    ids = {parsed(text).assessment_id for text in started.assessments_json}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("fields", "kind", "value", "number"),
    [
        ({"feedback": Feedback(value=0.5)}, "feedback", "0.5", 0.5),
        ({"feedback": Feedback(value=True)}, "feedback", "true", None),
        ({"feedback": Feedback(value="yes")}, "feedback", '"yes"', None),
        ({"feedback": Feedback()}, "feedback", "null", None),
        ({"feedback": UNSET, "expectation": Expectation(value=2.0)}, "expectation", "2.0", 2.0),
        (
            {
                "feedback": UNSET,
                "expectation": Expectation(
                    serialized_value=SerializedValue(
                        serialization_format="JSON_FORMAT", value='{"a": 1}'
                    )
                ),
            },
            "expectation",
            '{"a": 1}',
            None,
        ),
        (
            {"feedback": UNSET, "issue": IssueReference(issue_name="slow")},
            "issue",
            '{"issue_name": "slow"}',
            None,
        ),
    ],
)
def test_what_the_table_reads(
    fields: dict[str, Any], kind: str, value: str, number: float | None
) -> None:
    one = assessment(assessment_id="a-1", **fields)
    assert (one.kind, one.value, one.number) == (kind, value, number)
    assert parsed(dumped(one)) == one


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_709_287_200_250, "2024-03-01T10:00:00.250Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == text
