"""What the unmodified mlflow client does in a narrow role, over HTTP, by an issuer's token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mlflow
import mlflow.pyfunc
import pytest
import requests
from mlflow import MlflowClient

from harness.issuer import Client, Issuer, User
from harness.server import Server, running_muniment

AUDIENCE = "muniment"
CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

As = Callable[[str], None]


def doubling(model_input: list[int]) -> list[int]:
    """A model: twice each."""
    return [2 * value for value in model_input]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    users = [User("root", groups=("admins",)), User("job"), User("reader")]
    with Issuer(users=users, clients=[Client("cli")], audience=AUDIENCE) as running:
        running.lives.access_s = 3600
        yield running


@pytest.fixture(scope="module")
def server(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """job logs to all experiments; reader sees the models `shared*` and nothing else."""
    flags = ("--issuer", issuer.url, "--audience", AUDIENCE, "--admin-group", "admins")
    folder = tmp_path_factory.mktemp("server") / "data"
    with running_muniment(folder, extra_args=flags) as running:
        for who, role, kind, pattern in (
            ("job", "logger", "experiment", "*"),
            ("reader", "viewer", "model", "shared*"),
        ):
            grant = {"role": role, "resource_kind": kind, "pattern": pattern}
            claims = [{"name": "sub", "pattern": who}]
            given = {"subject_kind": "claims", "issuer": issuer.url, "claims": claims, **grant}
            carried = {"authorization": f"Bearer {issuer.access_token('root')}"}
            made = httpx.post(f"{running.url}/api/v1/access/grants", json=given, headers=carried)
            assert made.status_code == 200, made.text
        yield running


@pytest.fixture
def acting(issuer: Issuer, server: Server, monkeypatch: pytest.MonkeyPatch) -> As:
    """Makes the client somebody."""
    for name, value in CLIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)

    def become(who: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", issuer.access_token(who))

    return become


def test_a_logger_appends_to_tables_and_lists_its_files(acting: As) -> None:
    acting("job")
    with mlflow.start_run() as run:
        for value in (1, 2):
            mlflow.log_table({"x": [value]}, "table.json")
        mlflow.log_dict({"a": 1}, "made.json")
        run_id = run.info.run_id
    assert mlflow.load_table("table.json", run_ids=[run_id])["x"].tolist() == [1, 2]
    assert {f.path for f in MlflowClient().list_artifacts(run_id)} == {"table.json", "made.json"}
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/made.json") == {"a": 1}


@pytest.mark.parametrize("of_run", [True, False], ids=["of-a-run", "of-a-logged-model"])
def test_a_viewer_of_a_model_loads_its_version(acting: As, tmp_path: Path, of_run: bool) -> None:
    acting("root")
    name = f"shared-{of_run}"
    MlflowClient().create_registered_model(name)
    if of_run:
        folder = tmp_path / "model"
        mlflow.pyfunc.save_model(str(folder), python_model=doubling, pip_requirements=[])
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(folder), "model")
            mlflow.log_text("secret", "beside.txt")
        source = f"{run.info.artifact_uri}/model"
        MlflowClient().create_model_version(name, source, run_id=run.info.run_id)
    else:
        with mlflow.start_run() as run:
            mlflow.pyfunc.log_model(
                name="m", python_model=doubling, pip_requirements=[], registered_model_name=name
            )
            mlflow.log_text("secret", "beside.txt")
    acting("reader")
    assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict([1, 2]) == [2, 4]
    with pytest.raises(requests.HTTPError, match="no artifact:read on this path"):
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/beside.txt")
