"""Ways round four eyes by what a version's files, authors and tags are: through the HTTP API."""

from __future__ import annotations

from typing import Any

from harness.signed_in import GRANTS, MLFLOW, served
from security.test_promotion_attacks import (
    FILES,
    change_file,
    grant_to,
    id_of,
    message,
    put,
    said,
    stored,
    void,
)
from security.test_promotion_attacks import desk as desk
from security.test_promotion_attacks import server as server
from security.test_reviewed_promotion import POLICIES, Desk

# Logged models that a `runs:/` source leads to


def logged_model(desk: Desk, name: str) -> str:
    """The id of a logged model of the run, whose MLmodel is `x`."""
    body = {"experiment_id": "0", "name": name, "source_run_id": desk.run_id}
    made = desk.ok("ana", "POST", "logged-models", body)["model"]["info"]["model_id"]
    assert put(desk, "ana", f"{FILES}artifacts/0/models/{made}/artifacts/MLmodel", b"x").is_success
    return str(made)


def register(desk: Desk, source: str, who: str = "ana", **more: Any) -> str:
    body = {"name": desk.name, "source": source, **more}
    return str(desk.ok(who, "POST", "model-versions/create", body)["model_version"]["version"])


def promote(desk: Desk, number: str, approver: str = "bob") -> Any:
    about = {"name": desk.name, "version": number, "stage": "Production"}
    desk.ok("max", "POST", "transition-requests/create", about)
    return desk.ask(approver, "POST", "transition-requests/approve", about)


def place(desk: Desk, number: str) -> str:
    query = f"model-versions/get-download-uri?name={desk.name}&version={number}"
    return str(desk.ok("eve", "GET", query)["artifact_uri"])


def test_a_runs_uri_is_the_logged_model_that_clients_load_by_it(desk: Desk) -> None:
    older, model_id = logged_model(desk, "q"), logged_model(desk, "q")
    number = register(desk, f"runs:/{desk.run_id}/q", run_id=desk.run_id)
    assert place(desk, number) == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    desk.policy(condition="metrics.loss < 0.5")
    assert promote(desk, number).status_code == 200
    file = f"{FILES}artifacts/0/models/{model_id}/artifacts/MLmodel"
    assert "stay as they are" in message(put(desk, "ana", file))
    logged_model(desk, "q")
    assert place(desk, number) == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    assert put(desk, "ana", file.replace(model_id, older)).status_code == 200, "not the version's"


def test_a_logged_model_that_comes_later_is_not_what_was_approved(desk: Desk) -> None:
    number = register(desk, f"runs:/{desk.run_id}/m", run_id=desk.run_id)
    assert place(desk, number) == f"runs:/{desk.run_id}/m", "as MLflow's server answers"
    desk.policy()
    assert promote(desk, number).status_code == 200
    logged_model(desk, "m")
    assert place(desk, number) == f"mlflow-artifacts:/0/{desk.run_id}/artifacts/m"
    assert "stay as they are" in message(put(desk, "ana", stored(desk)))
    desk.server.grant("mia", "viewer", "model", desk.name)
    assert desk.server.ask("mia", "GET", stored(desk)).content == b"x", "by the place it is told"


def test_what_a_runs_uri_leads_to_takes_the_right_to_read_the_files(desk: Desk) -> None:
    held = {"permissions": ["experiment:read", "run:read", "logged_model:read"]}
    desk.ok("admin", "PUT", "/api/v1/access/roles/no-files", held)
    desk.server.grant("noa", "no-files", "experiment", "*")
    desk.server.grant("noa", "editor", "model", "*")
    body = {"name": desk.name, "source": f"runs:/{desk.run_id}/m", "run_id": desk.run_id}
    assert desk.ask("noa", "POST", "model-versions/create", body).status_code == 403


# Authors that are not the one who registered the version


def test_an_author_is_one_of_the_copy_too(desk: Desk) -> None:
    for who in ("ana", "cop"):
        desk.server.grant(who, "approver", "model", desk.name)
    desk.server.grant("cop", "editor", "*", "*")
    first = register(desk, "s3://b/x", "cop")
    copied = register(desk, f"models:/{desk.name}/{register(desk, f'models:/{desk.name}/{first}')}")
    of_run = register(desk, f"models:/{desk.name}/1", "max")
    model_id = logged_model(desk, "q")
    of_model = register(desk, f"models:/{model_id}", "max", model_id=model_id)
    desk.policy()
    desk.ok("admin", "DELETE", "model-versions/delete", {"name": desk.name, "version": first})
    for number, who, words in (
        (copied, "cop", "a version that it was copied from"),
        (of_run, "ana", "a version that it was copied from"),
        (of_model, "ana", "the author of its run"),
    ):
        assert words in message(promote(desk, number, who))
    assert desk.stage(of_run) == "None"


