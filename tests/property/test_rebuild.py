"""Random logs: whatever the batches, wherever the process dies, state and tables are the same."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import governed
from harness.examples import examples
from harness.memory_log import MemoryLog
from harness.world import TestWorld
from muniment_projections.base import Folded
from muniment_projections.digest import Digests, digests
from muniment_projections.store import Store
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Event, Idempotency
from muniment_schemas.ids import Offset
from muniment_services import bootstrap, documents, rebuild
from muniment_services.domain import experiment as x
from muniment_services.domain import run_data, run_life
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import DomainError
from muniment_services.domain.model_version import CreateModelVersion, TransitionStage
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteRegisteredModel,
    RenameRegisteredModel,
    SetAlias,
)
from muniment_services.log.base import Record, TopicPartition
from muniment_services.state import CurrentState

MEMORY = "512MB"
IN_MEMORY = Path(":memory:")
RUNS = 4

names = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from(["k", "l"])
values = st.sampled_from(["1", "2"])
experiments = st.sampled_from(["1", "2"])
floats = st.sampled_from([0.5, -1.0, math.nan, math.inf])
places = st.integers(0, RUNS - 1)
callers = st.tuples(governed.people, governed.groups)


def batch(
    place: int, param: tuple[str, str] | None, tag: tuple[str, str], points: list[tuple[str, float]]
) -> run_data.LogBatch:
    """A batch for the run at a place; `attempt` puts in the id that the run has got."""
    metrics = pack(
        [k for k, _ in points], [v for _, v in points], [7] * len(points), [1] * len(points)
    )
    return run_data.LogBatch(
        run_id=str(place),
        params=(param,) if param else (),
        tags=(tag,),
        metrics=metrics if points else None,
    )


tracked: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        x.CreateExperiment, name=names, artifact_location=st.none(), artifact_root=st.just("r:")
    ),
    st.builds(x.RenameExperiment, experiment_id=experiments, name=names),
    st.builds(x.DeleteExperiment, experiment_id=experiments),
    st.builds(x.RestoreExperiment, experiment_id=experiments),
    st.builds(x.SetExperimentTag, experiment_id=experiments, key=keys, value=values),
    st.builds(
        run_life.CreateRun,
        experiment_id=experiments,
        name=names,
        user_id=st.just("u"),
        start_time_ms=st.just(5),
    ),
    st.builds(run_life.UpdateRun, run_id=places.map(str), status=st.just("FINISHED")),
    st.builds(run_life.DeleteRun, run_id=places.map(str)),
    st.builds(run_life.RestoreRun, run_id=places.map(str)),
    st.builds(
        batch,
        places,
        st.none() | st.tuples(keys, values),
        st.tuples(keys, values),
        st.lists(st.tuples(keys, floats), max_size=3),
    ),
    st.builds(run_data.DeleteRunTag, run_id=places.map(str), key=keys),
    st.builds(CreateRegisteredModel, name=names),
    st.builds(RenameRegisteredModel, name=names, new_name=names),
    st.builds(DeleteRegisteredModel, name=names),
    st.builds(CreateModelVersion, name=names, source=st.just("s3://b/x")),
    st.builds(SetAlias, name=names, alias=st.just("x"), version=st.just("1")),
    st.builds(
        TransitionStage,
        name=names,
        version=st.sampled_from(["1", "2"]),
        stage=st.sampled_from(["Staging", "Production"]),
        archive_others=st.booleans(),
    ),
)
commands = st.sampled_from([tracked, tracked, governed.commands]).flatmap(lambda kind: kind)

BEGINNING = (
    *(x.CreateExperiment(name=n, artifact_location=None, artifact_root="r:") for n in "xy"),
    *(
        run_life.CreateRun(experiment_id="1", name=f"r{place}", user_id="u", start_time_ms=place)
        for place in range(RUNS)
    ),
    CreateRegisteredModel(name="a"),
    *(CreateModelVersion(name="a", source=f"s3://b/{number}") for number in range(2)),
)


def decide(world: TestWorld, command: Command, caller: governed.Caller) -> Event | None:
    """The command's event, with the real ids; None when it is refused or has nothing to do."""
    place = getattr(command, "run_id", None)
    if place is not None:
        runs = [e.envelope.aggregate_id for e in world.events if e.envelope.type == "RunCreated"]
        command = msgspec.structs.replace(command, run_id=runs[int(place)])
    try:
        return world.decide(governed.with_ids(world, command), caller[0], *caller[1])
    except DomainError:
        return None


def keyed(event: Event, key: int) -> Event:
    """The event as the record of a request with an Idempotency-Key."""
    mark = Idempotency(key_sha256=bytes([key] * 32), request_sha256=b"r" * 32, answer=b"{}")
    envelope = msgspec.structs.replace(event.envelope, idempotency=mark)
    return msgspec.structs.replace(event, envelope=envelope)


@st.composite
def histories(draw: st.DrawFn) -> TestWorld:
    """A log of 9 to about 70 events; a pair's commands are decided on the same state: they race."""
    world = TestWorld()
    for command in BEGINNING:
        world.do(command)
    races = st.lists(st.tuples(commands, callers), min_size=1, max_size=2)
    scripts = governed.scripts.map(lambda script: ([[pair] for pair in script], None))
    single = st.tuples(races.map(lambda raced: [raced]), st.none() | st.integers(0, 3))
    steps = st.sampled_from([single, single, scripts]).flatmap(lambda kind: kind)
    drawn = draw(st.lists(steps, max_size=30))
    for raced, key in ((raced, key) for rounds, key in drawn for raced in rounds):
        decided = [event for pair in raced if (event := decide(world, *pair)) is not None]
        for event in decided:
            written = event if key is None else keyed(event, key)
            world.state.fold(world.record(written), written)
    return world


