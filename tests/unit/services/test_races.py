"""Races that keys, evictions and restarts must not decide: the log's order does, for ever."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from harness.begun import begun
from muniment_projections.runner import ProjectionsUnavailable
from muniment_services import bootstrap
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.domain.errors import AlreadyExists, Invalid
from muniment_services.domain.experiment import Experiment, RenameExperiment
from muniment_services.domain.run import Run
from muniment_services.domain.run_data import LogBatch
from muniment_services.projection_files import PROJECTIONS_FILE
from unit.services.test_write import caller, experiment, id_of, new_run, run

TRIES = 30


def nothing(_: object) -> bytes:
    return b""


def test_keyed_writes_that_lose_a_race_hear_of_it(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        run_id = await new_run(services)
        tries = [
            services.writer.submit(
                caller(f"key {i}", b"body"),
                LogBatch(run_id=run_id, params=(("p", str(i)),)),
                nothing,
            )
            for i in range(TRIES)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(result == b"" for result in results) == 1
        assert sum(isinstance(result, Invalid) for result in results) == TRIES - 1

    run(tmp_path, test)


async def race_for_a_name(services: Services) -> list[int]:
    """Experiments renamed to one name, each with its own key; the places of those that lost."""
    ids = [
        (await services.writer.submit(caller(), experiment(f"e{i}"), id_of)).decode()
        for i in range(TRIES)
    ]
    tries = [
        services.writer.submit(
            caller(f"rename {i}", b"body"), RenameExperiment(experiment_id=ids[i], name="x"), id_of
        )
        for i in range(TRIES)
    ]
    results = await asyncio.gather(*tries, return_exceptions=True)
    lost = [i for i, result in enumerate(results) if isinstance(result, AlreadyExists)]
    assert len(lost) == TRIES - 1
    return lost


def test_a_key_whose_event_was_void_is_free_before_and_after_a_restart(tmp_path: Path) -> None:
    names: dict[str, str] = {}

    async def race(services: Services) -> None:
        lost = await race_for_a_name(services)
        holder = services.fold.state.named("experiment", "x")
        assert isinstance(holder, Experiment)
        await services.writer.submit(
            caller(), RenameExperiment(experiment_id=holder.experiment_id, name="free"), id_of
        )
        names["lost"] = str(lost[0] + 1)

    async def retry(services: Services) -> None:
        key = caller(f"rename {int(names['lost']) - 1}", b"body")
        rename = RenameExperiment(experiment_id=names["lost"], name="x")
        await services.writer.submit(key, rename, id_of)
        found = services.fold.state.get("experiment", names["lost"])
        assert isinstance(found, Experiment)
        names["then"] = found.name

    async def check(services: Services) -> None:
        found = services.fold.state.get("experiment", names["lost"])
        assert isinstance(found, Experiment)
        assert found.name == names["then"] == "x"

    run(tmp_path, race)
    run(tmp_path, retry)
    (tmp_path / PROJECTIONS_FILE).unlink()
    run(tmp_path, check)


def test_what_is_in_memory_does_not_decide_what_applies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.state.STATES_IN_MEMORY_MAX", 2)
    seen: dict[str, Run] = {}

    async def write(services: Services) -> None:
        runs = await asyncio.gather(*(new_run(services) for _ in range(40)))
        for value in range(5):
            batches = [LogBatch(run_id=r, tags=(("t", str(value)),)) for r in runs]
            await asyncio.gather(
                *(services.writer.submit(caller(), batch, nothing) for batch in batches)
            )
        for run_id in runs:
            found = await services.state("run", run_id)
            assert isinstance(found, Run)
            assert found.version == 6
            seen[run_id] = found

    async def rebuilt(services: Services) -> None:
        for run_id, before in seen.items():
            assert await services.state("run", run_id) == before

    run(tmp_path, write)
    (tmp_path / PROJECTIONS_FILE).unlink()
    run(tmp_path, rebuilt)


def test_a_clock_that_is_set_back_makes_nothing_look_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([5_000, 9_000, *range(8_999, 0, -1)])
    monkeypatch.setattr(bootstrap, "now_ms", lambda: next(now))

    async def test(services: Services) -> None:
        times = []
        for i in range(5):
            await services.writer.submit(caller(), experiment(f"e{i}"), id_of)
            found = services.fold.state.named("experiment", f"e{i}")
            assert isinstance(found, Experiment)
            times.append(found.created_at_ms)
        assert times == sorted(times)
        assert min(times) >= 5_000

    run(tmp_path, test)


def test_the_server_says_when_its_projections_have_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=begun(tmp_path))) as services:
            await services.runner.fresh()

            def broken(*_: object) -> None:
                raise RuntimeError("a fault of ours")

            monkeypatch.setattr(services.runner.store, "write", broken)
            await services.writer.submit(caller(), experiment(os.urandom(4).hex()), id_of)
            with pytest.raises(ProjectionsUnavailable, match="a fault of ours"):
                await services.runner.fresh()
            with pytest.raises(ProjectionsUnavailable):
                await services.runner.fresh()
            assert services.runner.failure is not None

    asyncio.run(main())
