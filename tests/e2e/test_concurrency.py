"""Many at once: fifty processes on one experiment, threads on one run; nothing lost or doubled."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

WORKER = Path(__file__).parents[1] / "harness" / "swarm_worker.py"
PROCESSES = 50
RUNS_EACH = 2
BATCHES = 3
POINTS = 40
DONE_WITHIN_S = 240.0
THREADS = 16


@contextmanager
def worker(uri: str, experiment_id: str, number: int) -> Iterator[subprocess.Popen[str]]:
    """A process of the swarm, waiting for its start; killed at the end if it is still there."""
    sizes = [str(number) for number in (RUNS_EACH, BATCHES, POINTS)]
    process = subprocess.Popen(
        [sys.executable, str(WORKER), uri, experiment_id, str(number), *sizes],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def swarm(uri: str, experiment_id: str) -> dict[str, list[str]]:
    """Run all processes at once; gives the run ids that each printed, by worker number."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(worker(uri, experiment_id, number)) for number in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = {}
        for number, process in enumerate(processes):
            output, errors = process.communicate(timeout=DONE_WITHIN_S)
            assert process.returncode == 0, errors
            printed[str(number)] = output.split()
    return printed


@pytest.mark.slow
def test_fifty_processes_log_to_one_experiment(
    client: MlflowClient, tracking_uri: str, experiment_id: str
) -> None:
    printed = swarm(tracking_uri, experiment_id)
    run_ids = {run_id for ids in printed.values() for run_id in ids}
    assert len(run_ids) == PROCESSES * RUNS_EACH
    runs = client.search_runs([experiment_id], max_results=1000)
    assert sorted(run.info.run_id for run in runs) == sorted(run_ids)
    last = POINTS * BATCHES - 1
    for run in runs:
        name = run.info.run_name
        assert run.info.run_id in printed[name.split("-")[1]]
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


def test_one_of_many_wins_a_param(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id

    def race(number: int) -> bool:
        try:
            client.log_param(run_id, "winner", number)
        except MlflowException as refused:
            assert refused.error_code == "INVALID_PARAMETER_VALUE"
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        won = [number for number, is_won in enumerate(pool.map(race, range(THREADS))) if is_won]
    assert len(won) == 1
    assert client.get_run(run_id).data.params == {"winner": str(won[0])}


def test_one_of_many_takes_a_name(client: MlflowClient, unique: str) -> None:
    def race(_: int) -> str | None:
        try:
            return str(client.create_experiment(unique))
        except MlflowException as refused:
            assert refused.error_code == "RESOURCE_ALREADY_EXISTS"
            return None

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
