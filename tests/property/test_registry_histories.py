"""Random histories of the registry: the same state and tables in any batching, from any restart;
intervals that never overlap; and every moment read back as it was.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from harness import governed
from harness.examples import examples
from harness.world import TestWorld
from muniment_projections.base import Connection, Folded
from muniment_projections.registry import tables
from muniment_projections.registry.then import When, model_at
from muniment_schemas.envelope import CATALOG
from muniment_services.documents import parse
from muniment_services.domain.commands import Command
from muniment_services.domain.model_version import (
    CreateModelVersion,
    DeleteModelVersion,
    DeleteModelVersionTag,
    SetModelVersionTag,
    TransitionStage,
    UpdateModelVersion,
)
from muniment_services.domain.registered_model import KIND, RegisteredModel, aliases_of
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
from muniment_services.domain.registry_names import STAGES
from muniment_services.state import CurrentState
from unit.projections.registry.history import attempt, contents, database, folded

NAMES = ("a", "b")

names = st.sampled_from(NAMES)
numbers = st.sampled_from(["1", "2", "3"])
aliases = st.sampled_from(["x", "y"])
texts = st.sampled_from(["", "t"])
keys = st.sampled_from(["k", "mlflow.prompt.is_prompt"])
values = st.sampled_from(["true", "v"])

commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateRegisteredModel, name=names),
    st.builds(UpdateRegisteredModel, name=names, description=texts),
    st.builds(RenameRegisteredModel, name=names, new_name=names),
    st.builds(DeleteRegisteredModel, name=names),
    st.builds(SetRegisteredModelTag, name=names, key=keys, value=values),
    st.builds(DeleteRegisteredModelTag, name=names, key=keys),
    st.builds(SetAlias, name=names, alias=aliases, version=numbers),
    st.builds(DeleteAlias, name=names, alias=aliases),
    st.builds(CreateModelVersion, name=names, source=st.just("s3://b/x")),
    st.builds(CreateModelVersion, name=names, source=st.just("s3://b/y"), description=texts),
    st.builds(UpdateModelVersion, name=names, version=numbers, description=st.none() | texts),
    st.builds(
        TransitionStage,
        name=names,
        version=numbers,
        stage=st.sampled_from(STAGES),
        archive_others=st.booleans(),
    ),
    st.builds(DeleteModelVersion, name=names, version=numbers),
    st.builds(SetModelVersionTag, name=names, version=numbers, key=keys, value=values),
    st.builds(DeleteModelVersionTag, name=names, version=numbers, key=keys),
    governed.review_commands,
)

BEGINNING = (
    CreateRegisteredModel(name="a"),
    *(CreateModelVersion(name="a", source="s3://b/0") for _ in range(3)),
    CreateRegisteredModel(name="b"),
    CreateModelVersion(name="b", source="s3://b/1"),
)


def alone(command: Command) -> governed.Script:
    """A command that nothing has to follow."""
    return [(command, ("tester", ()))]


@st.composite
def histories(draw: st.DrawFn) -> TestWorld:
    """A world that has tried 6 to about 100 commands by a clock that may stand still or go back."""
    world = TestWorld()
    attempt(world, BEGINNING)
    single = commands.map(alone)
    kinds = st.sampled_from([single, single, governed.reviews]).flatmap(lambda kind: kind)
    steps = st.tuples(kinds, st.sampled_from([0, 1, 5, -1, -7]))
    for script, step_ms in draw(st.lists(steps, max_size=40)):
        world.now_ms += step_ms
        for command, (who, groups) in script:
            attempt(world, [governed.with_ids(world, command)], who, *groups)
    return world


def cut(items: list[Folded], places: list[int]) -> list[list[Folded]]:
    """The items in batches that end at the places."""
    ends = sorted({min(place, len(items)) for place in places} | {0, len(items)})
    return [items[start:end] for start, end in pairwise(ends)]


def check_intervals(connection: Connection) -> None:
    """Of what can be so in one way at a time, one interval ends before or where the next begins."""
    for table, alone in (
        (tables.MODEL_INTERVALS, "model_id"),
        (tables.VERSION_INTERVALS, "model_id, version"),
        (tables.STAGE_INTERVALS, "model_id, version"),
        (tables.ALIAS_INTERVALS, "model_id, alias"),
    ):
        rows = connection.execute(
            f"SELECT ({alone}), valid_from_ms, valid_to_ms, from_offset, to_offset FROM {table} "
            "ORDER BY from_offset"
        ).fetchall()
        by_subject = defaultdict(list)
        for subject, *interval in rows:
            by_subject[subject].append(interval)
        for intervals in by_subject.values():
            for (_, end, _, end_offset), (begin, _, begin_offset, _) in pairwise(intervals):
                assert end is not None
                assert (end, end_offset) <= (begin, begin_offset), table
                if table == tables.STAGE_INTERVALS:
                    assert (end, end_offset) == (begin, begin_offset), "a version has a stage"
            assert all(end is None or begin <= end for begin, end, _, _ in intervals)


@settings(max_examples=examples(25))
@given(histories(), st.lists(st.integers(0, 46), max_size=4))
def test_any_batching_gives_the_same_state_and_tables(world: TestWorld, places: list[int]) -> None:
    items = folded(world)
    with database(items) as whole, database(*cut(items, places)) as batched:
        assert contents(whole) == contents(batched)
        check_intervals(batched)
        documents = whole.execute(tables.DOCUMENTS).fetchall()
    stored = {(KIND, i): parse(KIND, document) for i, document in documents}
    assert stored == world.state.catalog


@settings(max_examples=examples(25))
@given(histories(), st.integers(0, 46))
def test_a_restart_anywhere_goes_on_to_the_same_state(world: TestWorld, place: int) -> None:
    items = folded(world)
    place = min(place, len(items))
    with database(items[:place]) as connection:
        documents = connection.execute(tables.DOCUMENTS).fetchall()
    state = CurrentState()
    state.restore({(KIND, i): parse(KIND, document) for i, document in documents})
    for record, event in list(zip(world.records, world.events, strict=True))[place:]:
        state.next_offsets.setdefault(record.at, record.offset)
        assert state.fold(record, event).void is None
    assert (state.catalog, state.names) == (world.state.catalog, world.state.names)


@settings(max_examples=examples(25))
@given(histories())
def test_every_moment_is_read_back_as_it_was(world: TestWorld) -> None:
    then: dict[When, dict[str, RegisteredModel]] = {}
    state, clock_ms = CurrentState(), 0
    for record, event in zip(world.records, world.events, strict=True):
        state.fold(record, event)
        clock_ms = max(clock_ms, event.envelope.recorded_at_ms)
        models = state.of_kind(KIND)
        living = {m.name: m for m in models if isinstance(m, RegisteredModel)}
        then[When(clock_ms)] = living
        if record.at.topic == CATALOG:
            then[When(clock_ms, record.offset)] = living
    with database(folded(world)) as connection:
        for when, models_then in then.items():
            for name in NAMES:
                found = model_at(connection, name, when)
                expected = models_then.get(name)
                assert (found is None) == (expected is None)
                if found is None or expected is None:
                    continue
                assert (found.model_id, found.aliases) == (expected.model_id, expected.aliases)
                assert [(v.version, v.stage, list(v.aliases)) for v in found.versions] == [
                    (v.version, v.stage, aliases_of(expected, v.version))
                    for _, v in sorted(expected.versions.items())
                ]