def test_whoever_made_its_logged_model_is_an_author(desk: Desk) -> None:
    for role in ("editor", "approver"):
        desk.server.grant("lou", role, "model", desk.name)
    desk.server.grant("lou", "editor", "experiment", "*")
    body = {"experiment_id": "0", "name": "l", "source_run_id": desk.run_id}
    model_id = desk.ok("lou", "POST", "logged-models", body)["model"]["info"]["model_id"]
    number = register(desk, f"models:/{model_id}", "max", model_id=model_id)
    copied = register(desk, f"models:/{desk.name}/{number}", "max")
    desk.policy()
    assert "whoever made its logged model" in message(promote(desk, number, "lou"))
    assert "whoever made its logged model" in message(promote(desk, copied, "lou"))
    desk.policy(exclude_author=False)
    about = {"name": desk.name, "version": copied, "stage": "Production"}
    desk.ok("lou", "POST", "transition-requests/approve", about)


# Tags that say what a version is


def test_a_prompt_stays_what_was_approved(desk: Desk) -> None:
    for who in ("bob", "cid"):
        desk.server.grant(who, "approver", "prompt", "*")
    name = f"p-{desk.name}"
    mark = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    desk.ok("ana", "POST", "registered-models/create", {"name": name, "tags": [mark]})
    text = {"key": "mlflow.prompt.text", "value": "good"}
    body = {"name": name, "source": "dummy-source", "tags": [mark, text]}
    desk.ok("ana", "POST", "model-versions/create", body)
    desk.ok("admin", "PUT", POLICIES + name, {"pattern": name, "aliases": ["prod"], "approvals": 2})
    about = {"name": name, "version": "1", "stage": "@prod"}
    tag = {"name": name, "version": "1", **text}
    desk.ok("ana", "POST", "transition-requests/create", about)
    desk.ok("bob", "POST", "transition-requests/approve", about)
    desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "value": "evil"})
    told = desk.ask("cid", "POST", "transition-requests/approve", about)
    assert said(told).startswith("approval 1 of 2; ")
    desk.ok("bob", "POST", "transition-requests/approve", about)
    for key in ("mlflow.prompt.text", "_mlflow_prompt_type", "_mlflow_prompt_model_config"):
        changed = {**tag, "key": key, "value": "x"}
        refusal = message(desk.ask("ana", "POST", "model-versions/set-tag", changed))
        assert "stays as it is" in refusal
    assert "stays" in message(desk.ask("ana", "DELETE", "model-versions/delete-tag", tag))
    for key in ("note", "mlflow.prompt.associatedRunIds"):
        desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "key": key})
    desk.ok("admin", "DELETE", "registered-models/alias", {"name": name, "alias": "prod"})
    desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "value": "x"})


def test_a_required_tag_is_evidence_and_stays(desk: Desk) -> None:
    tag = {"name": desk.name, "version": "1", "key": "card", "value": "one"}
    desk.ok("ana", "POST", "model-versions/set-tag", tag)
    desk.policy(approvals=2, required_tags=["card"])
    desk.request()
    desk.approve("bob")
    desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "value": "two"})
    assert "has changed since" in void(desk)[id_of(desk, "bob")]
    assert said(desk.approve("cid")).startswith("approval 1 of 2; ")
    desk.approve("bob")
    assert desk.stage() == "Production"
    changed = {**tag, "value": "three"}
    assert "stays" in message(desk.ask("ana", "POST", "model-versions/set-tag", changed))
    desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "value": "two"})


# Grants of those who have no say


def test_whoever_made_a_model_has_no_say_as_its_manager_either(desk: Desk) -> None:
    desk.server.grant("ana", "manager", "model", desk.name)
    desk.ok("ana", "POST", GRANTS, grant_to(desk, "acc5", "approver"))
    number = register(desk, "s3://b/x", "max")
    desk.policy()
    about = {"name": desk.name, "version": number, "stage": "Production"}
    desk.ok("max", "POST", "transition-requests/create", about)
    answer = desk.ask("acc5", "POST", "transition-requests/approve", about)
    assert "whoever made the model" in message(answer)


def test_an_administrator_who_made_the_model_may_say_who_approves(desk: Desk) -> None:
    desk.name = f"own-{desk.name}"
    desk.ok("admin", "POST", "registered-models/create", {"name": desk.name})
    desk.ok("admin", "POST", GRANTS, grant_to(desk, "acc6", "approver"))
    register(desk, "s3://b/x", "max")
    desk.policy()
    desk.request("max")
    assert desk.approve("acc6").status_code == 200


