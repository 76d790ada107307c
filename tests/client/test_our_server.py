"""The plugin before our own server: everything is stamped, and a repeated write is recorded once.

The server runs without an issuer, so no token is asked for.
"""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import requests

from harness.server import running_muniment
from muniment_client.provider import MunimentAuthProvider

pytestmark = pytest.mark.slow
TIMEOUT_S = 30


def test_a_run_is_logged_and_a_repeated_write_counts_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with running_muniment(tmp_path / "data") as server:
        mlflow.set_tracking_uri(server.url)
        with mlflow.start_run() as run:
            mlflow.log_params({"depth": 3})
            mlflow.log_metric("loss", 0.5, step=1)
            mlflow.log_text("notes", "notes.txt")
        run_id = run.info.run_id
        write = requests.Request(
            "POST",
            f"{server.url}/api/2.0/mlflow/runs/create",
            json={"experiment_id": "0", "run_name": "once"},
            auth=MunimentAuthProvider().get_auth(),
        ).prepare()
        with requests.Session() as session:
            answers = [session.send(write, timeout=TIMEOUT_S).json() for _ in range(3)]
        found = mlflow.MlflowClient().search_runs(["0"])
        logged = mlflow.MlflowClient().get_run(run_id)
        history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
        assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes.txt") == "notes"
    assert len({answer["run"]["info"]["run_id"] for answer in answers}) == 1
    assert sorted(one.info.run_name for one in found).count("once") == 1
    assert logged.data.params == {"depth": "3"}
    assert [point.value for point in history] == [0.5]
