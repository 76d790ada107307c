"""The Production model leaves the registry: served over HTTP, as a Dockerfile, and in bulk."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from harness.forest import FEATURES, Data, Trained, log_forest, make_data
from harness.server import free_port, is_healthy

SERVED_WITHIN_S = 90.0
POLL_S = 0.2
REQUESTS = 1_000
WORKERS = 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # stages are deprecated, and used
]


@dataclass(frozen=True, slots=True)
class InProduction:
    """A registered model, the forest that is its Production version, and rows to ask about."""

    name: str
    forest: Trained
    data: Data


@pytest.fixture(scope="module")
def production(tracking_uri: str) -> InProduction:
    """A model with one version, in Production, registered for this file."""
    data = make_data(seed=11)
    client = MlflowClient(tracking_uri)
    mlflow.set_experiment("serving journeys")
    name = f"served-{os.getpid()}-{time.time_ns()}"
    forest = log_forest(data, register_as=name)
    client.transition_model_version_stage(name, "1", "Production")
    return InProduction(name, forest, data)


@contextmanager
def served(model_uri: str, log_path: Path) -> Iterator[str]:
    """`mlflow models serve` of a model, once it answers; gives its URL, ends it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model_uri]
    command += ["-p", str(port), "-h", "127.0.0.1", "--env-manager", "local", "--workers", "1"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SERVED_WITHIN_S
        while not is_healthy(url, "/ping"):
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline, log_path.read_text()
            time.sleep(POLL_S)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def invoke(url: str, body: dict[str, Any]) -> list[float]:
    """POST to /invocations; gives the predictions."""
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=SERVED_WITHIN_S) as answer:
        predictions: list[float] = json.load(answer)["predictions"]
    return predictions


def test_the_production_model_is_served(production: InProduction, tmp_path: Path) -> None:
    rows = production.data.test.head(5)
    expected = production.forest.model.predict(rows)
    with served(f"models:/{production.name}/Production", tmp_path / "serve.log") as url:
        split = invoke(url, {"dataframe_split": rows.to_dict(orient="split")})
        np.testing.assert_allclose(split, expected)
        records = invoke(url, {"dataframe_records": rows.to_dict(orient="records")})
        np.testing.assert_allclose(records, expected)


def test_a_dockerfile_is_generated(production: InProduction, tmp_path: Path) -> None:
    folder = tmp_path / "image"
    command = [sys.executable, "-m", "mlflow", "models", "generate-dockerfile"]
    command += ["-m", f"models:/{production.name}/Production", "-d", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SERVED_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    dockerfile = (folder / "Dockerfile").read_text()
    assert "COPY model_dir" in dockerfile
    assert "ENTRYPOINT" in dockerfile
    stored = folder / "model_dir"
    assert {"MLmodel", "model.skops"} <= {path.name for path in stored.rglob("*")}


def test_predictions_by_the_command_line(production: InProduction, tmp_path: Path) -> None:
    rows = production.data.test.head(3)
    source, target = tmp_path / "in.csv", tmp_path / "out.json"
    rows.to_csv(source, index=False)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "--env-manager", "local"]
    command += ["-m", f"runs:/{production.forest.run_id}/model", "-t", "csv"]
    command += ["-i", str(source), "-o", str(target)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SERVED_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    predicted = json.loads(target.read_text())["predictions"]
    np.testing.assert_allclose(predicted, production.forest.model.predict(rows))


def test_a_thousand_inferences_are_logged_as_runs(
    client: MlflowClient, experiment_id: str, production: InProduction
) -> None:
    model = mlflow.pyfunc.load_model(f"models:/{production.name}/Production")
    rows = make_data(seed=12).train.sample(REQUESTS, replace=True, random_state=1)
    predictions = model.predict(rows)

    def log_one(number: int) -> str:
        run_id = str(client.create_run(experiment_id, run_name=f"request-{number}").info.run_id)
        row = rows.iloc[number]
        client.log_batch(
            run_id,
            metrics=[Metric("prediction", float(predictions[number]), number + 1, 0)],
            params=[Param(feature, repr(float(row[feature]))) for feature in FEATURES],
            tags=[RunTag("model", production.name), RunTag("number", str(number))],
        )
        client.set_terminated(run_id)
        return run_id

    with ThreadPoolExecutor(WORKERS) as pool:
        run_ids = list(pool.map(log_one, range(REQUESTS)))
    found = client.search_runs(
        [experiment_id], f"tags.model = '{production.name}'", max_results=REQUESTS + 1
    )
    assert len(found) == REQUESTS
    by_number = {int(run.data.tags["number"]): run for run in found}
    for number, run_id in enumerate(run_ids):
        run = by_number[number]
        assert run.info.run_id == run_id
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {"prediction": float(predictions[number])}
        assert run.data.params == {
            feature: repr(float(rows.iloc[number][feature])) for feature in FEATURES
        }
    highest = client.search_runs(
        [experiment_id], order_by=["metrics.prediction DESC"], max_results=1
    )[0]
    assert highest.data.metrics["prediction"] == max(predictions)
