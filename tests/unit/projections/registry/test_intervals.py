"""What held when: a scripted history of the registry, read back as of every moment of it."""

from __future__ import annotations

import pytest

from harness.world import ACTOR, TestWorld
from muniment_projections.registry.reader import stage_history, version_history
from muniment_projections.registry.then import ModelThen, When, model_at
from muniment_services.domain.commands import Command
from muniment_services.domain.model_version import (
    CreateModelVersion,
    DeleteModelVersion,
    SetModelVersionTag,
    TransitionStage,
)
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteAlias,
    DeleteRegisteredModel,
    RenameRegisteredModel,
    SetAlias,
    UpdateRegisteredModel,
)
from unit.projections.registry.history import database, folded

START_MS = 1_000

# Each at START_MS + 10 * its place.
SCRIPT: tuple[Command, ...] = (
    CreateRegisteredModel(name="m"),  # 1000
    CreateModelVersion(name="m", source="s3://b/1"),
    CreateModelVersion(name="m", source="s3://b/2"),
    TransitionStage(name="m", version="1", stage="Production"),  # 1030
    SetAlias(name="m", alias="best", version="1"),
    UpdateRegisteredModel(name="m", description="of no matter here"),  # 1050
    TransitionStage(name="m", version="2", stage="Production", archive_others=True),  # 1060
    SetAlias(name="m", alias="best", version="2"),
    SetModelVersionTag(name="m", version="1", key="k", value="v"),
    TransitionStage(name="m", version="2", stage="Production"),  # 1090, where it is
    RenameRegisteredModel(name="m", new_name="n"),  # 1100
    DeleteAlias(name="n", alias="best"),
    DeleteModelVersion(name="n", version="1"),  # 1120
    RenameRegisteredModel(name="n", new_name="m"),
    DeleteRegisteredModel(name="m"),  # 1140
    CreateRegisteredModel(name="m"),  # 1150, another model
    CreateModelVersion(name="m", source="s3://b/3"),  # 1160
)


def scripted() -> TestWorld:
    world = TestWorld()
    for place, command in enumerate(SCRIPT):
        world.now_ms = START_MS + 10 * place - 1
        world.do(command)
    assert [event.envelope.recorded_at_ms for event in world.events] == [
        START_MS + 10 * place for place in range(len(SCRIPT))
    ]
    return world


def shown(model: ModelThen | None) -> str:
    """A model as one line: `1 Production best, 2 None`."""
    if model is None:
        return "no model"
    return ", ".join(" ".join((str(v.version), v.stage, *v.aliases)) for v in model.versions)


@pytest.mark.parametrize(
    ("name", "at_ms", "expected"),
    [
        ("m", 999, "no model"),
        ("m", 1000, ""),
        ("m", 1010, "1 None"),
        ("m", 1029, "1 None, 2 None"),
        ("m", 1030, "1 Production, 2 None"),
        ("m", 1055, "1 Production best, 2 None"),
        ("m", 1060, "1 Archived best, 2 Production"),
        ("m", 1099, "1 Archived, 2 Production best"),
        ("m", 1100, "no model"),
        ("n", 1099, "no model"),
        ("n", 1100, "1 Archived, 2 Production best"),
        ("n", 1119, "1 Archived, 2 Production"),
        ("n", 1120, "2 Production"),
        ("n", 1130, "no model"),
        ("m", 1139, "2 Production"),
        ("m", 1140, "no model"),
        ("m", 1159, ""),
        ("m", 1160, "1 None"),
        ("m", 9_999_999, "1 None"),
        ("other", 1050, "no model"),
    ],
)
def test_the_registry_as_of_a_time(name: str, at_ms: int, expected: str) -> None:
    with database(folded(scripted())) as connection:
        assert shown(model_at(connection, name, When(at_ms))) == expected


def test_a_recreated_model_is_another_one() -> None:
    with database(folded(scripted())) as connection:
        old = model_at(connection, "m", When(1130))
        new = model_at(connection, "m", When(1160))
    assert old is not None
    assert new is not None
    assert old.model_id != new.model_id
    assert (new.aliases, old.aliases) == ({}, {})


def test_a_versions_stages_follow_one_another_without_a_gap() -> None:
    world = scripted()
    with database(folded(world)) as connection:
        first = stage_history(connection, "m", 1)
        second = stage_history(connection, "n", 2)
    told = [(i.subject, i.valid_from_ms, i.valid_to_ms) for i in first]
    assert told == [
        ("None", 1010, 1030),
        ("Production", 1030, 1060),
        ("Archived", 1060, 1120),
        ("None", 1160, None),
    ]
    assert [(i.subject, i.valid_from_ms, i.valid_to_ms) for i in second] == [
        ("None", 1020, 1060),
        ("Production", 1060, 1140),
    ]
    assert first[2].model_id != first[3].model_id


def test_intervals_name_the_events_at_both_ends() -> None:
    world = scripted()
    with database(folded(world)) as connection:
        history = stage_history(connection, "m", 1)
    production = history[1]
    began, ended = world.events[3], world.events[6]
    assert (production.began.topic, production.began.partition) == ("catalog", 0)
    assert (production.began.offset, production.began.event_id) == (3, began.envelope.event_id)
    assert production.ended is not None
    assert (production.ended.offset, production.ended.event_id) == (6, ended.envelope.event_id)
    assert production.began.actor == production.ended.actor == ACTOR.principal_id
    assert history[-1].ended is None


def test_a_versions_history_holds_its_existence_and_aliases_too() -> None:
    with database(folded(scripted())) as connection:
        history = version_history(connection, "m", 2)
        nothing = version_history(connection, "m", 9)
    assert [(i.valid_from_ms, i.valid_to_ms) for i in history.existed] == [(1020, 1140)]
    told = [(i.subject, i.name, i.valid_from_ms, i.valid_to_ms) for i in history.aliases]
    assert told == [("best", "m", 1070, 1110)]
    assert (nothing.existed, nothing.stages, nothing.aliases) == ([], [], [])


def test_a_clock_that_goes_back_makes_no_interval_end_before_it_began() -> None:
    world = TestWorld()
    for at_ms, command in (
        (5_000, CreateRegisteredModel(name="m")),
        (5_010, CreateModelVersion(name="m", source="s3://b/1")),
        (4_000, TransitionStage(name="m", version="1", stage="Staging")),
        (4_500, TransitionStage(name="m", version="1", stage="Production")),
        (4_600, DeleteRegisteredModel(name="m")),
        (4_700, CreateRegisteredModel(name="m")),
        (5_020, CreateModelVersion(name="m", source="s3://b/2")),
    ):
        world.now_ms = at_ms - 1
        world.do(command)
    items = folded(world)
    with database(*([item] for item in items)) as connection:
        stages = stage_history(connection, "m", 1)
        assert [(i.subject, i.valid_from_ms, i.valid_to_ms) for i in stages] == [
            ("None", 5_010, 5_010),
            ("Staging", 5_010, 5_010),
            ("Production", 5_010, 5_010),
            ("None", 5_020, None),
        ]
        assert shown(model_at(connection, "m", When(4_999))) == "no model"
        assert shown(model_at(connection, "m", When(5_005))) == ""
        assert shown(model_at(connection, "m", When(5_010))) == ""
        assert shown(model_at(connection, "m", When(5_020))) == "1 None"
