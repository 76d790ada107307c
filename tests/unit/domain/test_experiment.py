"""Experiments: what is decided, what is refused with which words, what becomes of the state."""

from __future__ import annotations

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound, Void, WrongState
from muniment_services.domain.experiment import (
    CreateExperiment,
    DeleteExperiment,
    DeleteExperimentTag,
    Experiment,
    RenameExperiment,
    RestoreExperiment,
    SetExperimentTag,
    checked_id,
    effective_lifecycle,
    evolve,
)


def create(world: TestWorld, name: str = "one", location: str | None = None) -> Experiment:
    command = CreateExperiment(
        name=name, artifact_location=location, artifact_root="mlflow-artifacts:", tags=(("a", "b"),)
    )
    made = world.do(command)
    assert isinstance(made, Experiment)
    return made


def test_ids_count_upwards_and_locations_follow_them() -> None:
    world = TestWorld()
    first, second = create(world, "one"), create(world, "two", "s3://bucket/x")
    assert (first.experiment_id, second.experiment_id) == ("1", "2")
    assert first.artifact_location == "mlflow-artifacts:/1"
    assert second.artifact_location == "s3://bucket/x"
    assert first.tags == {"a": "b"}
    assert first.created_at_ms == first.updated_at_ms == world.events[0].envelope.recorded_at_ms


def test_names_stay_taken_by_deleted_experiments() -> None:
    world = TestWorld()
    made = create(world)
    world.do(DeleteExperiment(experiment_id=made.experiment_id))
    with pytest.raises(AlreadyExists, match=r"Experiment\(name=one\) already exists\. Error: "):
        create(world)


def test_rename_frees_the_old_name_and_takes_the_new_one() -> None:
    world = TestWorld()
    made = create(world)
    renamed = world.do(RenameExperiment(experiment_id=made.experiment_id, name="two"))
    assert isinstance(renamed, Experiment)
    assert renamed.name == "two"
    assert renamed.updated_at_ms > made.updated_at_ms
    assert create(world, "one").experiment_id == "2"
    with pytest.raises(AlreadyExists):
        world.do(RenameExperiment(experiment_id="2", name="two"))
    event = next(event for event in world.events if isinstance(event, e.ExperimentRenamed))
    assert (event.previous_name, event.envelope.expected_version) == ("one", 1)


def test_deleted_experiments_cannot_be_renamed_tagged_or_deleted_again() -> None:
    world = TestWorld()
    made = create(world)
    world.do(DeleteExperiment(experiment_id=made.experiment_id))
    with pytest.raises(WrongState, match=r"Cannot rename a non-active experiment\."):
        world.do(RenameExperiment(experiment_id=made.experiment_id, name="x"))
    with pytest.raises(
        Invalid, match=r"must be in the 'active' state\. Current state is deleted\."
    ):
        world.do(SetExperimentTag(experiment_id=made.experiment_id, key="k", value="v"))
    with pytest.raises(NotFound, match="No Experiment with id=1 exists"):
        world.do(DeleteExperiment(experiment_id=made.experiment_id))
    restored = world.do(RestoreExperiment(experiment_id=made.experiment_id))
    assert isinstance(restored, Experiment)
    assert restored.lifecycle == "active"
    with pytest.raises(NotFound):
        world.do(RestoreExperiment(experiment_id=made.experiment_id))


