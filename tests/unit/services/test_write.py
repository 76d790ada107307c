"""The write path on a real embedded log: races, repeats, refusals, what is acknowledged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import duckdb
import pytest

from harness.world import TestWorld
from muniment_projections import runner
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Actor
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services import bootstrap, fold, write
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.domain.commands import Context
from muniment_services.domain.deciders import DECIDERS
from muniment_services.domain.errors import AlreadyExists, DomainError, Invalid, KeyReused
from muniment_services.domain.experiment import CreateExperiment, Experiment, RenameExperiment
from muniment_services.domain.run import Run
from muniment_services.domain.run_data import LogBatch, LogInputs, LogOutputs
from muniment_services.domain.run_life import CreateRun
from muniment_services.log.base import LogBackpressure, LogUnavailable, TopicPartition
from muniment_services.write import Caller, Outcome, record_of

ACTOR = Actor(principal_id="tester", auth_method="local")


def caller(key: str | None = None, request: bytes = b"") -> Caller:
    return Caller(
        actor=ACTOR,
        request_id=os.urandom(4).hex(),
        workspace="default",
        idempotency_key=key,
        request=request,
    )


@asynccontextmanager
async def application(folder: Path) -> AsyncIterator[Services]:
    async with bootstrap.services(Settings(data_dir=folder)) as services:
        yield services


def run(folder: Path, test: Callable[[Services], Awaitable[None]]) -> None:
    async def main() -> None:
        async with application(folder) as services:
            await test(services)

    asyncio.run(main())


def experiment(name: str) -> CreateExperiment:
    return CreateExperiment(name=name, artifact_location=None, artifact_root="mlflow-artifacts:")


def id_of(outcome: Outcome) -> bytes:
    assert outcome.event is not None
    return outcome.event.envelope.aggregate_id.encode()


def test_racing_creations_have_one_winner_and_mlflow_words_for_the_rest(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        tries = [services.writer.submit(caller(), experiment("same"), id_of) for _ in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        won = [r for r in results if isinstance(r, bytes)]
        lost = [r for r in results if isinstance(r, AlreadyExists)]
        assert (len(won), len(lost)) == (1, 19)

    run(tmp_path, test)


def test_different_creations_all_succeed_with_ids_of_their_own(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        tries = [services.writer.submit(caller(), experiment(f"e{i}"), id_of) for i in range(20)]
        ids = await asyncio.gather(*tries)
        assert sorted(map(int, ids)) == list(range(1, 21))

    run(tmp_path, test)


async def new_run(services: Services) -> str:
    command = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=1)
    return (await services.writer.submit(caller(), command, id_of)).decode()


def test_of_racing_params_one_value_wins_and_all_others_hear_of_it(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        run_id = await new_run(services)
        tries = [
            services.writer.submit(
                caller(), LogBatch(run_id=run_id, params=(("p", str(i)),)), lambda _: b""
            )
            for i in range(20)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert [r for r in results if r == b""] == [b""]
        refused = [r for r in results if isinstance(r, Invalid)]
        assert len(refused) == 19
        assert all("Changing param values is not allowed" in r.message for r in refused)
        found = await services.state("run", run_id)
        assert isinstance(found, Run)
        assert len(found.params) == 1

    run(tmp_path, test)


def test_repeats_of_a_keyed_request_get_the_first_answer(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        first = await services.writer.submit(caller("k", b"body"), experiment("one"), id_of)
        rename = RenameExperiment(experiment_id=first.decode(), name="two")
        await services.writer.submit(caller(), rename, id_of)
        again = await services.writer.submit(caller("k", b"body"), experiment("one"), id_of)
        assert again == first
        assert services.fold.state.named("experiment", "one") is None
        with pytest.raises(KeyReused):
            await services.writer.submit(caller("k", b"other"), experiment("three"), id_of)

    run(tmp_path, test)


def test_keyed_repeats_at_the_same_time_are_one_write(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        command = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=1)
        tries = [services.writer.submit(caller("k", b"b"), command, id_of) for _ in range(10)]
        assert len(set(await asyncio.gather(*tries))) == 1

    run(tmp_path, test)


def test_keys_are_remembered_over_a_restart(tmp_path: Path) -> None:
    answers: list[bytes] = []

    async def test(services: Services) -> None:
        answers.append(await services.writer.submit(caller("k", b"b"), experiment("one"), id_of))

    run(tmp_path, test)
    run(tmp_path, test)
    assert answers[0] == answers[1]


def test_a_key_belongs_to_its_principal(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.writer.submit(caller("k", b"b"), experiment("one"), id_of)
        other = Caller(
            actor=Actor(principal_id="other", auth_method="local"),
            request_id="r",
            workspace="default",
            idempotency_key="k",
            request=b"b",
        )
        with pytest.raises(AlreadyExists):
            await services.writer.submit(other, experiment("one"), id_of)

    run(tmp_path, test)


def test_state_and_rows_are_the_same_after_a_restart(tmp_path: Path) -> None:
    seen: list[object] = []

    async def write(services: Services) -> None:
        run_id = await new_run(services)
        columns = pack(["m", "m"], [1.0, 2.0], [1, 2], [0, 1])
        batch = LogBatch(run_id=run_id, params=(("a", "b"),), tags=(("t", "u"),), metrics=columns)
        await services.writer.submit(caller(), batch, lambda _: b"")
        dataset = e.DatasetInput(name="d", digest="1", source_type="s", source="x", tags={"a": "b"})
        inputs = LogInputs(run_id=run_id, datasets=(dataset,), models=("m-1",))
        await services.writer.submit(caller(), inputs, lambda _: b"")
        outputs = LogOutputs(run_id=run_id, models=(e.ModelOutput(model_id="m-2", step=1),))
        await services.writer.submit(caller(), outputs, lambda _: b"")
        seen.append(await services.state("run", run_id))
        seen.append(run_id)

    async def read(services: Services) -> None:
        assert services.fold.state.recent == {}
        assert await services.state("run", str(seen[1])) == seen[0]

    run(tmp_path, write)
    run(tmp_path, read)


def test_refusals_leave_nothing_in_the_log(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        before = await services.fold.log.end_offsets()
        for command in (
            experiment("x" * 501),
            LogBatch(run_id="nope", params=(("a", "b"),)),
            RenameExperiment(experiment_id="77", name="x"),
        ):
            with pytest.raises(DomainError):
                await services.writer.submit(caller(), command, id_of)
        assert await services.fold.log.end_offsets() == before

    run(tmp_path, test)


def test_a_fresh_log_begins_with_schemas_the_local_user_and_the_default_experiment(
    tmp_path: Path,
) -> None:
    async def first(services: Services) -> None:
        state = services.fold.state
        default = state.get("experiment", "0")
        assert isinstance(default, Experiment)
        assert (default.name, default.artifact_location) == ("Default", "mlflow-artifacts:/0")
        assert state.get("principal", bootstrap.local_user().id) is not None
        assert len(list(state.of_kind("schema"))) == len(Schemas.load().by_version)
        ends.append(await services.fold.log.end_offsets())

    ends: list[Mapping[TopicPartition, Offset]] = []
    run(tmp_path, first)
    run(tmp_path, first)
    assert ends[0] == ends[1], "a second start writes nothing"


def test_writes_after_the_log_has_closed_are_unavailable(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.fold.log.close()
        with pytest.raises(LogUnavailable):
            await services.writer.submit(caller(), experiment("late"), id_of)

    run(tmp_path, test)


def test_a_failed_append_is_not_acknowledged_and_leaves_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(services: Services) -> None:
        log = services.fold.log
        append = log.append

        def refuse(record: object) -> asyncio.Future[object]:
            failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            failed.set_exception(LogUnavailable("disk full"))
            return failed

        monkeypatch.setattr(log, "append", refuse)
        with pytest.raises(LogUnavailable, match="disk full"):
            await services.writer.submit(caller(), experiment("one"), id_of)
        assert services.fold.state.named("experiment", "one") is None
        monkeypatch.setattr(log, "append", append)
        await services.writer.submit(caller(), experiment("one"), id_of)
        assert services.fold.state.named("experiment", "one") is not None

    run(tmp_path, test)


@contextmanager
def full_disk(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The projections cannot be written, until the end."""

    def refuse(*_: object) -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "RETRY_S", 0.1)
        patched.setattr(services.runner.store, "write", refuse)
        yield


