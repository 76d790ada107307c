"""Logged models: life, tags and params, with MLflow's rules and words."""

from __future__ import annotations

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.experiment import CreateExperiment, DeleteExperiment
from muniment_services.domain.logged_model import (
    PENDING,
    CreateLoggedModel,
    DeleteLoggedModel,
    DeleteLoggedModelTag,
    FinalizeLoggedModel,
    KeyTaken,
    LoggedModel,
    LogLoggedModelParams,
    SetLoggedModelTags,
    evolve,
    require_active,
)

READY = "LOGGED_MODEL_READY"


@pytest.fixture
def world() -> TestWorld:
    made = TestWorld()
    made.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    return made


def logged(world: TestWorld, **fields: object) -> LoggedModel:
    made = world.do(CreateLoggedModel(experiment_id="1", **fields))  # type: ignore[arg-type]
    assert isinstance(made, LoggedModel)
    return made


def test_a_new_model_is_pending(world: TestWorld) -> None:
    model = logged(
        world, name="m", model_type="t", source_run_id="r", params=(("p", "1"),), tags=(("k", "v"),)
    )
    assert model.model_id.startswith("m-")
    assert len(model.model_id) == 34
    assert model.artifact_uri == f"root:/1/models/{model.model_id}/artifacts"
    assert (model.status, model.lifecycle) == (PENDING, "active")
    assert (model.name, model.model_type, model.source_run_id) == ("m", "t", "r")
    assert (model.params, model.tags) == ({"p": "1"}, {"k": "v"})
    assert model.created_at_ms == model.updated_at_ms == world.now_ms


def test_a_name_is_made_up_when_there_is_none(world: TestWorld) -> None:
    assert logged(world).name.count("-") == 2


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "a%b", 'a"b', "a'b"])
def test_names_with_meaning_elsewhere_are_refused(world: TestWorld, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        logged(world, name=name)
    assert refused.value.message == (
        f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and cannot "
        "contain the following characters: ('/', ':', '.', '%', '\"', \"'\")"
    )


def test_its_experiment_must_be_active(world: TestWorld) -> None:
    with pytest.raises(NotFound, match="No Experiment with id=9 exists"):
        world.decide(CreateLoggedModel(experiment_id="9"))
    world.do(DeleteExperiment(experiment_id="1"))
    with pytest.raises(Invalid, match="must be in the 'active' state"):
        logged(world)


def test_keys_are_given_once(world: TestWorld) -> None:
    twice = (("k", "1"), ("k", "2"))
    for fields in ({"params": twice}, {"tags": twice}):
        with pytest.raises(KeyTaken):
            logged(world, **fields)


def test_finalizing_sets_any_status_and_the_time(world: TestWorld) -> None:
    model = logged(world)
    done = world.do(FinalizeLoggedModel(model_id=model.model_id, status=READY))
    assert isinstance(done, LoggedModel)
    assert (done.status, done.updated_at_ms) == (READY, world.now_ms)
    assert done.updated_at_ms > done.created_at_ms


def test_a_deleted_model_is_not_found_but_can_be_changed(world: TestWorld) -> None:
    model_id = logged(world).model_id
    for _ in range(2):
        world.do(DeleteLoggedModel(model_id=model_id))
    with pytest.raises(NotFound, match=f"Logged model with ID '{model_id}' not found."):
        require_active(world.state, model_id)
    changed = world.do(FinalizeLoggedModel(model_id=model_id, status=READY))
    assert isinstance(changed, LoggedModel)
    assert (changed.status, changed.lifecycle) == (READY, "deleted")


def test_tags_are_set_over_and_removed(world: TestWorld) -> None:
    model = logged(world, tags=(("a", "1"),))
    tags = (("a", "2"), ("b", "1"), ("b", "3"))
    after = world.do(SetLoggedModelTags(model_id=model.model_id, tags=tags))
    assert isinstance(after, LoggedModel)
    assert (after.tags, after.updated_at_ms) == ({"a": "2", "b": "3"}, model.updated_at_ms)
    assert world.do(SetLoggedModelTags(model_id=model.model_id, tags=())) is None
    after = world.do(DeleteLoggedModelTag(model_id=model.model_id, key="a"))
    assert isinstance(after, LoggedModel)
    assert after.tags == {"b": "3"}
    with pytest.raises(NotFound) as refused:
        world.do(DeleteLoggedModelTag(model_id=model.model_id, key="a"))
    assert refused.value.message == (
        f"No tag with key 'a' found for model with ID '{model.model_id}'."
    )


def test_params_keep_their_first_value(world: TestWorld) -> None:
    model_id = logged(world, params=(("a", "1"),)).model_id
    after = world.do(LogLoggedModelParams(model_id=model_id, params=(("b", "2"),)))
    assert isinstance(after, LoggedModel)
    assert after.params == {"a": "1", "b": "2"}
    assert world.do(LogLoggedModelParams(model_id=model_id, params=())) is None
    for value in ("1", "2"):
        with pytest.raises(KeyTaken):
            world.do(LogLoggedModelParams(model_id=model_id, params=(("a", value),)))


def test_a_race_for_a_param_makes_the_later_event_void(world: TestWorld) -> None:
    model_id = logged(world).model_id
    command = LogLoggedModelParams(model_id=model_id, params=(("a", "1"),))
    late = world.decide(command)
    after = world.do(command)
    assert isinstance(late, e.LoggedModelParamsLogged)
    assert isinstance(after, LoggedModel)
    with pytest.raises(Void):
        evolve(after, late)


@pytest.mark.parametrize(
    "command",
    [
        FinalizeLoggedModel(model_id="m-x", status=READY),
        DeleteLoggedModel(model_id="m-x"),
        SetLoggedModelTags(model_id="m-x", tags=(("a", "1"),)),
        DeleteLoggedModelTag(model_id="m-x", key="a"),
        LogLoggedModelParams(model_id="m-x", params=(("a", "1"),)),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_not_there_cannot_be_changed(
    world: TestWorld, command: FinalizeLoggedModel
) -> None:
    assert command.needs() == (("logged_model", "m-x"),)
    with pytest.raises(NotFound, match=r"Logged model with ID 'm-x' not found\."):
        world.decide(command)
