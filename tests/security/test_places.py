"""Places of files: whoever names one gets no bytes by it that it has no permission on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """eve edits what is named `eve-*`; seer sees runs, but no files; log logs to experiments."""
    with served(tmp_path_factory.mktemp("data")) as running:
        for kind in ("experiment", "model"):
            running.grant("eve", "editor", kind, "eve-*")
        body = {"permissions": ["run:read", "experiment:read", "logged_model:read"]}
        made = running.ask("admin", "PUT", "/api/v1/access/roles/runs-only", body)
        assert made.status_code == 200, made.text
        running.grant("seer", "runs-only", "experiment", "*")
        running.grant("seer", "editor", "model", "*")
        running.grant("log", "logger", "*", "*")
        yield running


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json() if answer.content else None


class Files:
    """A run of the admin's with files in `m` and beside it; a logged model with one."""

    def __init__(self, server: Served) -> None:
        self.server = server
        made = self.make("admin", "experiments/create", {"name": f"files-{next(NUMBERS)}"})
        self.experiment = made["experiment_id"]
        of_it = {"experiment_id": self.experiment}
        self.run = self.make("admin", "runs/create", of_it)["run"]["info"]["run_id"]
        self.folder = f"{self.experiment}/{self.run}/artifacts"
        made = self.make("admin", "logged-models", {**of_it, "name": "m"})["model"]["info"]
        self.logged_model = made["model_id"]
        self.logged_folder = f"{self.experiment}/models/{self.logged_model}/artifacts"
        for path in ("m/MLmodel", "m/data/model.pkl", "mine.txt", "m2/MLmodel"):
            ok(server.ask("admin", "PUT", f"{PROXY}/{self.folder}/{path}", content=b"x"))
        ok(server.ask("admin", "PUT", f"{PROXY}/{self.logged_folder}/MLmodel", content=b"x"))

    def make(self, who: str, path: str, body: Any) -> Any:
        return ok(self.server.ask(who, "POST", MLFLOW + path, body))

    def registered(self, **version: Any) -> str:
        """A model with one version, of the run's folder `m` if nothing else is said."""
        name = f"of-files-{next(NUMBERS)}"
        self.make("admin", "registered-models/create", {"name": name})
        source = f"mlflow-artifacts:/{self.folder}/m"
        whole = {"name": name, "source": source, "run_id": self.run, **version}
        self.make("admin", "model-versions/create", whole)
        return name

    def status(self, who: str, method: str, path: str) -> int:
        content = b"y" if method == "PUT" else None
        return self.server.ask(who, method, f"{PROXY}/{path}", content=content).status_code

    def listed(self, who: str, folder: str) -> int:
        return self.server.ask(who, "GET", f"{PROXY}?path={folder}").status_code


@pytest.fixture(scope="module")
def files(server: Served) -> Files:
    return Files(server)


@pytest.mark.parametrize(
    "location",
    [
        "mlflow-artifacts:/{folder}",
        "mlflow-artifacts:/{folder}/",
        "mlflow-artifacts:/{experiment}/{run}",
        "mlflow-artifacts:{folder}",
        "MLFLOW-ARTIFACTS:/{folder}/m",
        "mlflow-artifacts://host/{folder}",
        "mlflow-artifacts:/{experiment}//{run}/artifacts",
        "mlflow-artifacts:/{experiment}%2F{run}%2Fartifacts",
        "mlflow-artifacts:/{experiment}%252F{run}",
        "mlflow-artifacts:/{logged_folder}",
        "http://localhost:5000/api/2.0/mlflow-artifacts/artifacts/{folder}",
        "mlflow-artifacts:/0/00000000000000000000000000000000",
    ],
)
def test_an_experiment_is_not_put_into_a_folder_of_others(files: Files, location: str) -> None:
    name = f"eve-{next(NUMBERS)}"
    body = {"name": name, "artifact_location": location.format(**vars(files))}
    answer = files.server.ask("eve", "POST", f"{MLFLOW}experiments/create", body)
    assert answer.status_code == 400, answer.text
    assert "cannot be in the folder of a run" in answer.text


@pytest.mark.parametrize(
    "location",
    [
        "mlflow-artifacts:/eve/../{experiment}/{run}",
        "mlflow-artifacts:/eve/%2e%2e/{experiment}/{run}/artifacts",
        "mlflow-artifacts:/eve/%252e%252e/{experiment}",
        "http://localhost:5000/api/2.0/mlflow-artifacts/artifacts/eve/../{experiment}",
    ],
)
def test_an_experiment_is_not_put_anywhere_by_two_dots(files: Files, location: str) -> None:
    name = f"eve-{next(NUMBERS)}"
    body = {"name": name, "artifact_location": location.format(**vars(files))}
    answer = files.server.ask("eve", "POST", f"{MLFLOW}experiments/create", body)
    assert answer.status_code == 400, answer.text
    assert "must be a plain path" in answer.text


