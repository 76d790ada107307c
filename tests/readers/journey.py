"""A journey by MLflow's client: events of many types, with values that are easily lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Feedback, Metric

from harness.server import process_environment

TRICKY = 'ü 😀 "quoted" \\ \u2028 \x01 end'

EVENT_TYPES = frozenset(
    """ExperimentCreated ExperimentRenamed ExperimentDeleted ExperimentRestored ExperimentTagSet
    RunCreated RunUpdated RunDeleted RunRestored BatchLogged RunTagDeleted InputsLogged
    OutputsLogged LoggedModelCreated LoggedModelFinalized ArtifactUploaded TraceStarted TraceTagSet
    AssessmentLogged RegisteredModelCreated RegisteredModelTagSet ModelVersionCreated
    ModelVersionTagSet StageTransitioned AliasSet AliasDeleted ModelVersionDeleted
    RegisteredModelDeleted""".split()
)
"""What `travel` leaves in the log, at least."""


TRAVELLED_WITHIN_S = 120.0


def travel(uri: str, name: str) -> None:
    """Use the server at `uri` as a training job and a release would. name: of all that is made.

    In a process of its own, since MLflow's client keeps what it was told in globals.
    """
    environment = process_environment() | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
    environment["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, __file__, uri, name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TRAVELLED_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _travel(uri: str, name: str) -> None:
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment_id = client.create_experiment(f"{name} {TRICKY}", tags={"team": TRICKY})
    client.set_experiment_tag(experiment_id, "owner", "ana")
    run_id = _train(client, experiment_id)
    _trace(client, experiment_id)
    _release(client, f"{name}-model", run_id)
    client.delete_run(run_id)
    client.restore_run(run_id)
    client.rename_experiment(experiment_id, f"{name} renamed")
    client.delete_experiment(experiment_id)
    client.restore_experiment(experiment_id)


def _train(client: MlflowClient, experiment_id: str) -> str:
    with mlflow.start_run(experiment_id=experiment_id, run_name=TRICKY) as run:
        mlflow.log_params({"p": TRICKY, "empty": ""})
        points = (float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1e308)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric("m", value, 1_700_000_000_000, i) for i, value in enumerate(points)],
        )
        mlflow.set_tag("gone", TRICKY)
        mlflow.delete_tag("gone")
        mlflow.log_text(TRICKY, "notes/ü.txt")
        dataset = mlflow.data.from_pandas(pd.DataFrame({"x": [1.5, None]}), name="ü")  # type: ignore[attr-defined]
        mlflow.log_input(dataset, context="training")
        model = mlflow.initialize_logged_model(name="forest", params={"depth": "3"})
        mlflow.finalize_logged_model(model.model_id, "READY")
        mlflow.log_outputs([mlflow.entities.LoggedModelOutput(model.model_id, step=2)])
    return str(run.info.run_id)


def _trace(client: MlflowClient, experiment_id: str) -> None:
    mlflow.set_experiment(experiment_id=experiment_id)
    with mlflow.start_span("answer") as span:
        span.set_inputs({"question": TRICKY})
        span.set_outputs({"answer": 42})
    mlflow.flush_trace_async_logging()
    client.set_trace_tag(span.trace_id, "checked", TRICKY)
    mlflow.log_assessment(span.trace_id, Feedback(name="good", value=0.1 + 0.2))


def _release(client: MlflowClient, name: str, run_id: str) -> None:
    client.create_registered_model(name, tags={"team": TRICKY}, description=TRICKY)
    client.set_registered_model_tag(name, "tier", "1")
    versions = [
        client.create_model_version(name, f"runs:/{run_id}/model", run_id).version for _ in range(2)
    ]
    for version in versions:
        client.transition_model_version_stage(name, version, "Production", True)
    client.set_model_version_tag(name, versions[0], "k", TRICKY)
    client.set_registered_model_alias(name, "champion", versions[1])
    client.delete_registered_model_alias(name, "champion")
    client.delete_model_version(name, versions[0])
    client.create_registered_model(f"{name}-gone")
    client.delete_registered_model(f"{name}-gone")


if __name__ == "__main__":
    _travel(*sys.argv[1:])
