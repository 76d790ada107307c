"""Registered models: what is decided, what is refused with which words, what becomes of them."""

from __future__ import annotations

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound
from muniment_services.domain.model_version import CreateModelVersion
from muniment_services.domain.registered_model import (
    KIND,
    RegisteredModel,
    latest_versions,
    require,
    require_alias,
)
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteAlias,
    DeleteRegisteredModel,
    DeleteRegisteredModelTag,
    RenameRegisteredModel,
    SetAlias,
    SetRegisteredModelTag,
    UpdateRegisteredModel,
)

PROMPT = (("mlflow.prompt.is_prompt", "true"),)


def create(world: TestWorld, name: str = "m", *, versions: int = 0) -> RegisteredModel:
    made = world.do(CreateRegisteredModel(name=name, tags=(("a", "1"),)))
    for number in range(versions):
        made = world.do(CreateModelVersion(name=name, source=f"s3://b/{number}"))
    assert isinstance(made, RegisteredModel)
    return made


def refusal(world: TestWorld, command: Command, kind: type[Exception]) -> str:
    with pytest.raises(kind) as refused:
        world.decide(command)
    return str(refused.value)


def test_a_new_model_is_empty_and_found_by_name() -> None:
    world = TestWorld()
    model = create(world)
    assert (model.version, model.tags, model.description) == (1, {"a": "1"}, None)
    assert model.created_at_ms == model.updated_at_ms == world.now_ms
    assert require(world.state, "m") is model
    assert world.state.get(KIND, model.model_id) is model


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("  ", "Missing value for required parameter 'name'."),
        ("a/b", "Invalid model name 'a/b'. Names cannot contain '/' or ':'."),
        ("a:b", "Invalid model name 'a:b'. Names cannot contain '/' or ':'."),
        ("..a", "would resolve to '..a'"),
        (".", "would resolve to '.'"),
    ],
)
def test_names_that_cannot_be_are_refused(name: str, words: str) -> None:
    assert words in refusal(TestWorld(), CreateRegisteredModel(name=name), Invalid)


@pytest.mark.parametrize("tags", [PROMPT, ()])
def test_a_model_is_what_it_was_created_as(tags: tuple[tuple[str, str], ...]) -> None:
    world = TestWorld()
    world.do(CreateRegisteredModel(name="m", tags=tags))
    key = PROMPT[0][0]
    for value in ("true", "True", "false", "x"):
        command = SetRegisteredModelTag(name="m", key=key, value=value)
        if (value.lower() == "true") == bool(tags):
            assert world.decide(command) is not None
        else:
            assert "stays one" in refusal(world, command, Invalid)
    removal = DeleteRegisteredModelTag(name="m", key=key)
    if tags:
        assert "is a prompt and stays one" in refusal(world, removal, Invalid)
    else:
        assert world.decide(removal) is None


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((), (), "Registered Model (name=m) already exists."),
        (PROMPT, PROMPT, "Prompt (name=m) already exists."),
        (PROMPT, (), "Tried to create a registered model with name 'm', but the name is already"),
        ((), PROMPT, "Tried to create a prompt with name 'm', but the name is already taken by a"),
    ],
)
def test_a_taken_name_is_told_by_what_took_it(
    first: tuple[tuple[str, str], ...], second: tuple[tuple[str, str], ...], words: str
) -> None:
    world = TestWorld()
    world.do(CreateRegisteredModel(name="m", tags=first))
    message = refusal(world, CreateRegisteredModel(name="m", tags=second), AlreadyExists)
    assert message.startswith(words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("a!b", "", "Names may only contain alphanumerics"),
        ("", "", "would resolve to '.'"),
        ("k" * 251, "", "'key' exceeds the maximum length of 250 characters"),
        ("k", "v" * 100_001, "'value' exceeds the maximum length of 100000 characters"),
    ],
)
def test_tags_have_limits(key: str, value: str, words: str) -> None:
    world = TestWorld()
    create(world)
    set_tag = SetRegisteredModelTag(name="m", key=key, value=value)
    assert words in refusal(world, set_tag, Invalid)
    creation = CreateRegisteredModel(name="n", tags=((key, value),))
    assert words in refusal(world, creation, Invalid)


@pytest.mark.parametrize(
    "command",
    [
        UpdateRegisteredModel(name="m", description="x"),
        RenameRegisteredModel(name="m", new_name="n"),
        DeleteRegisteredModel(name="m"),
        SetRegisteredModelTag(name="m", key="k", value="v"),
        DeleteRegisteredModelTag(name="m", key="k"),
        DeleteAlias(name="m", alias="x"),
        CreateModelVersion(name="m", source="s3://b/x"),
    ],
)
def test_an_unknown_model_is_not_found(command: Command) -> None:
    assert refusal(TestWorld(), command, NotFound) == "Registered Model with name=m not found"