@pytest.mark.parametrize(
    "location",
    [
        "mlflow-artifacts:/{experiment}",
        "mlflow-artifacts:/{experiment}/",
        "mlflow-artifacts:/{experiment}/models",
        "mlflow-artifacts:/",
        "file:///etc",
        "/etc",
        "s3://others/bucket",
    ],
)
def test_an_experiment_beside_those_of_others_gives_none_of_their_files(
    files: Files, location: str
) -> None:
    place = location.format(**vars(files))
    made = files.make(
        "eve", "experiments/create", {"name": f"eve-{next(NUMBERS)}", "artifact_location": place}
    )
    run = files.make("eve", "runs/create", made)["run"]["info"]["run_id"]
    for path in ("", "../", f"../../{files.run}/artifacts", "m", f"{files.run}/artifacts/m"):
        for way in (f"{MLFLOW}artifacts/list", "/get-artifact"):
            answer = files.server.ask("eve", "GET", f"{way}?run_id={run}&path={path}")
            assert files.run not in answer.text.replace(path or " ", "").replace(place, "")
            assert "MLmodel" not in answer.text
            assert answer.content != b"x"
    for method in ("GET", "PUT", "DELETE"):
        assert files.status("eve", method, f"{files.folder}/m/MLmodel") == 403
    for folder in (files.experiment, files.folder, f"{files.experiment}/models"):
        assert files.listed("eve", folder) == 403


@pytest.mark.parametrize(
    "source",
    [
        "mlflow-artifacts:/{folder}/m",
        "mlflow-artifacts:/{own_folder}/../../../{folder}/m",
        "mlflow-artifacts:/{own_folder}/%2e%2e/%2e%2e/%2e%2e/{folder}/m",
        "mlflow-artifacts:/{own_folder}/%252e%252e/%252e%252e/%252e%252e/{folder}/m",
        "mlflow-artifacts:/{own_folder}%2F..%2F..%2F..%2F{folder}/m",
        "MLFLOW-artifacts:/{folder}/m",
        "mlflow-artifacts:/{experiment}/{upper}/artifacts/m",
        "mlflow-artifacts:/{folder}/m/",
        "mlflow-artifacts:/{own_folder}?/../../../{folder}/m",
        "mlflow-artifacts:/{own_folder}#/../../../{folder}/m",
        "http://localhost:5000/api/2.0/mlflow-artifacts/artifacts/{folder}/m",
        "runs:/{run}/m",
        "file:///etc",
        "/etc",
        "models:/{logged_model}",
    ],
)
def test_a_version_is_not_made_of_files_of_others(files: Files, source: str) -> None:
    name = f"eve-{next(NUMBERS)}"
    made = files.make("eve", "experiments/create", {"name": name})
    own = files.make("eve", "runs/create", made)["run"]["info"]["run_id"]
    files.make("eve", "registered-models/create", {"name": name})
    own_folder = f"{made['experiment_id']}/{own}/artifacts"
    named = source.format(**vars(files), own_folder=own_folder, upper=files.run.upper())
    for ids in ({}, {"run_id": own}, {"run_id": files.run}, {"model_id": files.logged_model}):
        body = {"name": name, "source": named, **ids}
        files.server.ask("eve", "POST", f"{MLFLOW}model-versions/create", body)
        for path in ("MLmodel", "", f"../../../{files.folder}/m/MLmodel"):
            read = f"/model-versions/get-artifact?name={name}&version=1&path={path}"
            assert files.server.ask("eve", "GET", read).content != b"x"
        assert files.status("eve", "GET", f"{files.folder}/m/MLmodel") == 403
        assert files.status("eve", "GET", f"{files.logged_folder}/MLmodel") == 403


def test_who_sees_a_run_and_not_its_files_gets_them_by_no_version(files: Files) -> None:
    seer = files.server
    ok(seer.ask("seer", "GET", f"{MLFLOW}runs/get?run_id={files.run}"))
    assert files.status("seer", "GET", f"{files.folder}/m/MLmodel") == 403
    name = f"seer-{next(NUMBERS)}"
    files.make("seer", "registered-models/create", {"name": name})
    for body in (
        {"source": f"mlflow-artifacts:/{files.folder}/m", "run_id": files.run},
        {"source": f"models:/{files.logged_model}", "model_id": files.logged_model},
    ):
        answer = seer.ask("seer", "POST", f"{MLFLOW}model-versions/create", {"name": name, **body})
        assert answer.status_code == 403, answer.text
    elsewhere = {"name": name, "source": "s3://bucket/m", "run_id": files.run}
    files.make("seer", "model-versions/create", elsewhere)


