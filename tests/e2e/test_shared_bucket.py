"""Artifacts in a bucket: the client's whole journey, and two servers that share the bucket."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sklearn.linear_model import LinearRegression

from harness.object_store import running_moto
from harness.server import Server, ServerFailed, running_muniment

pytestmark = pytest.mark.slow

MIB = 1024**2
LARGE_MIB = 200
FILES = "/api/2.0/mlflow-artifacts/artifacts"
PARTS = "/api/2.0/mlflow-artifacts/mpu"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two servers with logs of their own and one bucket for both."""
    folder = tmp_path_factory.mktemp("shared")
    with running_moto(folder) as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        place = ("--artifacts", f"{s3.make_bucket('artifacts')}/team/one")
        with (
            running_muniment(folder / "a", extra_args=place) as one,
            running_muniment(folder / "b", extra_args=place) as other,
        ):
            assert not (folder / "a" / "artifacts").exists()
            yield one, other


@pytest.fixture
def run_id(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of the first server, at which the client is pointed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers[0].url)
    return str(MlflowClient(servers[0].url).create_run("0").info.run_id)


def at(server: Server, run_id: str, path: str) -> str:
    """Where a server's proxy has a run's file."""
    return f"{server.url}{FILES}/0/{run_id}/artifacts/{urllib.parse.quote(path)}"


def test_what_one_server_stores_the_other_has(
    servers: tuple[Server, Server], run_id: str, tmp_path: Path
) -> None:
    one, other = servers
    client = MlflowClient(one.url)
    content = bytes(range(256)) * 100
    (tmp_path / "größe №1.bin").write_bytes(content)
    client.log_artifact(run_id, str(tmp_path / "größe №1.bin"), "a/b")
    client.log_text(run_id, "old", "a/note.txt")
    client.log_text(run_id, "new", "a/note.txt")
    back = mlflow.artifacts.download_artifacts(
        run_id=run_id, artifact_path="a", dst_path=str(tmp_path / "back")
    )
    assert (Path(back) / "b" / "größe №1.bin").read_bytes() == content
    assert (Path(back) / "note.txt").read_text() == "new"
    for server in servers:
        whole = requests.get(at(server, run_id, "a/b/größe №1.bin"), timeout=60)
        assert whole.content == content
        span = {"Range": "bytes=1000-1999"}
        part = requests.get(at(server, run_id, "a/b/größe №1.bin"), headers=span, timeout=60)
        assert part.status_code == 206
        assert part.content == content[1000:2000]
        assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(content)}"
    assert requests.put(at(other, run_id, "from-b"), data=b"b", timeout=60).status_code == 200
    assert [file.path for file in client.list_artifacts(run_id)] == ["a", "from-b"]


def test_deleting_leaves_nothing(servers: tuple[Server, Server], run_id: str) -> None:
    client = MlflowClient(servers[0].url)
    for number in range(3):
        client.log_text(run_id, "x", f"d/{number}.txt")
    repository: Any = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
    repository.delete_artifacts("d")
    assert client.list_artifacts(run_id) == []
    for server in servers:
        assert requests.get(at(server, run_id, "d/1.txt"), timeout=60).status_code == 404


def test_a_model_is_logged_and_loaded(run_id: str) -> None:
    model = LinearRegression().fit(np.array([[0.0], [1.0]]), np.array([1.0, 3.0]))
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.sklearn.log_model(model, name="line")
    loaded = mlflow.sklearn.load_model(logged.model_uri)
    assert loaded.predict(np.array([[2.0]]))[0] == pytest.approx(5.0)


def test_parts_of_one_upload_may_go_to_different_servers(
    servers: tuple[Server, Server], run_id: str
) -> None:
    one, other = servers
    folder = f"0/{run_id}/artifacts/parts"
    contents = [os.urandom(5 * MIB), os.urandom(5 * MIB), b"the rest"]
    body: Any = {"path": "big.bin", "num_parts": len(contents)}
    made = requests.post(f"{one.url}{PARTS}/create/{folder}", json=body, timeout=60).json()
    named = []
    for number, content in enumerate(contents, 1):
        server = (one, other)[number % 2]
        url = f"{server.url}{PARTS}/parts/{made['upload_id']}/{number}"
        stored = requests.put(url, data=content, timeout=60)
        assert stored.status_code == 200
        named.append({"part_number": number, "etag": stored.headers["ETag"], "url": url})
    body = {"path": "big.bin", "upload_id": made["upload_id"], "parts": named}
    done = requests.post(f"{other.url}{PARTS}/complete/{folder}", json=body, timeout=60)
    assert done.status_code == 200, done.text
    for server in servers:
        found = requests.get(at(server, run_id, "parts/big.bin"), timeout=60)
        assert found.content == b"".join(contents)
    again = requests.post(f"{one.url}{PARTS}/complete/{folder}", json=body, timeout=60)
    assert again.status_code == 404, "the parts are gone"


def test_a_large_file_goes_up_and_down(run_id: str, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    block = os.urandom(MIB)
    with (tmp_path / "large.bin").open("wb") as file:
        for number in range(LARGE_MIB):
            numbered = number.to_bytes(8) + block[8:]
            file.write(numbered)
            digest.update(numbered)
    client = MlflowClient()
    client.log_artifact(run_id, str(tmp_path / "large.bin"))
    back = client.download_artifacts(run_id, "large.bin", str(tmp_path))
    with Path(back).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()


def test_a_server_does_not_start_on_a_bucket_that_is_not_there(tmp_path: Path) -> None:
    with running_moto(tmp_path) as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        place = ("--artifacts", "s3://nowhere")
        with (
            pytest.raises(ServerFailed, match="there is no such bucket"),
            running_muniment(tmp_path / "data", extra_args=place),
        ):
            pass
