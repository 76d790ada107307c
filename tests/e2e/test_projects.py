"""An MLproject by the command line: the run, its parameters and tags, and what it logged."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from harness.reading import outputs_of

PROJECT = Path(__file__).parent / "projects" / "forest"
RUN_WITHIN_S = 120.0

pytestmark = pytest.mark.slow


def mlflow_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`mlflow run` of the project with a local environment, its output kept."""
    # set_experiment leaves this for child processes, and the command takes an id or a name only.
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_EXPERIMENT_ID"}
    command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "--env-manager", "local"]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=RUN_WITHIN_S,
        check=False,
        env=environment,
    )


def test_a_project_runs(client: MlflowClient, experiment_id: str, unique: str) -> None:
    parameters = ["-P", "n_estimators=7", "-P", "label=green"]
    done = mlflow_run("--experiment-name", unique, "--run-name", "from a project", *parameters)
    assert done.returncode == 0, done.stderr
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "from a project"
    assert run.data.params == {"n_estimators": "7", "max_depth": "3", "label": "green"}
    assert run.data.metrics["training_score"] > 0.5
    tags = run.data.tags
    assert tags["mlflow.project.entryPoint"] == "main"
    assert tags["mlflow.project.backend"] == "local"
    assert tags["mlflow.source.type"] == "PROJECT"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/label.txt") == "green"
    (output,) = outputs_of(run)
    model = mlflow.sklearn.load_model(f"models:/{output.model_id}")
    assert model.n_estimators == 7


def test_a_failing_project_fails_its_run(
    client: MlflowClient, experiment_id: str, unique: str
) -> None:
    done = mlflow_run("--experiment-name", unique, "-e", "fail")
    assert done.returncode != 0
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.project.entryPoint"] == "fail"
