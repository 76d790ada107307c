"""Model versions: numbers, stages, tags, deletion, and what a logged model learns of them."""

from __future__ import annotations

import json

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import Invalid, NotAllowedNow, NotFound, Void
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.logged_model import CreateLoggedModel, LoggedModel, SetLoggedModelTags
from muniment_services.domain.model_version import (
    CreateModelVersion,
    DeleteModelVersion,
    DeleteModelVersionTag,
    NoteRegistration,
    SetModelVersionTag,
    TransitionStage,
    UpdateModelVersion,
)
from muniment_services.domain.registered_model import (
    ModelVersion,
    RegisteredModel,
    evolve,
    latest_versions,
    require,
    require_version,
)
from muniment_services.domain.registry_life import CreateRegisteredModel, SetAlias


def start(versions: int = 1) -> TestWorld:
    world = TestWorld()
    world.do(CreateRegisteredModel(name="m"))
    for number in range(1, versions + 1):
        world.do(CreateModelVersion(name="m", source=f"s3://b/{number}"))
    return world


def version(world: TestWorld, number: int) -> ModelVersion:
    return require(world.state, "m").versions[number]


def stages(world: TestWorld) -> dict[int, str]:
    return {v.version: v.stage for v in require(world.state, "m").versions.values()}


def refusal(world: TestWorld, command: Command, kind: type[Exception]) -> str:
    with pytest.raises(kind) as refused:
        world.decide(command)
    return str(refused.value)


def logged_model(world: TestWorld) -> LoggedModel:
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="mlflow-artifacts:"))
    made = world.do(CreateLoggedModel(experiment_id="1", name="lm"))
    assert isinstance(made, LoggedModel)
    return made


def test_a_new_version_is_ready_in_no_stage_and_moves_its_model() -> None:
    world = start()
    made = version(world, 1)
    assert (made.stage, made.source, made.storage_location) == ("None", "s3://b/1", "s3://b/1")
    assert (made.description, made.run_id, made.run_link) == ("", "", "")
    assert made.created_at_ms == made.updated_at_ms == world.now_ms
    assert require(world.state, "m").updated_at_ms == world.now_ms


def test_numbers_are_never_given_twice() -> None:
    world = start(versions=3)
    world.do(DeleteModelVersion(name="m", version="3"))
    world.do(DeleteModelVersion(name="m", version="1"))
    world.do(CreateModelVersion(name="m", source="s3://b/x"))
    assert list(require(world.state, "m").versions) == [2, 4]


@pytest.mark.parametrize("text", ["1", "01", " 1"])
def test_a_version_is_named_by_what_reads_as_its_number(text: str) -> None:
    assert require_version(start().state, "m", text)[1].version == 1


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("m", "x", Invalid, "Parameter 'version' must be an integer, got 'x'."),
        ("m", "1.5", Invalid, "Parameter 'version' must be an integer, got '1.5'."),
        ("m", "", Invalid, "Parameter 'version' must be an integer, got ''."),
        ("", "1", Invalid, "Missing value for required parameter 'name'."),
        ("m", "9", NotFound, "Model Version (name=m, version=9) not found"),
        ("nope", "1", NotFound, "Model Version (name=nope, version=1) not found"),
    ],
)
def test_versions_that_are_not_there(
    name: str, text: str, kind: type[Exception], words: str
) -> None:
    world = start()
    commands: tuple[Command, ...] = (
        UpdateModelVersion(name=name, version=text, description="d"),
        TransitionStage(name=name, version=text, stage="Staging"),
        DeleteModelVersion(name=name, version=text),
        SetModelVersionTag(name=name, version=text, key="k", value="v"),
        DeleteModelVersionTag(name=name, version=text, key="k"),
        SetAlias(name=name, alias="a", version=text),
    )
    for command in commands:
        assert refusal(world, command, kind) == words


