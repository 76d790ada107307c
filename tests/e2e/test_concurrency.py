"""Many at once: fifty processes on one experiment, threads on one run; nothing lost or doubled."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from harness.swarm import Load, swarm

PROCESSES = 50
RUNS_EACH = 2
BATCHES = 3
POINTS = 40
THREADS = 16


@pytest.mark.slow
def test_fifty_processes_log_to_one_experiment(
    client: MlflowClient, tracking_uri: str, experiment_id: str
) -> None:
    load = Load(tracking_uri, experiment_id, RUNS_EACH, BATCHES, POINTS)
    answered = swarm(load, PROCESSES)
    run_ids = {run_id for ids in answered for run_id in ids}
    assert len(run_ids) == PROCESSES * RUNS_EACH
    runs = client.search_runs([experiment_id], max_results=1000)
    assert sorted(run.info.run_id for run in runs) == sorted(run_ids)
    last = POINTS * BATCHES - 1
    for run in runs:
        name = run.info.run_name
        assert run.info.run_id in answered[int(name.split("-")[1])]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"name": name} | {f"batch-{n}": name for n in range(BATCHES)}
        assert run.data.tags["batches"] == str(BATCHES)
        assert run.data.metrics == {"loss": last / 7, "single": float(BATCHES - 1)}
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(p.step, p.value) for p in history] == [(s, s / 7) for s in range(last + 1)]
        singles = client.get_metric_history(run.info.run_id, "single")
        assert [p.step for p in singles] == list(range(BATCHES))


def test_threads_log_to_one_run(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id

    def log(number: int) -> None:
        points = [Metric("m", float(step), step, step) for step in range(number, 800, THREADS)]
        client.log_batch(run_id, metrics=points)
        client.log_param(run_id, f"p{number}", number)
        client.log_metric(run_id, f"m{number}", number, timestamp=1, step=0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(log, range(THREADS)))
    history = client.get_metric_history(run_id, "m")
    assert [point.step for point in history] == list(range(800))
    read = client.get_run(run_id)
    assert read.data.params == {f"p{n}": str(n) for n in range(THREADS)}
    assert read.data.metrics == {"m": 799.0} | {f"m{n}": float(n) for n in range(THREADS)}


def tried(call: Callable[[], object], losers_code: str) -> object | None:
    """What the call gives, or None when it lost its race with this error code."""
    try:
        return call()
    except MlflowException as refused:
        if refused.error_code != losers_code:
            raise
        return None


def test_one_of_many_wins_a_param(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id

    def race(number: int) -> object | None:
        return tried(lambda: client.log_param(run_id, "winner", number), "INVALID_PARAMETER_VALUE")

    with ThreadPoolExecutor(THREADS) as pool:
        won = [value for value in pool.map(race, range(THREADS)) if value is not None]
    assert len(won) == 1
    assert client.get_run(run_id).data.params == {"winner": str(won[0])}


def test_one_of_many_takes_a_name(client: MlflowClient, unique: str) -> None:
    def race(_: int) -> object | None:
        return tried(lambda: client.create_experiment(unique), "RESOURCE_ALREADY_EXISTS")

    with ThreadPoolExecutor(THREADS) as pool:
        made = [one for one in pool.map(race, range(THREADS)) if one is not None]
    assert len(made) == 1
    found = client.get_experiment_by_name(unique)
    assert found is not None
    assert found.experiment_id == made[0]


def test_versions_are_numbered_without_gap(client: MlflowClient, unique: str) -> None:
    client.create_registered_model(unique)
    run = client.create_run("0")
    source = f"{run.info.artifact_uri}/model"

    def register(_: int) -> int:
        return int(client.create_model_version(unique, source, run.info.run_id).version)

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(register, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert len(client.search_model_versions(f"name = '{unique}'")) == 12