def test_a_grant_beside_one_that_does_not_count_is_a_grant(desk: Desk) -> None:
    path = f"databricks/registered-models/get?name={desk.name}"
    model_id = desk.ok("ana", "GET", path)["registered_model_databricks"]["id"]
    wanted = {**grant_to(desk, "hon", "approver"), "pattern": f"id:{model_id}"}
    by_ana = desk.ok("ana", "POST", GRANTS, wanted)["grant"]["grant_id"]
    desk.policy()
    desk.request("max")
    assert "whoever made the model" in message(desk.approve("hon"))
    by_admin = desk.ok("admin", "POST", GRANTS, wanted)["grant"]["grant_id"]
    assert by_admin != by_ana
    assert desk.approve("hon").status_code == 200
    assert desk.ok("admin", "POST", GRANTS, wanted)["grant"]["grant_id"] == by_admin
    assert desk.ok("ana", "POST", GRANTS, wanted)["grant"]["grant_id"] == by_ana


# Files of others, sealed by registering them


def test_nobody_seals_the_files_of_others_alone(desk: Desk) -> None:
    desk.server.grant("mal", "viewer", "experiment", "*")
    desk.server.grant("mal", "editor", "model", "mal-*")
    name = f"mal-{desk.name}"
    desk.ok("mal", "POST", "registered-models/create", {"name": name})
    body = {"name": name, "source": f"runs:/{desk.run_id}/m", "run_id": desk.run_id}
    desk.ok("mal", "POST", "model-versions/create", body)
    about = {"name": name, "version": "1"}
    desk.ok("mal", "POST", "registered-models/alias", {**about, "alias": "champion"})
    policy = {"pattern": name, "aliases": ["champion"]}
    desk.ok("admin", "PUT", POLICIES + name, policy)
    assert put(desk, "ana", stored(desk)).status_code == 200, "the alias is older than the policy"
    open_to_all = {"pattern": name, "stages": ["Staging"], "approvals": 0}
    desk.ok("admin", "PUT", POLICIES + name, open_to_all)
    moved = {**about, "stage": "Staging", "archive_existing_versions": False}
    desk.ok("mal", "POST", "model-versions/transition-stage", moved)
    assert put(desk, "ana", stored(desk)).status_code == 200, "nobody approved it"


def test_a_run_whose_artifacts_are_a_version_goes_on_logging(desk: Desk) -> None:
    number = register(desk, f"runs:/{desk.run_id}", run_id=desk.run_id)
    desk.policy()
    assert promote(desk, number).status_code == 200
    assert put(desk, "ana", stored(desk, "new")).status_code == 200
    assert "stay as they are" in message(put(desk, "ana", stored(desk)))
    assert "stay as they are" in message(desk.server.ask("ana", "DELETE", stored(desk)))
    assert desk.server.ask("eve", "GET", stored(desk)).content == b"x"


# What an approver looked at, and who may reject


def test_an_approver_says_what_it_looked_at(desk: Desk) -> None:
    desk.policy()
    seen = desk.request().json()["request"]["evidence_sha256"]
    query = f"transition-requests/list?name={desk.name}&version=1"
    assert desk.ok("bob", "GET", query)["requests"][0]["evidence_sha256"] == seen
    change_file(desk)
    answer = desk.approve("bob", evidence_sha256=seen)
    assert "look at it again" in message(answer, 409)
    assert answer.json()["error_code"] == "RESOURCE_CONFLICT"
    now = desk.ok("bob", "GET", query)["requests"][0]["evidence_sha256"]
    assert now != seen
    assert desk.approve("bob", evidence_sha256=now).status_code == 200
    assert desk.stage() == "Production"


def test_whose_approval_cannot_count_does_not_reject(desk: Desk) -> None:
    desk.ok("ana", "POST", GRANTS, grant_to(desk, "acc7", "approver"))
    desk.policy()
    desk.request("max")
    for who, words in (("ana", "having made the model"), ("acc7", "whoever made the model")):
        answer = desk.ask(who, "POST", "transition-requests/reject", desk.about())
        assert words in message(answer)
    desk.ok("bob", "POST", "transition-requests/reject", desk.about())
    desk.request("ana")
    path = f"transition-requests/delete?name={desk.name}&version=1&stage=Production"
    desk.ok("ana", "DELETE", path)


def test_a_run_of_another_workspace_is_no_source_for_anybody(tmp_path: Any) -> None:
    with served(tmp_path, workspaces=True) as running:
        running.grant("ana", "editor", "*", "*")
        desk = Desk(running)
        running.ask("admin", "POST", "/api/3.0/mlflow/workspaces", {"name": "w2"})
        headers = {
            "authorization": f"Bearer {running.token('admin', 'admins')}",
            "X-MLFLOW-WORKSPACE": "w2",
        }

        def post(path: str, body: dict[str, Any]) -> Any:
            return running.ask(None, "POST", MLFLOW + path, body, headers=headers)

        assert post("registered-models/create", {"name": "x"}).status_code == 200
        body = {"name": "x", "source": f"runs:/{desk.run_id}/m", "run_id": desk.run_id}
        assert "must identify" in message(post("model-versions/create", body), 400)