def test_a_model_is_not_copied_by_who_may_not_read_its_files(files: Files) -> None:
    name = files.registered()
    body = {"permissions": ["model:read"]}
    ok(files.server.ask("admin", "PUT", "/api/v1/access/roles/names-only", body))
    files.server.grant("kai", "names-only", "model", name)
    files.server.grant("kai", "editor", "model", "kai-*")
    own = f"kai-{next(NUMBERS)}"
    files.make("kai", "registered-models/create", {"name": own})
    copy = {"name": own, "source": f"models:/{name}/1"}
    refused = files.server.ask("kai", "POST", f"{MLFLOW}model-versions/create", copy)
    assert refused.status_code == 403, refused.text
    files.server.grant("kai", "viewer", "model", name)
    files.make("kai", "model-versions/create", copy)


def test_who_reads_a_model_reads_the_files_of_its_versions_and_no_others(files: Files) -> None:
    name, who = files.registered(), f"reader-{next(NUMBERS)}"
    files.server.grant(who, "viewer", "model", name)
    for path in ("m/MLmodel", "m/data/model.pkl"):
        assert files.status(who, "GET", f"{files.folder}/{path}") == 200
        assert files.status(who, "HEAD", f"{files.folder}/{path}") == 200
    for folder in ("m", "m/data"):
        assert files.listed(who, f"{files.folder}/{folder}") == 200
    others = ("mine.txt", "m2/MLmodel", "m%2F..%2Fmine.txt", "m2", "nothing")
    assert {files.status(who, "GET", f"{files.folder}/{path}") for path in others} <= {400, 403}
    for folder in ("", "/m2", "/m/.."):
        assert files.listed(who, f"{files.folder}{folder}") in (400, 403)
    assert files.status(who, "GET", f"{files.logged_folder}/MLmodel") == 403
    for method in ("PUT", "DELETE"):
        assert files.status(who, method, f"{files.folder}/m/MLmodel") == 403
    create = f"/api/2.0/mlflow-artifacts/mpu/create/{files.folder}/m"
    assert files.server.ask(who, "POST", create, {"path": "x"}).status_code == 403


def test_the_files_of_a_version_that_is_gone_are_the_runs_alone(files: Files) -> None:
    name, who = files.registered(), f"reader-{next(NUMBERS)}"
    files.server.grant(who, "viewer", "model", name)
    assert files.status(who, "GET", f"{files.folder}/m/MLmodel") == 200
    gone = {"name": name, "version": "1"}
    ok(files.server.ask("admin", "DELETE", f"{MLFLOW}model-versions/delete", gone))
    assert files.status(who, "GET", f"{files.folder}/m/MLmodel") == 403


def test_files_of_logged_models_and_copies_are_read_by_the_model_too(files: Files) -> None:
    source = f"models:/{files.logged_model}"
    name = files.registered(source=source, model_id=files.logged_model, run_id=None)
    copy = files.registered(source=f"models:/{name}/1", run_id=None)
    for of in (name, copy):
        who = f"reader-{next(NUMBERS)}"
        files.server.grant(who, "viewer", "model", of)
        assert files.status(who, "GET", f"{files.logged_folder}/MLmodel") == 200
        assert files.status(who, "GET", f"{files.folder}/m/MLmodel") == 403


def test_a_logger_reads_the_files_of_its_runs_and_none_of_models(files: Files) -> None:
    server = files.server
    path = f"{files.folder}/table.json"
    assert files.status("log", "PUT", path) == 200
    assert files.status("log", "GET", path) == 200
    found = ok(server.ask("log", "GET", f"{MLFLOW}artifacts/list?run_id={files.run}"))
    assert "table.json" in [entry["path"] for entry in found["files"]]
    assert files.status("log", "DELETE", path) == 403
    name = files.registered()
    read = f"/model-versions/get-artifact?name={name}&version=1&path=MLmodel"
    assert server.ask("admin", "GET", read).content == b"x"
    told = server.ask("log", "GET", read)
    missing = server.ask("log", "GET", read.replace(name, "nothing"))
    assert told.status_code == missing.status_code == 404
    assert told.text.replace(name, "nothing") == missing.text


def test_a_version_of_a_run_s_folder_is_read_by_its_name(files: Files) -> None:
    name = files.registered(source=f"runs:/{files.run}/m")
    read = f"/model-versions/get-artifact?name={name}&version=1&path=MLmodel"
    answer = files.server.ask("admin", "GET", read)
    assert (answer.status_code, answer.content) == (200, b"x")
