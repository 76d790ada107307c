"""The registry's current tables: what searches and a start of the server read."""

from __future__ import annotations

import msgspec

from harness.world import TestWorld
from muniment_projections.base import Connection
from muniment_projections.registry import tables
from muniment_projections.search.entities.registry import MODEL_VERSIONS, REGISTERED_MODELS
from muniment_projections.search.page import Search, search
from muniment_services.domain.model_version import (
    CreateModelVersion,
    DeleteModelVersion,
    DeleteModelVersionTag,
    SetModelVersionTag,
    TransitionStage,
    UpdateModelVersion,
)
from muniment_services.domain.registered_model import KIND, ModelVersion, RegisteredModel
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteRegisteredModel,
    RenameRegisteredModel,
    SetAlias,
    SetRegisteredModelTag,
    UpdateRegisteredModel,
)
from unit.projections.registry.history import attempt, contents, database, folded

PROMPT = "mlflow.prompt.is_prompt"

COMMANDS = (
    CreateRegisteredModel(name="a", tags=(("team", "Red"),)),
    CreateRegisteredModel(name="b", description="d"),
    CreateModelVersion(name="a", source="s3://b/1", tags=(("k", "1"),)),
    CreateModelVersion(name="a", source="s3://b/2", run_id="r"),
    CreateModelVersion(name="b", source="s3://b/3"),
    TransitionStage(name="a", version="1", stage="Production"),
    TransitionStage(name="a", version="2", stage="Production", archive_others=True),
    SetAlias(name="a", alias="best", version="2"),
    SetRegisteredModelTag(name="b", key="team", value="blue"),
    SetModelVersionTag(name="a", version="2", key="k", value="2"),
    DeleteModelVersionTag(name="a", version="1", key="k"),
    UpdateRegisteredModel(name="a", description="changed"),
    UpdateModelVersion(name="b", version="1", description="changed"),
    CreateRegisteredModel(name="gone"),
    CreateModelVersion(name="gone", source="s3://b/4"),
    DeleteRegisteredModel(name="gone"),
    CreateModelVersion(name="b", source="s3://b/5"),
    DeleteModelVersion(name="b", version="1"),
    RenameRegisteredModel(name="a", new_name="c"),
)


def scripted() -> TestWorld:
    world = TestWorld()
    attempt(world, COMMANDS)
    assert len(world.events) == len(COMMANDS), "nothing of the script is refused"
    return world


def models(connection: Connection, filter_: str = "") -> list[str]:
    found = search(connection, REGISTERED_MODELS, Search(filter=filter_)).documents
    return [msgspec.msgpack.decode(document, type=RegisteredModel).name for document in found]


def versions(connection: Connection, filter_: str = "") -> list[str]:
    found = search(
        connection, MODEL_VERSIONS, Search(filter=filter_, order_by=("name", "version_number"))
    ).documents
    decoded = (msgspec.msgpack.decode(document, type=ModelVersion) for document in found)
    return [f"{version.name}/{version.version}" for version in decoded]


def test_the_tables_hold_the_state_whatever_the_batches() -> None:
    world = scripted()
    items = folded(world)
    with database(items) as whole, database(*([item] for item in items)) as single:
        assert contents(whole) == contents(single)
        documents = dict(whole.execute(tables.DOCUMENTS).fetchall())
        rows = whole.execute(
            "SELECT model_id, version, name, source, run_id, stage, tags, document "
            "FROM model_versions"
        ).fetchall()
    living = {m.model_id: m for m in world.state.of_kind(KIND) if isinstance(m, RegisteredModel)}
    stored = {i: msgspec.msgpack.decode(d, type=RegisteredModel) for i, d in documents.items()}
    assert stored == living
    expected = {(m.model_id, v.version): v for m in living.values() for v in m.versions.values()}
    assert {(row[0], row[1]) for row in rows} == expected.keys()
    for model_id, number, name, source, run_id, stage, tags, document in rows:
        version = expected[(model_id, number)]
        assert (version.name, version.source, version.run_id) == (name, source, run_id)
        assert (version.stage, version.tags) == (stage, tags)
        assert msgspec.msgpack.decode(document, type=ModelVersion) == version


def test_searches_find_them() -> None:
    with database(folded(scripted())) as connection:
        assert models(connection) == ["b", "c"]
        assert models(connection, "tags.team = 'Red'") == ["c"]
        assert versions(connection) == ["b/2", "c/1", "c/2"]
        assert versions(connection, "run_id = 'r'") == ["c/2"]
        assert versions(connection, "tags.k = '2'") == ["c/2"]


def test_prompts_are_found_only_when_they_are_asked_for() -> None:
    world = TestWorld()
    prompt = ((PROMPT, "true"),)
    attempt(
        world,
        (
            CreateRegisteredModel(name="p", tags=prompt),
            CreateModelVersion(name="p", source="dummy-source", tags=prompt),
            CreateRegisteredModel(name="m"),
            CreateModelVersion(name="m", source="s3://b/1"),
        ),
    )
    with database(folded(world)) as connection:
        assert (models(connection), versions(connection)) == (["m"], ["m/1"])
        asked = f"tags.`{PROMPT}` = 'true'"
        assert (models(connection, asked), versions(connection, asked)) == (["p"], ["p/1"])


def test_a_models_versions_turn_into_a_prompts_all_at_once() -> None:
    world = TestWorld()
    attempt(
        world,
        (
            CreateRegisteredModel(name="m"),
            CreateModelVersion(name="m", source="s3://b/1"),
            CreateModelVersion(name="m", source="s3://b/2"),
            SetModelVersionTag(name="m", version="2", key=PROMPT, value="true"),
            DeleteModelVersionTag(name="m", version="2", key=PROMPT),
        ),
    )
    items = folded(world)
    with database(items[:3], items[3:4]) as connection:
        assert versions(connection) == []
    with database(items[:3], items[3:4], items[4:]) as connection:
        assert versions(connection) == ["m/1", "m/2"]


def test_void_events_change_nothing() -> None:
    world = TestWorld()
    world.do(CreateRegisteredModel(name="m"))
    command = UpdateRegisteredModel(name="m", description="x")
    first, second = world.decide(command), world.decide(command)
    assert first is not None
    assert second is not None
    world.fold(first)
    world.state.fold(world.record(second), second)
    items = folded(world)
    assert [item.void is None for item in items] == [True, True, False]
    with database(items) as with_void, database(items[:2]) as without:
        assert contents(with_void) == contents(without)