def test_a_description_moves_the_version_only_and_none_removes_it() -> None:
    world = start()
    before = require(world.state, "m").updated_at_ms
    world.do(UpdateModelVersion(name="m", version="1", description="d"))
    assert version(world, 1).description == "d"
    assert version(world, 1).updated_at_ms == world.now_ms
    world.do(UpdateModelVersion(name="m", version="1", description=None))
    assert version(world, 1).description is None
    assert require(world.state, "m").updated_at_ms == before


def test_a_transition_may_archive_the_others_in_one_event() -> None:
    world = start(versions=4)
    for number in "123":
        world.do(TransitionStage(name="m", version=number, stage="production"))
    world.do(TransitionStage(name="m", version="4", stage="Production", archive_others=True))
    assert stages(world) == {1: "Archived", 2: "Archived", 3: "Archived", 4: "Production"}
    event = world.events[-1]
    assert isinstance(event, e.StageTransitioned)
    assert [(a.version, a.from_stage) for a in event.archived] == [
        (1, "Production"),
        (2, "Production"),
        (3, "Production"),
    ]
    moved = {v.updated_at_ms for v in require(world.state, "m").versions.values()}
    assert moved == {require(world.state, "m").updated_at_ms} == {world.now_ms}


def test_a_transition_to_its_own_stage_keeps_it_and_is_recorded() -> None:
    world = start(versions=2)
    world.do(TransitionStage(name="m", version="1", stage="Staging"))
    world.do(TransitionStage(name="m", version="1", stage="STAGING", archive_others=True))
    event = world.events[-1]
    assert isinstance(event, e.StageTransitioned)
    assert (event.from_stage, event.to_stage, event.archived) == ("Staging", "Staging", ())
    assert stages(world) == {1: "Staging", 2: "None"}


def test_stages_that_cannot_be() -> None:
    world = start()
    unknown = TransitionStage(name="m", version="1", stage="Nope", archive_others=True)
    assert refusal(world, unknown, Invalid) == (
        "Invalid Model Version stage: Nope. "
        "Value must be one of None, Staging, Production, Archived."
    )
    for stage in ("None", "archived"):
        command = TransitionStage(name="m", version="1", stage=stage, archive_others=True)
        assert refusal(world, command, NotAllowedNow) == (
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are ['Staging', 'Production']"
        )


def test_latest_versions_are_the_highest_of_each_stage() -> None:
    world = start(versions=4)
    world.do(TransitionStage(name="m", version="2", stage="Production"))
    world.do(TransitionStage(name="m", version="1", stage="Production"))
    found = latest_versions(require(world.state, "m"))
    assert [(v.stage, v.version) for v in found] == [("Production", 2), ("None", 4)]


def test_aliases_die_with_their_version() -> None:
    world = start(versions=2)
    for alias, number in (("b", "1"), ("a", "1"), ("c", "2")):
        world.do(SetAlias(name="m", alias=alias, version=number))
    world.do(DeleteModelVersion(name="m", version="1"))
    assert require(world.state, "m").aliases == {"c": 2}
    event = world.events[-1]
    assert isinstance(event, e.ModelVersionDeleted)
    assert (event.stage, event.aliases) == ("None", ("a", "b"))


def test_tags_of_versions() -> None:
    world = start()
    before = version(world, 1).updated_at_ms
    world.do(SetModelVersionTag(name="m", version="1", key="k", value="v"))
    assert version(world, 1).tags == {"k": "v"}
    world.do(DeleteModelVersionTag(name="m", version="1", key="k"))
    assert version(world, 1).tags == {}
    assert version(world, 1).updated_at_ms == before
    assert world.do(DeleteModelVersionTag(name="m", version="1", key="k")) is None
    too_long = SetModelVersionTag(
        name="m", version="1", key="mlflow.prompt.text", value="v" * 100_001
    )
    words = "Prompt text exceeds max length of 100000 characters."
    assert refusal(world, too_long, Invalid) == words


