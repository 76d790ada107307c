"""Workspaces: what is in one is not there for whoever is in another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.signed_in import GRANTS, MLFLOW, Served, served
from muniment_auth.principal import principal_id

WORKSPACES = "/api/3.0/mlflow/workspaces"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """ana edits `red`, bob edits `blue`, and neither knows of the other's."""
    with served(tmp_path_factory.mktemp("data"), workspaces=True) as running:
        for name, who in (("red", "ana"), ("blue", "bob")):
            made = running.ask("admin", "POST", WORKSPACES, {"name": name, "description": "d"})
            assert made.status_code == 201, made.text
            for kind in ("experiment", "model"):
                running.grant(who, "manager", kind, "*", workspace=name)
        yield running


def ask(
    server: Served, who: str, space: str, method: str, path: str, body: Any = None
) -> httpx.Response:
    whole = path if path.startswith("/") else MLFLOW + path
    return server.ask(who, method, whole, body, headers={"x-mlflow-workspace": space})


def test_each_sees_its_own(server: Served) -> None:
    def names(who: str) -> list[str]:
        return [w["name"] for w in server.ask(who, "GET", WORKSPACES).json()["workspaces"]]

    assert names("admin") == ["default", "red", "blue"]
    assert names("ana") == ["default", "red"]
    assert server.ask("ana", "GET", f"{WORKSPACES}/red").json()["workspace"]["description"] == "d"
    hidden = server.ask("ana", "GET", f"{WORKSPACES}/blue")
    missing = server.ask("ana", "GET", f"{WORKSPACES}/nowhere")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("blue", "X") == missing.text.replace("nowhere", "X")
    entered = ask(server, "ana", "blue", "GET", "experiments/get?experiment_id=0")
    assert entered.status_code == 404
    info = server.ask(None, "GET", "/api/3.0/mlflow/server-info").json()
    assert info["workspaces_enabled"] is True


def test_names_are_unique_in_a_workspace_only(server: Served) -> None:
    ids = {}
    for who, space in (("ana", "red"), ("bob", "blue")):
        made = ask(server, who, space, "POST", "experiments/create", {"name": "churn"})
        ids[space] = made.json()["experiment_id"]
        again = ask(server, who, space, "POST", "experiments/create", {"name": "churn"})
        assert again.status_code == 400
        model = ask(server, who, space, "POST", "registered-models/create", {"name": "churn"})
        assert model.status_code == 200
    found = ask(server, "ana", "red", "GET", "experiments/get-by-name?experiment_name=churn")
    assert found.json()["experiment"]["experiment_id"] == ids["red"]
    assert found.json()["experiment"]["artifact_location"].startswith(
        "mlflow-artifacts:/workspaces/red/"
    )
    for who in ("ana", "admin"):
        other = ask(server, who, "red", "GET", f"experiments/get?experiment_id={ids['blue']}")
        assert other.status_code == 404, who
    listed = ask(server, "admin", "red", "POST", "experiments/search", {"max_results": 10}).json()
    assert [e["name"] for e in listed["experiments"]] == ["churn", "Default"]
    models = ask(server, "admin", "blue", "GET", "registered-models/search").json()
    assert [m["name"] for m in models["registered_models"]] == ["churn"]


def test_runs_files_and_history_stay_inside(server: Served) -> None:
    made = ask(server, "ana", "red", "POST", "experiments/create", {"name": "inside"}).json()
    body = {"experiment_id": made["experiment_id"]}
    run = ask(server, "ana", "red", "POST", "runs/create", body).json()["run"]["info"]
    elsewhere = ask(server, "admin", "blue", "POST", "runs/create", body)
    assert elsewhere.status_code == 404
    for who, space, status in (("ana", "red", 200), ("admin", "blue", 404), ("bob", "blue", 404)):
        found = ask(server, who, space, "GET", f"runs/get?run_id={run['run_id']}")
        assert found.status_code == status, (who, space)
    path = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    proxy = f"/api/2.0/mlflow-artifacts/artifacts/{path}/x"
    assert (
        server.ask(
            "ana", "PUT", proxy, content=b"x", headers={"x-mlflow-workspace": "red"}
        ).status_code
        == 200
    )
    assert ask(server, "ana", "red", "GET", proxy).status_code == 200
    assert ask(server, "bob", "blue", "GET", proxy).status_code == 403
    point = {"run_id": run["run_id"], "key": "k", "value": 1.0, "timestamp": 1}
    assert ask(server, "admin", "blue", "POST", "runs/log-metric", point).status_code == 404
    for space, who in (("red", "ana"), ("blue", "bob")):
        ask(server, who, space, "POST", "registered-models/create", {"name": "same"})
        version = {"name": "same", "source": f"s3://{space}/m"}
        assert ask(server, who, space, "POST", "model-versions/create", version).status_code == 200
    told = ask(server, "admin", "red", "GET", "/api/v1/models/same/versions/1/timeline").json()
    assert len({interval["model_id"] for interval in told["existed"]}) == 1