def log_of(records: Sequence[Record]) -> MemoryLog:
    """The records as a log."""
    log = MemoryLog()
    for record in records:
        log.stored[record.at].append(record)
    return log


def ends_of(log: MemoryLog) -> dict[TopicPartition, Offset]:
    """End offsets."""
    return {at: Offset(len(records)) for at, records in log.stored.items()}


def written_live(world: TestWorld, sizes: list[int]) -> Store:
    """A store as a running server fills it: in order of arrival, partitions mixed in a batch."""
    store = Store(IN_MEMORY, bootstrap.projections(), MEMORY)
    state = CurrentState()
    folded = [state.fold(r, e) for r, e in zip(world.records, world.events, strict=True)]
    ends = sorted({min(size, len(folded)) for size in sizes} | {0, len(folded)})
    for start, end in pairwise(ends):
        part = folded[start:end]
        store.write(part, {(i.topic, i.partition): i.offset + 1 for i in part})
    return store


def rebuilt(world: TestWorld, batch_max: int = 20_000) -> Store:
    """A store as a rebuild fills it: partition by partition."""
    store = Store(IN_MEMORY, bootstrap.projections(), MEMORY)
    log = log_of(world.records)
    with patch.object(rebuild, "BATCH_EVENTS_MAX", batch_max):
        rebuild.catch_up(log, world.codec, store, ends_of(log))
    return store


def contents(store: Store) -> Digests:
    """What the store holds, by table."""
    found: Digests = store.read(digests)
    return found


def check_state(store: Store, live: CurrentState) -> None:
    """What is read back from the store is the state of the server that wrote it."""
    read = documents.current_state(store)
    assert read.catalog == live.catalog
    assert read.names == live.names
    assert read.highest_experiment == live.highest_experiment
    assert read.next_offsets == live.next_offsets
    assert {at: dict(window) for at, window in read.requests.items() if window} == {
        at: dict(window) for at, window in live.requests.items() if window
    }
    found = store.read(lambda connection: documents.find(connection, list(live.recent)))
    assert msgspec.msgpack.encode(sorted(found.items())) == msgspec.msgpack.encode(
        sorted((key, state) for key, (state, _) in live.recent.items() if state is not None)
    )


@settings(max_examples=examples(40))
@given(histories(), st.lists(st.integers(1, 60), max_size=6), st.integers(1, 9))
def test_any_batching_gives_the_same_tables_and_state(
    world: TestWorld, sizes: list[int], batch_max: int
) -> None:
    stores = [written_live(world, sizes), rebuilt(world), rebuilt(world, batch_max)]
    first, *others = [contents(store) for store in stores]
    for other in others:
        assert other == first
    for store in stores:
        check_state(store, world.state)
        store.close()


class Killed(BaseException):
    """The process ends here."""


class FrailStore(Store):
    """Dies at its n-th transaction, before or after the commit."""

    def __init__(self, path: Path, dies_at: int, after_commit: bool) -> None:
        super().__init__(path, bootstrap.projections(), MEMORY)
        self._left = dies_at
        self._after_commit = after_commit

    def write(self, batch: Sequence[Folded], checkpoints: Mapping[tuple[str, int], int]) -> None:
        """See Store.write."""
        self._left -= 1
        if self._left == 0 and not self._after_commit:
            raise Killed
        super().write(batch, checkpoints)
        if self._left == 0:
            raise Killed


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, one for each example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=examples(25))
@given(
    histories(),
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_a_process_that_dies_anywhere_goes_on_to_the_same_tables_and_state(
    world: TestWorld, deaths: list[tuple[int, bool]], batch_max: int
) -> None:
    log = log_of(world.records)
    expected = rebuilt(world)
    with folder() as at, patch.object(rebuild, "BATCH_EVENTS_MAX", batch_max):
        path = at / "projections.duckdb"
        for dies_at, after_commit in deaths:
            frail = FrailStore(path, dies_at, after_commit)
            with suppress(Killed):
                rebuild.catch_up(log, world.codec, frail, ends_of(log))
            frail.close()
        store = Store(path, bootstrap.projections(), MEMORY)
        rebuild.catch_up(log, world.codec, store, ends_of(log))
        assert contents(store) == contents(expected)
        check_state(store, world.state)
        store.close()
    expected.close()


@settings(max_examples=examples(15))
@given(histories(), st.data())
def test_catching_up_stops_exactly_where_it_is_told_to(
    world: TestWorld, data: st.DataObject
) -> None:
    log = log_of(world.records)
    store = Store(IN_MEMORY, bootstrap.projections(), MEMORY)
    rest = rebuild.CatchUp(log, world.codec, store)
    ends = {at: end for at, end in ends_of(log).items() if end}
    asked = {at: Offset(data.draw(st.integers(0, end))) for at, end in ends.items()}
    assert rest.left(asked) == sum(asked.values())
    rest.run(asked)
    assert store.checkpoints == {(a.topic, a.partition): end for a, end in asked.items() if end}
    rest.run(ends)
    assert rest.left(ends) == 0
    assert contents(store) == contents(rebuilt(world))
    store.close()
