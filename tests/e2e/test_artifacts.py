"""Artifacts by the client's proxy: every way in, every way out, and the bytes the same."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from PIL import Image
from requests import HTTPError

GIB = 1024**3
BLOCK_BYTES = 4 * 1024**2
DEEP_FOLDERS = 30
ODD_NAMES = ("naïve größe.txt", "日本語/報告 №1.json", "a+b&c=d;e f.bin", "emoji 😀.txt", ".hidden")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hex, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(folder: Path) -> dict[str, str]:
    """Each file below `folder` by its relative path, with its digest."""
    return {str(p.relative_to(folder)): sha256(p) for p in folder.rglob("*") if p.is_file()}


def test_things_are_logged_as_files(
    client: MlflowClient, experiment_id: str, tmp_path: Path
) -> None:
    local = tmp_path / "report.csv"
    local.write_text("a,b\n1,2\n")
    table = pd.DataFrame({"x": [1, 2], "y": ["ä", None]})
    figure = Figure()
    figure.add_subplot().plot([1, 2, 3])
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(local), "reports/2026")
        mlflow.log_text("grüße\nline", "notes/hello.txt")
        mlflow.log_dict({"k": [1, {"z": None}]}, "conf/a.json")
        mlflow.log_dict({"k": "ü"}, "conf/b.yaml")
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(pixels, "pixels.png")
        mlflow.log_table(table, "table.json")
        mlflow.log_table({"x": [3], "y": ["z"]}, "table.json")
    run_id, uri = run.info.run_id, run.info.artifact_uri
    listed = {(f.path, f.is_dir) for f in client.list_artifacts(run_id)}
    assert listed == {
        ("conf", True),
        ("notes", True),
        ("pixels.png", False),
        ("plots", True),
        ("reports", True),
        ("table.json", False),
    }
    (nested,) = client.list_artifacts(run_id, "reports/2026")
    assert (nested.path, nested.file_size) == ("reports/2026/report.csv", 8)
    assert mlflow.artifacts.load_text(f"{uri}/notes/hello.txt") == "grüße\nline"
    assert mlflow.artifacts.load_dict(f"{uri}/conf/a.json") == {"k": [1, {"z": None}]}
    assert mlflow.artifacts.load_image(f"{uri}/pixels.png").size == (4, 4)
    both = mlflow.load_table("table.json", run_ids=[run_id])
    assert list(both["x"]) == [1, 2, 3]
    plot = Path(client.download_artifacts(run_id, "plots/line.png"))
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_a_folder_comes_back_the_same(
    client: MlflowClient, experiment_id: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    deep = source.joinpath(*[f"level {n}" for n in range(DEEP_FOLDERS)])
    deep.mkdir(parents=True)
    (deep / "bottom.txt").write_text("here")
    for number, name in enumerate(ODD_NAMES):
        odd = source / "odd" / name
        odd.parent.mkdir(parents=True, exist_ok=True)
        odd.write_bytes(bytes(range(256)) * number)
    (source / "big.bin").write_bytes(os.urandom(3 * 1024**2 + 17))
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(source), "all of it")
    back = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="all of it", dst_path=str(tmp_path / "back")
    )
    assert tree(Path(back)) == tree(source)
    sizes = {f.path: f.file_size for f in client.list_artifacts(run.info.run_id, "all of it/odd")}
    assert not sizes["all of it/odd/naïve größe.txt"], "an empty file is listed without a size"
    assert sizes["all of it/odd/emoji 😀.txt"] == 256 * 3
    by_uri = mlflow.artifacts.download_artifacts(
        artifact_uri=f"runs:/{run.info.run_id}/all of it/odd", dst_path=str(tmp_path / "by-uri")
    )
    assert tree(Path(by_uri)) == tree(source / "odd")


def test_a_file_is_overwritten_and_deleted(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    client.log_text(run_id, "a longer first text", "a/file.txt")
    client.log_text(run_id, "second", "a/file.txt")
    uri = client.get_run(run_id).info.artifact_uri
    assert mlflow.artifacts.load_text(f"{uri}/a/file.txt") == "second"
    (listed,) = client.list_artifacts(run_id, "a")
    assert listed.file_size == len("second")
    client.log_text(run_id, "other", "a/kept.txt")
    repository: Any = get_artifact_repository(uri)
    repository.delete_artifacts("a/file.txt")
    assert [f.path for f in client.list_artifacts(run_id, "a")] == ["a/kept.txt"]


def test_what_is_not_there_is_said(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    assert client.list_artifacts(run_id) == []
    assert client.list_artifacts(run_id, "nowhere") == []
    uri = client.get_run(run_id).info.artifact_uri
    with pytest.raises(MlflowException, match=r"No such artifact|does not exist|404"):
        mlflow.artifacts.load_text(f"{uri}/absent.txt")
    with pytest.raises(HTTPError, match="Invalid path") as refused:
        client.list_artifacts(run_id, "../../elsewhere")
    assert refused.value.response is not None
    assert refused.value.response.status_code == 400


def test_artifacts_may_be_listed_by_uri(experiment_id: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("x", "d/one.txt")
        mlflow.log_text("y", "d/two.txt")
        assert mlflow.get_artifact_uri("d/one.txt").endswith("/artifacts/d/one.txt")
    found = mlflow.artifacts.list_artifacts(artifact_uri=f"runs:/{run.info.run_id}/d")
    assert sorted(f.path.rsplit("/", 1)[-1] for f in found) == ["one.txt", "two.txt"]


def test_a_json_artifact_is_valid_utf8(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    value = {"schlüssel": "wért", "n": 1.5, "list": list(range(50))}
    client.log_dict(run_id, value, "å/värde.json")
    path = Path(client.download_artifacts(run_id, "å/värde.json"))
    assert json.loads(path.read_text(encoding="utf-8")) == value


def write_random(path: Path, size_bytes: int) -> str:
    """Fill a file with blocks that do not repeat; gives its SHA-256, hex."""
    digest = hashlib.sha256()
    block = os.urandom(BLOCK_BYTES)
    with path.open("wb") as file:
        for number in range(size_bytes // BLOCK_BYTES):
            numbered = number.to_bytes(8) + block[8:]
            file.write(numbered)
            digest.update(numbered)
    return digest.hexdigest()


@pytest.mark.slow
def test_a_gibibyte_goes_up_and_down(
    client: MlflowClient, experiment_id: str, tmp_path: Path
) -> None:
    source = tmp_path / "weights.bin"
    written = write_random(source, GIB)
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(source), "model")
    source.unlink()
    (listed,) = client.list_artifacts(run.info.run_id, "model")
    assert listed.file_size == GIB
    back = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="model/weights.bin", dst_path=str(tmp_path / "back")
    )
    assert sha256(Path(back)) == written
    Path(back).unlink()
    repository: Any = get_artifact_repository(run.info.artifact_uri)
    repository.delete_artifacts("model/weights.bin")  # the disk of the tests is not endless
    assert client.list_artifacts(run.info.run_id, "model") == []
