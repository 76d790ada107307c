"""What every journey needs: a server, MLflow's client pointed at it, and names of its own.

The same journeys run against any tracking server: `MUNIMENT_E2E_URI=http://…` names one that runs
already, and `MUNIMENT_E2E_URI=upstream` starts MLflow's own, so that a journey that fails here and
passes there is a fault of ours. The client is never modified, only configured by its environment.
"""

import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from harness.server import running_muniment, running_upstream

# What the client reads. Few retries, so that a wrong 5xx fails a journey in seconds, not minutes.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "OMP_NUM_THREADS": "2",
    "GIT_PYTHON_REFRESH": "quiet",
}


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI that the journeys use: ours, or what MUNIMENT_E2E_URI says."""
    wanted = os.environ.get("MUNIMENT_E2E_URI", "")
    if wanted not in ("", "upstream"):
        yield wanted.rstrip("/")
        return
    start = running_upstream if wanted else running_muniment
    with start(tmp_path_factory.mktemp("server") / "data") as server:
        yield server.url


@pytest.fixture(scope="session")
def tracking_uri(server_uri: str) -> Iterator[str]:
    """The server's URI, with the client and all that it starts pointed at it by environment."""
    bin_folder = str(Path(sys.executable).parent)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        for name, value in CLIENT_SETTINGS.items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_TRACKING_URI", server_uri)
        patch.setenv("PATH", os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]))
        yield server_uri


@pytest.fixture(autouse=True)
def clean_client(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A client without a past: no open run, no autolog, a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    for integration in (mlflow.sklearn, mlflow.xgboost):
        integration.autolog(disable=True, silent=True)
    mlflow.set_experiment(experiment_id="0")


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """The low-level client."""
    return MlflowClient(tracking_uri)


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name of this test alone, on a server that may hold other runs of the same test."""
    stem = re.sub(r"\W+", "-", request.node.name).removeprefix("test_").strip("-")
    return f"{stem[:60]}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def experiment_id(unique: str) -> str:
    """A new experiment of this test, the active one of the fluent API."""
    return str(mlflow.set_experiment(unique).experiment_id)
