"""A training job as a process of its own: MLflow's unmodified client logs runs until told to end.

Every run gets a param, a tag and points by every call there is, is read back, and is checked. What
the client raises ends the job, and is its result. Settings of the client are its defaults but for
the waiting, which is shortened; nothing is retried here but what the client retries itself.

    python -m harness.training URI NAME     (ends when its standard input is closed)
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from harness.server import process_environment

STEPS = 20
ENDED_WITHIN_S = 180.0
MODULE = "harness.training"


def train(uri: str, name: str, is_over: Callable[[], bool]) -> dict[str, Any]:
    """Log runs, one at least; gives what was logged: run ids, calls and the slowest of them."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if found is None else str(found.experiment_id)
    runs: list[str] = []
    calls, slowest_s = 0, 0.0
    while not (runs and is_over()):
        run_id = str(client.create_run(experiment_id, run_name=f"{name}-{len(runs)}").info.run_id)
        client.log_param(run_id, "number", len(runs))
        for step in range(STEPS):
            began = time.monotonic()
            if step % 4:
                client.log_metric(run_id, "loss", step / 7, timestamp=1 + step, step=step)
            else:
                client.log_batch(
                    run_id,
                    metrics=[Metric("loss", step / 7, 1 + step, step)],
                    params=[Param(f"p{step}", "v")],
                    tags=[RunTag("step", str(step))],
                )
            slowest_s = max(slowest_s, time.monotonic() - began)
            calls += 1
        client.set_terminated(run_id)
        read = client.get_run(run_id)
        assert read.info.status == "FINISHED", read.info
        assert read.data.params["number"] == str(len(runs)), read.data.params
        assert read.data.metrics == {"loss": (STEPS - 1) / 7}, read.data.metrics
        runs.append(run_id)
    return {"experiment_id": experiment_id, "runs": runs, "calls": calls, "slowest_s": slowest_s}


class Jobs:
    """Training jobs at work, each in a process of its own."""

    def __init__(self, uri: str, names: Sequence[str], **variables: str) -> None:
        """names: of their experiments, made unless they are there. variables: of the environment,
        beside the caller's own.
        """
        environment = process_environment() | {"GIT_PYTHON_REFRESH": "quiet"} | variables
        environment["PYTHONPATH"] += f":{_tests_folder()}"
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", MODULE, uri, name],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
        ]

    def finished(self) -> list[dict[str, Any]]:
        """Tell all to end; gives what each logged. AssertionError: what a failed one printed."""
        results = []
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        for process in self._processes:
            out, err = process.communicate(timeout=ENDED_WITHIN_S)
            assert process.returncode == 0, err[-4_000:]
            results.append(json.loads(out.splitlines()[-1]))
        return results

    def kill(self) -> None:
        """End those that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _tests_folder() -> str:
    return __file__.rpartition("/harness/")[0]


def _input_is_closed() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    json.dump(train(sys.argv[1], sys.argv[2], _input_is_closed), sys.stdout)