def test_a_logged_model_lists_its_registrations_once_each() -> None:
    world = start()
    model = logged_model(world)
    note = NoteRegistration(logged_model_id=model.model_id, name="m", version=2)
    first = world.do(note)
    assert isinstance(first, LoggedModel)
    assert first.tags["mlflow.modelVersions"] == '[{"name": "m", "version": 2}]'
    assert world.do(note) is None, "a repeat does nothing"
    again = world.do(NoteRegistration(logged_model_id=model.model_id, name="n", version=1))
    assert isinstance(again, LoggedModel)
    listed = json.loads(again.tags["mlflow.modelVersions"])
    assert listed == [{"name": "m", "version": 2}, {"name": "n", "version": 1}]


def test_a_list_that_is_none_is_replaced_and_a_missing_model_ignored() -> None:
    world = start()
    model = logged_model(world)
    for text in ("not json", '{"a": 1}'):
        tags = (("mlflow.modelVersions", text),)
        world.do(SetLoggedModelTags(model_id=model.model_id, tags=tags))
        noted = world.do(NoteRegistration(logged_model_id=model.model_id, name="m", version=1))
        assert isinstance(noted, LoggedModel)
        assert noted.tags["mlflow.modelVersions"] == '[{"name": "m", "version": 1}]'
    assert world.do(NoteRegistration(logged_model_id="m-nope", name="m", version=1)) is None


def sample(world: TestWorld, event: type[e.Event], **fields: object) -> e.Event:
    envelope = world.context().envelope(event, "id")
    return event(envelope=envelope, **fields)


MISSING_VERSION: list[tuple[type[e.Event], dict[str, object]]] = [
    (e.ModelVersionUpdated, {"version": 9}),
    (
        e.StageTransitioned,
        {"version": 9, "from_stage": "None", "to_stage": "Staging", "archived": ()},
    ),
    (
        e.StageTransitioned,
        {
            "version": 1,
            "from_stage": "None",
            "to_stage": "Staging",
            "archived": (e.ArchivedVersion(version=9, from_stage="Staging"),),
        },
    ),
    (e.ModelVersionDeleted, {"version": 9, "stage": "None", "aliases": ()}),
    (e.ModelVersionTagSet, {"version": 9, "key": "k", "value": "v"}),
    (e.ModelVersionTagDeleted, {"version": 9, "key": "k", "previous_value": "v"}),
    (e.AliasSet, {"alias": "a", "version": 9}),
]


@pytest.mark.parametrize(("event", "fields"), MISSING_VERSION)
def test_an_event_about_a_version_that_is_not_there_is_void(
    event: type[e.Event], fields: dict[str, object]
) -> None:
    world = start()
    with pytest.raises(Void, match="version 9 does not exist"):
        evolve(require(world.state, "m"), sample(world, event, **fields))
    with pytest.raises(Void, match="the registered model does not exist"):
        evolve(None, sample(world, event, **fields))


@pytest.mark.parametrize("number", [1, 2])
def test_a_number_that_was_given_already_is_void(number: int) -> None:
    world = start(versions=2)
    world.do(DeleteModelVersion(name="m", version="2"))
    event = sample(
        world,
        e.ModelVersionCreated,
        version=number,
        source="s",
        storage_location="s",
        tags={},
    )
    with pytest.raises(Void, match=f"version {number} was given already"):
        evolve(require(world.state, "m"), event)


def test_creating_a_model_twice_is_void() -> None:
    world = start()
    event = sample(world, e.RegisteredModelCreated, name="m", tags={})
    with pytest.raises(Void, match="the registered model exists already"):
        evolve(require(world.state, "m"), event)


def test_of_two_decisions_on_one_state_the_second_is_void() -> None:
    world = start(versions=2)
    command = TransitionStage(name="m", version="1", stage="Staging")
    first, second = world.decide(command), world.decide(command)
    assert first is not None
    assert second is not None
    world.fold(first)
    folded = world.state.fold(world.record(second), second)
    assert folded.void == "another event of the same history came first"
    assert isinstance(folded.after, RegisteredModel)
    assert folded.after.versions[1].stage == "Staging"