def test_writes_are_refused_while_too_many_events_wait_for_the_projections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(services: Services) -> None:
        await services.runner.fresh(trail=True)
        monkeypatch.setattr(write, "PENDING_EVENTS_MAX", 5)
        with full_disk(services, monkeypatch):
            for number in range(6):
                await services.writer.submit(caller(), experiment(f"e{number}"), id_of)
            with pytest.raises(LogBackpressure, match="too far behind"):
                await services.writer.submit(caller(), experiment("late"), id_of)
            assert services.fold.state.named("experiment", "late") is None
        await asyncio.sleep(0.2)
        await services.runner.fresh()
        await services.writer.submit(caller(), experiment("late"), id_of)

    run(tmp_path, test)


def test_what_others_write_is_not_taken_up_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica's disk is not full, so it goes on writing."""

    async def test(services: Services) -> None:
        await services.runner.fresh(trail=True)
        monkeypatch.setattr(fold, "AHEAD_EVENTS_MAX", 5)
        log, state = services.fold.log, services.fold.state
        codec = bootstrap.codec(log)
        context = Context(1, os.urandom, ACTOR, "r", "default")
        with full_disk(services, monkeypatch):
            for start in range(30):
                command = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=start)
                event = DECIDERS[CreateRun](state, command, context)
                assert event is not None
                run_id = event.envelope.aggregate_id
                await log.append(record_of(event, codec, log))
                await asyncio.sleep(0.01)
            assert 5 < services.runner.backlog < 30
        await services.fold.caught_up()
        assert await services.state("run", run_id) is not None

    run(tmp_path, test)


def test_what_was_evicted_is_read_back_as_it_is_and_deletions_stay_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.state.STATES_IN_MEMORY_MAX", 3)

    async def test(services: Services) -> None:
        runs = await asyncio.gather(*(new_run(services) for _ in range(30)))
        for value in range(3):
            await asyncio.gather(
                *(
                    services.writer.submit(
                        caller(),
                        LogBatch(run_id=run_id, tags=(("t", str(value)),)),
                        lambda _: b"",
                    )
                    for run_id in runs
                )
            )
        await services.runner.fresh()
        await new_run(services)
        assert len(services.fold.state.recent) <= 4
        for run_id in runs:
            found = await services.state("run", run_id)
            assert isinstance(found, Run)
            assert (found.tags["t"], found.version) == ("2", 4)
        assert await services.state("run", "absent") is None

    run(tmp_path, test)


def test_memory_keeps_what_the_projections_do_not_have_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("muniment_services.state.STATES_IN_MEMORY_MAX", 2)
    world = TestWorld()
    world.do(experiment("e"))
    for start in range(5):
        world.do(CreateRun(experiment_id="1", name="r", user_id="u", start_time_ms=start))
    world.state.trim(written=3)  # The experiment and two runs are written.
    assert len(world.state.recent) == 3
    world.state.trim(written=6)
    assert len(world.state.recent) == 2