def test_paths_of_files_lead_into_no_other_workspace(server: Served) -> None:
    """Not for whoever may read there as well, nor for admins, to whom all other paths are open."""
    folders = {}
    for space, who in (("red", "ana"), ("blue", "bob"), ("default", "admin")):
        made = ask(server, who, space, "POST", "experiments/create", {"name": "places"}).json()
        run = ask(server, who, space, "POST", "runs/create", made).json()["run"]["info"]
        folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        folders[space] = folder
        assert file(server, who, space, "PUT", f"{folder}/x").status_code == 200
    for space in ("red", "blue"):
        server.grant("cat", "editor", "experiment", "*", workspace=space)
    assert file(server, "cat", "blue", "GET", f"{folders['blue']}/x").status_code == 200
    for space in folders:
        others = [folder for name, folder in folders.items() if name != space]
        missing = [re.sub("[0-9a-f]{32}", "0" * 32, folder) for folder in others]
        roots = ["", "workspaces", "workspaces/green", "workspaces/blue/x"]
        roots = roots if space == "red" else roots[:2]
        for who in ("cat", "admin"):
            for method in ("GET", "PUT", "DELETE"):
                told = {
                    file(server, who, space, method, f"{path}/x").text
                    for path in (*others, *missing)
                }
                assert len(told) == 1, told
                assert "PERMISSION_DENIED" in told.pop()
            for folder in (*others, *missing, *roots):
                listed = file(server, who, space, "GET", f"?path={folder}")
                assert listed.status_code == 403, (who, space, folder)
            create = f"/api/2.0/mlflow-artifacts/mpu/create/{others[0]}"
            assert ask(server, who, space, "POST", create, {"path": "x"}).status_code == 403
        removed = file(server, "admin", space, "DELETE", "workspaces")
        assert removed.status_code == 403
        own = "spare" if space == "default" else f"workspaces/{space}/spare"
        assert file(server, "admin", space, "GET", f"{own}/x").status_code == 404
        assert file(server, "admin", space, "GET", f"{folders[space]}/x").content == b"x"


def file(server: Served, who: str, space: str, method: str, path: str) -> httpx.Response:
    proxy = "/api/2.0/mlflow-artifacts/artifacts"
    content = b"x" if method == "PUT" else None
    headers = {"x-mlflow-workspace": space}
    whole = proxy + (path if path.startswith("?") else f"/{path}")
    return server.ask(who, method, whole, content=content, headers=headers)


@pytest.mark.parametrize("place", ["workspaces/blue", "workspaces/blue/1", "", "workspaces", "1"])
def test_an_experiment_keeps_its_files_in_its_workspace(server: Served, place: str) -> None:
    body = {"name": f"at {place}", "artifact_location": f"mlflow-artifacts:/{place}"}
    made = ask(server, "ana", "red", "POST", "experiments/create", body)
    assert (made.status_code, "the workspace's own folder" in made.text) == (400, True), made.text
    body["artifact_location"] = f"mlflow-artifacts:/workspaces/red/{place}"
    assert ask(server, "ana", "red", "POST", "experiments/create", body).status_code == 200


def test_a_grant_in_one_workspace_is_none_in_another(server: Served) -> None:
    eve = principal_id(server.provider.url, "eve")
    grant = {
        "subject_kind": "principal",
        "subject": eve,
        "role": "viewer",
        "resource_kind": "experiment",
        "pattern": "*",
    }
    assert ask(server, "ana", "red", "POST", GRANTS, grant).status_code == 200
    assert ask(server, "ana", "red", "POST", GRANTS, {**grant, "workspace": "*"}).status_code == 403
    assert (
        ask(server, "ana", "red", "POST", GRANTS, {**grant, "workspace": "blue"}).status_code == 403
    )
    found = ask(server, "eve", "red", "GET", "experiments/get-by-name?experiment_name=Default")
    assert found.status_code == 200
    assert (
        ask(server, "eve", "blue", "POST", "experiments/search", {"max_results": 1}).status_code
        == 404
    )


def test_policies_of_a_workspace_stay_inside(server: Served) -> None:
    policies = "/api/v1/policies/promotion"
    body = {"pattern": "*", "stages": ["Production"]}
    assert ask(server, "admin", "red", "PUT", f"{policies}/red-only", body).status_code == 200

    def told(who: str) -> list[str]:
        return [p["name"] for p in server.ask(who, "GET", policies).json()["policies"]]

    assert "red-only" in told("ana")
    assert "red-only" not in told("bob")
    assert server.ask("bob", "GET", f"{policies}/red-only").status_code == 404
    moved = ask(server, "admin", "blue", "PUT", f"{policies}/red-only", body)
    assert (moved.status_code, "left without it" in moved.text) == (400, True)


def test_names_and_ends(server: Served) -> None:
    for name in ("default", "x", "Upper", "api", "a_b", "-a"):
        assert server.ask("admin", "POST", WORKSPACES, {"name": name}).status_code == 400, name
    again = server.ask("admin", "POST", WORKSPACES, {"name": "red"})
    assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert server.ask("ana", "POST", WORKSPACES, {"name": "mine"}).status_code == 403
    patched = server.ask("admin", "PATCH", f"{WORKSPACES}/red", {"description": "new"})
    assert patched.json()["workspace"]["description"] == "new"
    assert server.ask("admin", "DELETE", f"{WORKSPACES}/red?mode=CASCADE").status_code == 400
    assert (
        server.ask("admin", "DELETE", f"{WORKSPACES}/red").json()["error_code"] == "INVALID_STATE"
    )
    assert server.ask("admin", "DELETE", f"{WORKSPACES}/default").status_code == 400


def test_without_them_the_header_is_refused(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        refused = ask(running, "admin", "red", "GET", "experiments/get?experiment_id=0")
        assert refused.json()["error_code"] == "FEATURE_DISABLED"
        assert running.ask("admin", "GET", WORKSPACES).status_code == 503