def test_tags_leave_the_update_time_alone_and_descriptions_move_it() -> None:
    world = TestWorld()
    made = create(world)
    tagged = world.do(SetRegisteredModelTag(name="m", key="a", value="2"))
    assert isinstance(tagged, RegisteredModel)
    assert (tagged.tags, tagged.updated_at_ms) == ({"a": "2"}, made.updated_at_ms)
    event = world.events[-1]
    assert isinstance(event, e.RegisteredModelTagSet)
    assert event.previous_value == "1"
    described = world.do(UpdateRegisteredModel(name="m", description="d"))
    assert isinstance(described, RegisteredModel)
    assert (described.description, described.updated_at_ms) == ("d", world.now_ms)


def test_deleting_what_is_absent_does_nothing() -> None:
    world = TestWorld()
    create(world)
    assert world.do(DeleteRegisteredModelTag(name="m", key="nope")) is None
    assert world.do(DeleteAlias(name="m", alias="nope")) is None
    assert len(world.events) == 1


def test_a_rename_takes_versions_and_aliases_along() -> None:
    world = TestWorld()
    create(world, versions=2)
    world.do(SetAlias(name="m", alias="best", version="1"))
    create(world, "taken")
    assert refusal(
        world, RenameRegisteredModel(name="m", new_name="taken"), AlreadyExists
    ).startswith("Registered Model (name=taken) already exists. Error: ")
    renamed = world.do(RenameRegisteredModel(name="m", new_name="n"))
    assert isinstance(renamed, RegisteredModel)
    assert {(v.name, v.updated_at_ms) for v in renamed.versions.values()} == {("n", world.now_ms)}
    assert require_alias(world.state, "n", "best").version == 1
    assert world.state.named(KIND, "m") is None
    assert isinstance(world.do(RenameRegisteredModel(name="n", new_name="n")), RegisteredModel)


@pytest.mark.parametrize(
    ("new_name", "words"),
    [("  ", "Missing value for required parameter 'new_name'."), ("a/b", "Invalid model name")],
)
def test_new_names_follow_the_same_rules(new_name: str, words: str) -> None:
    world = TestWorld()
    create(world)
    assert words in refusal(world, RenameRegisteredModel(name="m", new_name=new_name), Invalid)


def test_a_recreated_model_is_another_one_whose_versions_start_over() -> None:
    world = TestWorld()
    old = create(world, versions=2)
    assert world.do(DeleteRegisteredModel(name="m")) is None
    event = world.events[-1]
    assert isinstance(event, e.RegisteredModelDeleted)
    assert event.versions == (1, 2)
    new = create(world, versions=1)
    assert new.model_id != old.model_id
    assert (list(new.versions), new.aliases) == ([1], {})


def test_an_alias_points_at_one_version_and_moves() -> None:
    world = TestWorld()
    create(world, versions=2)
    world.do(SetAlias(name="m", alias="best", version="1"))
    assert world.do(SetAlias(name="m", alias="best", version="1")) is None, "nothing to do"
    moved = world.do(SetAlias(name="m", alias="best", version="2"))
    assert isinstance(moved, RegisteredModel)
    assert moved.aliases == {"best": 2}
    event = world.events[-1]
    assert isinstance(event, e.AliasSet)
    assert event.previous_version == 1
    world.do(DeleteAlias(name="m", alias="best"))
    with pytest.raises(Invalid, match=r"^Registered model alias best not found\.$"):
        require_alias(world.state, "m", "best")


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ("", "Registered model alias name cannot be empty."),
        ("a b", "Invalid alias name: 'a b'. Names may only contain alphanumerics, underscores"),
        ("LATEST", "'latest' alias name (case insensitive) is reserved."),
        ("V12", "Version alias name 'V12' is reserved."),
        ("a" * 256, "'Registered model alias name' exceeds the maximum length of 255 characters"),
    ],
)
def test_aliases_that_cannot_be_set(alias: str, words: str) -> None:
    world = TestWorld()
    create(world, versions=1)
    command = SetAlias(name="m", alias=alias, version="1")
    assert refusal(world, command, Invalid).startswith(words)


@pytest.mark.parametrize("alias", ["ünï", "1", "v", "vx1", "latest2", "-", "a" * 255])
def test_aliases_that_can(alias: str) -> None:
    world = TestWorld()
    create(world, versions=1)
    world.do(SetAlias(name="m", alias=alias, version="1"))
    assert require_alias(world.state, "m", alias).version == 1


def test_latest_is_the_newest_version() -> None:
    world = TestWorld()
    create(world)
    with pytest.raises(NotFound, match=r"^Latest version not found for model m\.$"):
        require_alias(world.state, "m", "latest")
    world.do(CreateModelVersion(name="m", source="s3://b/1"))
    world.do(CreateModelVersion(name="m", source="s3://b/2"))
    assert require_alias(world.state, "m", "Latest").version == 2
    model = require(world.state, "m")
    assert [v.version for v in latest_versions(model)] == [2]