def test_tags_are_set_replaced_and_removed_with_their_former_values() -> None:
    world = TestWorld()
    made = create(world)
    world.do(SetExperimentTag(experiment_id=made.experiment_id, key="a", value="c"))
    removed = world.do(DeleteExperimentTag(experiment_id=made.experiment_id, key="a"))
    assert isinstance(removed, Experiment)
    assert removed.tags == {}
    assert removed.updated_at_ms == made.updated_at_ms, "tags do not move last_update_time"
    assert [getattr(event, "previous_value", None) for event in world.events] == [None, "b", "c"]
    with pytest.raises(NotFound, match="No tag with name: a in experiment with id 1"):
        world.do(DeleteExperimentTag(experiment_id=made.experiment_id, key="a"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 501, "'name' exceeds the maximum length of 500 characters")],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        create(TestWorld(), name)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("experiment_id", "error", "message"),
    [
        ("7", NotFound, "No Experiment with id=7 exists"),
        (
            "abc",
            Invalid,
            "Invalid experiment ID 'abc'. Experiment ID must be a valid integer.",
        ),
    ],
)
def test_unknown_ids_are_named(experiment_id: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        TestWorld().do(DeleteExperiment(experiment_id=experiment_id))
    assert str(raised.value) == message


def test_events_that_lost_a_race_are_void() -> None:
    world = TestWorld()
    create(world)
    first = world.decide(RenameExperiment(experiment_id="1", name="two"))
    second = world.decide(RenameExperiment(experiment_id="1", name="three"))
    assert first is not None
    assert second is not None
    world.fold(first)
    folded = world.state.fold(world.record(second), second)
    assert folded.void == "another event of the same history came first"
    assert isinstance(folded.after, Experiment)
    assert folded.after.name == "two"


def test_a_name_taken_meanwhile_makes_a_creation_void() -> None:
    world = TestWorld()
    command = CreateExperiment(name="x", artifact_location=None, artifact_root="r")
    other = CreateExperiment(name="x", artifact_location=None, artifact_root="r", experiment_id="9")
    first, second = world.decide(command), world.decide(other)
    assert first is not None
    assert second is not None
    world.fold(first)
    assert world.state.fold(world.record(second), second).void == "the name 'x' is taken"
    assert world.state.get("experiment", "9") is None


def test_events_of_experiments_that_do_not_exist_are_void() -> None:
    world = TestWorld()
    create(world)
    deleted = world.decide(DeleteExperiment(experiment_id="1"))
    assert deleted is not None
    with pytest.raises(Void):
        evolve(None, deleted)
    with pytest.raises(Void):
        evolve(create(world, "again"), world.events[0])


@pytest.mark.parametrize(
    ("own", "own_at", "expected"),
    [("active", 5, "deleted"), ("active", 15, "active"), ("deleted", 15, "deleted")],
)
def test_the_later_of_two_lifecycles_counts(own: str, own_at: int, expected: str) -> None:
    world = TestWorld(now_ms=9)
    create(world)
    deleted = world.do(DeleteExperiment(experiment_id="1"))
    assert isinstance(deleted, Experiment)
    assert deleted.lifecycle_changed_at_ms == 11
    assert effective_lifecycle(own, own_at, deleted) == expected
    assert effective_lifecycle(own, own_at, None) == own


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("runs:/abc/x", "Artifact location cannot be a runs:/ URI. Given: 'runs:/abc/x'"),
        ("s3://bucket/x#f", "'artifact_location' URL can't include fragments or params."),
        ("https://bucket/x;p", "'artifact_location' URL can't include fragments or params."),
        ("http://[", "'artifact_location' is no URL: \"http://[\""),
        (
            "mlflow-artifacts:/0/x/../y",
            "An 'artifact_location' on this server must be a plain path",
        ),
        ("mlflow-artifacts:/0/%2e%2e/y", "An 'artifact_location' on this server must be a plain "),
        ("mlflow-artifacts://host/0/./y", "An 'artifact_location' on this server must be a plain "),
        ("s3://b/" + "x" * 2042, "Invalid artifact path length. "),
    ],
)
def test_locations_that_cannot_be_are_refused(location: str, message: str) -> None:
    with pytest.raises(Invalid) as raised:
        create(TestWorld(), location=location)
    assert raised.value.message.startswith(message)


def test_a_location_of_2048_characters_is_taken() -> None:
    location = "s3://b/" + "x" * 2041
    assert create(TestWorld(), location=location).artifact_location == location


def test_a_tag_twice_is_refused_as_mlflow_refuses_it() -> None:
    twice = CreateExperiment(
        name="one", artifact_location=None, artifact_root="r:", tags=(("a", "1"), ("a", "2"))
    )
    with pytest.raises(
        AlreadyExists, match=r"^Experiment\(name=one\) already exists\. Error: a tag"
    ):
        TestWorld().do(twice)


@pytest.mark.parametrize(("given", "expected"), [("7", "7"), ("007", "7"), (" 7 ", "7")])
def test_ids_have_one_form(given: str, expected: str) -> None:
    assert checked_id(given) == expected


def test_an_id_is_an_integer() -> None:
    with pytest.raises(Invalid) as raised:
        checked_id("abc")
    assert raised.value.message == (
        "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."
    )
