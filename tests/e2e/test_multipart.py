"""Multipart uploads: by the client when it is told to, and given up half-way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow import MlflowClient

MIB = 1024**2
PARTS = "/api/2.0/mlflow-artifacts/mpu"


def test_the_client_uploads_in_parts(
    client: MlflowClient, experiment_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(5 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MIB))
    content = os.urandom(12 * MIB + 7)
    (tmp_path / "large.bin").write_bytes(content)
    run_id = client.create_run(experiment_id).info.run_id
    client.log_artifact(run_id, str(tmp_path / "large.bin"), "deep/er")
    found = mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path="deep/er/large.bin", dst_path=str(tmp_path / "back")
    )
    assert hashlib.sha256(Path(found).read_bytes()).digest() == hashlib.sha256(content).digest()
    assert [file.file_size for file in client.list_artifacts(run_id, "deep/er")] == [len(content)]


def test_an_upload_that_is_given_up_leaves_nothing(
    client: MlflowClient, tracking_uri: str, experiment_id: str
) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    place = f"{experiment_id}/{run_id}/artifacts"
    made = requests.post(
        f"{tracking_uri}{PARTS}/create/{place}",
        json={"path": "big.bin", "num_parts": 2},
        timeout=60,
    ).json()
    first = made["credentials"][0]["url"]
    assert requests.put(first, data=b"a" * 1000, timeout=60).status_code == 200
    given_up = {"path": "big.bin", "upload_id": made["upload_id"]}
    for _ in range(2):
        aborted = requests.post(f"{tracking_uri}{PARTS}/abort/{place}", json=given_up, timeout=60)
        assert aborted.status_code == 200
    completed = requests.post(
        f"{tracking_uri}{PARTS}/complete/{place}", json={**given_up, "parts": []}, timeout=60
    )
    assert completed.status_code == 404
    assert requests.put(first, data=b"late", timeout=60).status_code == 404
    assert client.list_artifacts(run_id) == []
