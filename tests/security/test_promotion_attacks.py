"""Ways round four eyes that were open once, tried as callers would: through the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.signed_in import GRANTS, MLFLOW, Served, served
from harness.tokens import Provider
from muniment_auth.principal import principal_id
from security.test_reviewed_promotion import POLICIES, Desk

FILES = "/api/2.0/mlflow-artifacts/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """ana registers models, max as well; bob, cid and dan approve; eve looks on."""
    with served(tmp_path_factory.mktemp("data")) as running:
        for who in ("ana", "max"):
            running.grant(who, "editor", "*", "*")
        for who in ("bob", "cid"):
            running.grant(who, "approver", "model", "*")
        running.grant("eve", "viewer", "*", "*")
        yield running


@pytest.fixture
def desk(server: Served) -> Desk:
    return Desk(server)


def id_of(desk: Desk, who: str) -> str:
    return principal_id(desk.server.provider.url, who)


def message(answer: Any, status: int = 403) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["message"])


def void(desk: Desk) -> dict[str, str]:
    """The approvals of the open request that do not count, each with the reason."""
    query = f"transition-requests/list?name={desk.name}&version=1"
    [request] = desk.ok("eve", "GET", query)["requests"]
    return {one["approver"]: one["reason"] for one in request.get("void_approvals", [])}


def said(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["activity"]["system_comment"])


def stored(desk: Desk, name: str = "MLmodel") -> str:
    return f"{FILES}artifacts/0/{desk.run_id}/artifacts/m/{name}"


def put(desk: Desk, who: str, path: str, content: bytes = b"y") -> Any:
    return desk.server.ask(who, "PUT", path, content=content)


def test_whoever_got_a_service_s_token_is_its_hand(desk: Desk) -> None:
    server = desk.server
    made = server.ask("admin", "POST", "/api/v1/service-tokens", {"name": "ci"}).json()
    grant = {"subject_kind": "principal", "subject": made["token"]["principal_id"]}
    grant |= {"role": "approver", "resource_kind": "model", "pattern": "*"}
    assert server.ask("admin", "POST", GRANTS, grant).status_code == 200
    desk.policy()
    assert desk.request("admin").status_code == 200
    headers = {"authorization": f"Bearer {made['secret']}"}
    body = desk.about(stage="Production", archive_existing_versions=False)
    path = f"{MLFLOW}transition-requests/approve"
    answer = server.ask(None, "POST", path, body, headers=headers)
    assert "whoever asks for a promotion may not approve it" in message(answer)


# Evidence that changes after an approval


def change_metric(desk: Desk) -> None:
    point = {"run_id": desk.run_id, "key": "loss", "value": 0.1, "timestamp": 2, "step": 1}
    desk.ok("ana", "POST", "runs/log-metric", point)


def change_file(desk: Desk) -> None:
    assert put(desk, "ana", stored(desk)).status_code == 200


def add_file(desk: Desk) -> None:
    assert put(desk, "ana", stored(desk, "more.pkl")).status_code == 200


def remove_file(desk: Desk) -> None:
    assert desk.server.ask("ana", "DELETE", stored(desk)).status_code == 200


def change_commit(desk: Desk) -> None:
    tag = {"run_id": desk.run_id, "key": "mlflow.source.git.commit", "value": "bad"}
    desk.ok("ana", "POST", "runs/set-tag", tag)


def change_datasets(desk: Desk) -> None:
    dataset = {"name": "d", "digest": "1", "source_type": "x", "source": "x"}
    body = {"run_id": desk.run_id, "datasets": [{"dataset": dataset}]}
    desk.ok("ana", "POST", "runs/log-inputs", body)


@pytest.mark.parametrize(
    "change",
    [change_metric, change_file, add_file, remove_file, change_commit, change_datasets],
)
def test_an_approval_counts_for_the_evidence_that_it_saw(desk: Desk, change: Any) -> None:
    desk.policy(approvals=2)
    desk.request()
    assert said(desk.approve("bob")) == "approval 1 of 2"
    assert void(desk) == {}
    change(desk)
    assert "has changed since" in void(desk)[id_of(desk, "bob")]
    told = said(desk.approve("cid"))
    assert told.startswith("approval 1 of 2; ")
    assert id_of(desk, "bob") in told
    assert "given again" in told
    assert desk.stage() == "None"
    assert said(desk.approve("bob")) == "approval 2 of 2"
    assert desk.stage() == "Production"


def test_files_of_a_runs_uri_are_evidence_too(desk: Desk) -> None:
    body = {"name": desk.name, "source": f"runs:/{desk.run_id}/m", "run_id": desk.run_id}
    number = desk.ok("ana", "POST", "model-versions/create", body)["model_version"]["version"]
    desk.policy(approvals=2)
    about = {"name": desk.name, "version": number, "stage": "Production"}
    desk.ok("ana", "POST", "transition-requests/create", about)
    desk.ok("bob", "POST", "transition-requests/approve", about)
    change_file(desk)
    assert said(desk.ask("cid", "POST", "transition-requests/approve", about)).startswith(
        "approval 1 of 2; "
    )
    desk.ok("bob", "POST", "transition-requests/approve", about)
    assert desk.stage(number) == "Production"
    assert "stay as they are" in message(put(desk, "ana", stored(desk)))


def test_files_of_what_is_promoted_stay(desk: Desk) -> None:
    desk.policy()
    desk.request()
    desk.approve("bob")
    folder = f"{FILES}artifacts/0/{desk.run_id}/artifacts"
    told = message(put(desk, "ana", stored(desk)))
    assert f"version 1 of {desk.name}" in told
    assert "register them as a new version" in told
    assert "stay as they are" in message(put(desk, "ana", stored(desk, "more")))
    for path in (stored(desk), f"{folder}/m", folder, f"{FILES}artifacts/0/{desk.run_id}"):
        assert "stay as they are" in message(desk.server.ask("admin", "DELETE", path))
    assert "stay as they are" in message(desk.server.ask("admin", "DELETE", f"{FILES}artifacts/0"))
    part = {"path": "MLmodel", "num_parts": 1}
    create = f"{FILES}mpu/create/0/{desk.run_id}/artifacts/m"
    assert "stay as they are" in message(desk.server.ask("ana", "POST", create, part))
    assert desk.server.ask("eve", "GET", stored(desk)).content == b"x"
    assert put(desk, "ana", f"{folder}/n/MLmodel").status_code == 200, "another folder of the run"
    body = desk.about("Archived", archive_existing_versions=False)
    desk.ok("bob", "POST", "model-versions/transition-stage", body)
    assert put(desk, "ana", stored(desk)).status_code == 200


def test_an_upload_that_began_before_the_move_does_not_change_what_was_moved(desk: Desk) -> None:
    desk.policy()
    desk.request()
    create = f"{FILES}mpu/create/0/{desk.run_id}/artifacts/m"
    begun = desk.server.ask("ana", "POST", create, {"path": "MLmodel", "num_parts": 1}).json()
    part = desk.server.ask("ana", "PUT", begun["credentials"][0]["url"], content=b"evil")
    desk.approve("bob")
    body = {
        "path": "MLmodel",
        "upload_id": begun["upload_id"],
        "parts": [{"part_number": 1, "etag": part.headers["etag"]}],
    }
    done = desk.server.ask("ana", "POST", create.replace("create", "complete"), body)
    assert "stay as they are" in message(done)
    assert desk.server.ask("eve", "GET", stored(desk)).content == b"x"


def test_who_may_not_know_of_a_model_is_not_told_its_name(desk: Desk) -> None:
    desk.policy(stages=[], aliases=["champion"])
    desk.request(stage="@champion")
    assert desk.approve("bob", stage="@champion").status_code == 200
    desk.server.grant("log", "logger", "experiment", "*")
    told = message(put(desk, "log", stored(desk)))
    assert "@champion" in told
    assert f"of {desk.name}" not in told
    assert "administrator" in told


# Rights to approve: who gave them, and whether they are still there


def test_whoever_made_a_model_does_not_choose_who_approves(desk: Desk) -> None:
    made = desk.ok("ana", "POST", GRANTS, grant_to(desk, "acc1", "manager"))["grant"]
    desk.ok("acc1", "POST", GRANTS, grant_to(desk, "acc2", "approver"))
    desk.policy()
    desk.request("max")
    for who in ("acc1", "acc2"):
        assert "whoever made the model" in message(desk.approve(who))
    assert "the author of the version" in message(desk.approve("ana"))
    desk.policy(exclude_author=False)
    assert "having made the model" in message(desk.approve("ana"))
    desk.ok("ana", "DELETE", f"{GRANTS}/{made['grant_id']}")
    assert "whoever made the model" in message(desk.approve("acc2")), "the chain is remembered"
    assert desk.stage() == "None"
    assert desk.approve("bob").status_code == 200


def grant_to(desk: Desk, who: str, role: str, **more: Any) -> dict[str, Any]:
    return {
        "subject_kind": "principal",
        "subject": id_of(desk, who),
        "role": role,
        "resource_kind": "model",
        "pattern": desk.name,
        **more,
    }


def test_neither_requester_nor_author_chooses_who_approves(desk: Desk) -> None:
    """Managers by an administrator's grant, not by having made the model."""
    for who in ("lead", "max", "run"):
        desk.server.grant(who, "manager", "model", desk.name)
    desk.server.grant("run", "editor", "experiment", "*")
    run = desk.ok("run", "POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    body = {"name": desk.name, "source": f"runs:/{run}/m", "run_id": run}
    desk.ok("max", "POST", "model-versions/create", body)
    made = {
        by: desk.ok(by, "POST", GRANTS, grant_to(desk, f"of-{by}", "approver"))["grant"]
        for by in ("lead", "max", "run")
    }
    desk.policy()
    about = {"name": desk.name, "version": "2", "stage": "Production"}
    desk.ok("lead", "POST", "transition-requests/create", about)
    for who, words in (
        ("of-lead", "whoever asks for the promotion"),
        ("of-max", "the author of the version"),
        ("of-run", "the author of its run"),
    ):
        assert words in message(desk.ask(who, "POST", "transition-requests/approve", about))
    desk.ok("admin", "DELETE", f"{GRANTS}/{made['max']['grant_id']}")
    desk.server.grant("of-max", "approver", "model", desk.name)
    assert desk.stage("2") == "None"
    desk.ok("of-max", "POST", "transition-requests/approve", about)
    assert desk.stage("2") == "Production"


def test_without_a_policy_a_maker_still_chooses(desk: Desk) -> None:
    desk.ok("ana", "POST", GRANTS, grant_to(desk, "acc3", "approver"))
    desk.request()
    assert desk.approve("acc3").status_code == 200


def test_explain_tells_what_does_not_count_under_a_policy(desk: Desk) -> None:
    desk.ok("ana", "POST", GRANTS, grant_to(desk, "acc4", "approver"))
    path = f"/api/v1/access/explain?permission=model:approve&resource=model:{desk.name}"
    assert not [n for n in desk.ok("acc4", "GET", path)["notes"] if "policy" in n]
    desk.policy()
    found = desk.ok("acc4", "GET", path)
    assert found["allowed"]
    assert any("whoever made the model" in note for note in found["notes"])
    assert any("having made the model" in note for note in desk.ok("ana", "GET", path)["notes"])
    [note] = desk.ok("bob", "GET", path)["notes"]
    assert id_of(desk, "admin") in note
    staging = f"{path}&stage=Staging"
    assert not [n for n in desk.ok("acc4", "GET", staging)["notes"] if "policy" in n]


def test_an_approval_ends_with_the_right_that_it_was_given_by(desk: Desk) -> None:
    grant = desk.server.grant("dan", "approver", "model", desk.name)
    desk.policy(approvals=2)
    desk.request()
    desk.approve("dan")
    assert void(desk) == {}
    desk.ok("admin", "DELETE", f"{GRANTS}/{grant}")
    assert "in force any more" in void(desk)[id_of(desk, "dan")]
    assert said(desk.approve("bob")).startswith("approval 1 of 2; ")
    assert desk.stage() == "None"
    assert desk.approve("cid").status_code == 200
    assert desk.stage() == "Production"


def test_an_approval_ends_when_the_role_gives_the_right_no_more(desk: Desk) -> None:
    role = f"/api/v1/access/roles/own-{desk.name}"
    held = {"permissions": ["model:read", "model:approve"]}
    desk.ok("admin", "PUT", role, held)
    body = {
        **grant_to(desk, "", f"own-{desk.name}"),
        "subject_kind": "group",
        "subject": "risk",
        "issuer": desk.server.provider.url,
    }
    desk.ok("admin", "POST", GRANTS, body)
    desk.policy(approvals=2)
    desk.request()
    assert desk.approve("gus", groups=("risk",)).status_code == 200
    assert void(desk) == {}
    desk.ok("admin", "PUT", role, {"permissions": ["model:read"]})
    assert "in force any more" in void(desk)[id_of(desk, "gus")]


# What is asked for and may not be blank


def test_a_blank_comment_is_none(desk: Desk) -> None:
    desk.policy(required_comment=True)
    assert "comment" in message(desk.request(comment=" \t\n"))
    desk.request(comment="please")
    assert "comment" in message(desk.approve("bob", comment="  "))
    desk.policy(approvals=0, required_comment=True)
    body = desk.about(archive_existing_versions=False, comment=" ")
    assert "comment" in message(desk.ask("bob", "POST", "model-versions/transition-stage", body))
    said = {"name": desk.name, "version": "1", "comment": " "}
    assert "not empty" in message(desk.ask("bob", "POST", "comments/create", said), 400)


def test_a_required_tag_is_not_blank(desk: Desk) -> None:
    for tags in ([" "], ["=x"], ["card="], ["card= "]):
        body = {"pattern": desk.name, "stages": ["Production"], "required_tags": tags}
        answer = desk.ask("admin", "PUT", POLICIES + desk.name, body)
        assert "neither blank" in message(answer, 400)
    desk.policy(required_tags=["card"])
    desk.request()
    tag = {"name": desk.name, "version": "1", "key": "card", "value": " "}
    desk.ok("ana", "POST", "model-versions/set-tag", tag)
    assert "the tag card" in message(desk.approve("bob"))
    desk.ok("ana", "POST", "model-versions/set-tag", {**tag, "value": "done"})
    assert desk.approve("bob").status_code == 200


# Tags that a grant does not reach


def test_tag_keys_narrow_tags_at_creation_too(desk: Desk) -> None:
    desk.server.grant("tim", "editor", "model", f"{desk.name}*", tag_keys=["note"])
    desk.server.grant("tim", "viewer", "experiment", "*")
    source = {"name": desk.name, "source": "s3://b/x"}

    def create(path: str, body: dict[str, Any], *keys: str) -> Any:
        tags = [{"key": key, "value": "done"} for key in keys]
        return desk.ask("tim", "POST", path, {**body, "tags": tags})

    assert "tag note only" in message(create("model-versions/create", source, "note", "card"))
    assert create("model-versions/create", source, "note").status_code == 200
    assert create("model-versions/create", source).status_code == 200
    new = {"name": f"{desk.name}-2"}
    assert "tag note only" in message(create("registered-models/create", new, "card"))
    assert create("registered-models/create", new, "note").status_code == 200


# Files that are not the run's


def test_a_logged_model_elsewhere_does_not_borrow_a_run(desk: Desk) -> None:
    desk.server.grant("joe", "viewer", "experiment", "*")
    desk.server.grant("joe", "editor", "model", "*")
    own = {"name": f"own-{desk.name}"}
    desk.server.grant("joe", "editor", "experiment", own["name"])
    experiment = desk.ok("joe", "POST", "experiments/create", own)["experiment_id"]
    body = {"experiment_id": experiment, "source_run_id": desk.run_id}
    model_id = desk.ok("joe", "POST", "logged-models", body)["model"]["info"]["model_id"]
    body = {"name": desk.name, "source": f"models:/{model_id}", "model_id": model_id}
    desk.ok("joe", "POST", "model-versions/create", {**body, "run_id": desk.run_id})
    desk.policy(approvals=0, condition="metrics.loss < 0.5")
    body = {"name": desk.name, "version": "2", "stage": "Production"}
    answer = desk.ask("bob", "POST", "model-versions/transition-stage", body)
    assert "whose artifacts the version has" in message(answer)


@pytest.mark.parametrize("is_proven", [True, False])
def test_the_event_says_whether_the_files_are_the_runs(desk: Desk, is_proven: bool) -> None:
    version = "1"
    if not is_proven:
        body = {"name": desk.name, "source": "s3://elsewhere/m", "run_id": desk.run_id}
        made = desk.ok("ana", "POST", "model-versions/create", body)["model_version"]
        version = made["version"]
    about = {"name": desk.name, "version": version, "stage": "Production"}
    desk.ok("ana", "POST", "transition-requests/create", about)
    services = desk.server.gateway.services
    assert services is not None
    [(at, offset)] = [
        x for x in services.fold.state.next_offsets.items() if x[0].topic == "catalog"
    ]
    desk.ok("bob", "POST", "transition-requests/approve", about)
    event: Any = services.writer._codec.decode(services.fold.log.read(at, offset, 1)[0].value)
    assert event.evidence.proven is is_proven
    assert event.evidence.run_id == desk.run_id


# Groups of one name


def test_a_group_of_another_issuer_is_another_group(tmp_path: Any) -> None:
    other = Provider("okta")
    with served(tmp_path, other) as running:
        running.grant("ana", "editor", "*", "*")
        running.grant("eve", "viewer", "*", "*")
        everyone = {"subject_kind": "everyone", "role": "approver"}
        everyone |= {"resource_kind": "model", "pattern": "*"}
        assert running.ask("admin", "POST", GRANTS, everyone).status_code == 200
        desk = Desk(running)
        body = {"pattern": desk.name, "stages": ["Production"], "approver_groups": ["risk"]}
        told = message(running.ask("admin", "PUT", POLICIES + desk.name, body), 400)
        assert "several issuers" in told
        assert f"NAME@ISSUER, where ISSUER is {running.provider.url} or {other.url}" in told
        unknown = {**body, "approver_groups": ["risk@https://unknown.example"]}
        message(running.ask("admin", "PUT", POLICIES + desk.name, unknown), 400)
        desk.policy(approver_groups=[f"risk@{other.url}"])
        desk.request()
        assert "NAME@ISSUER" in message(desk.approve("bob", groups=("risk",)))
        assert "takes a member" in message(desk.approve("bob", groups=(f"risk@{other.url}",)))
        headers = {"authorization": f"Bearer {other.token(sub='zoe', groups=['risk'])}"}
        path = f"{MLFLOW}transition-requests/approve"
        approved = running.ask(None, "POST", path, desk.about(), headers=headers)
        assert approved.status_code == 200, approved.text
        assert desk.stage() == "Production"


def test_with_one_issuer_a_group_may_be_named_either_way(desk: Desk) -> None:
    unknown = {"pattern": "x", "stages": ["Production"], "approver_groups": ["a@https://un.known"]}
    assert "unknown here" in message(desk.ask("admin", "PUT", f"{POLICIES}x", unknown), 400)
    for stage, name in (("Staging", "risk"), ("Production", f"risk@{desk.server.provider.url}")):
        desk.policy(stages=[stage], approver_groups=[name])
        desk.request(stage=stage)
        assert desk.approve("bob", stage=stage).status_code == 403
        assert desk.approve("bob", stage=stage, groups=("risk",)).status_code == 200
        assert desk.stage() == stage
