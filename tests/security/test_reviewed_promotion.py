"""Reviewed promotion as callers see it: requests, four eyes, policies that bind plain calls too."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_auth.principal import principal_id

POLICIES = "/api/v1/policies/promotion/"
NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """ana registers models; bob and cid approve; eve looks on."""
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("ana", "editor", "*", "*")
        for who in ("bob", "cid", "ana"):
            running.grant(who, "approver", "model", "*")
        running.grant("eve", "viewer", "*", "*")
        yield running


class Desk:
    """One model with a version of ana's, made of a run with a loss of 0.4."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.name = f"m{next(NUMBERS)}"
        run = self.ok("ana", "POST", "runs/create", {
            "experiment_id": "0",
            "tags": [{"key": "mlflow.source.git.commit", "value": "c0ffee"}],
        })  # fmt: skip
        self.run_id = run["run"]["info"]["run_id"]
        point = {"run_id": self.run_id, "key": "loss", "value": 0.4, "timestamp": 1}
        self.ok("ana", "POST", "runs/log-metric", point)
        self.ok("ana", "POST", "registered-models/create", {"name": self.name})
        self.version()

    def version(self) -> str:
        path = f"0/{self.run_id}/artifacts/m"
        stored = f"/api/2.0/mlflow-artifacts/artifacts/{path}/MLmodel"
        assert self.server.ask("ana", "PUT", stored, content=b"x").status_code == 200
        made = self.ok("ana", "POST", "model-versions/create", {
            "name": self.name, "source": f"mlflow-artifacts:/{path}", "run_id": self.run_id,
        })  # fmt: skip
        return str(made["model_version"]["version"])

    def ask(
        self, who: str, method: str, path: str, body: Any = None, **more: Any
    ) -> httpx.Response:
        groups = more.pop("groups", ())
        whole = path if path.startswith("/") else MLFLOW + path
        if groups:
            token = self.server.token(who, *groups)
            headers = {"authorization": f"Bearer {token}"}
            return self.server.ask(None, method, whole, body, headers=headers)
        return self.server.ask(who, method, whole, body)

    def ok(self, who: str, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        answer = self.ask(who, method, path, body, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def policy(self, **fields: Any) -> None:
        body = {"pattern": self.name, "stages": ["Production"], **fields}
        self.ok("admin", "PUT", POLICIES + self.name, body)

    def about(self, stage: str = "Production", **more: Any) -> dict[str, Any]:
        return {"name": self.name, "version": "1", "stage": stage, **more}

    def request(self, who: str = "ana", stage: str = "Production", **more: Any) -> httpx.Response:
        return self.ask(who, "POST", "transition-requests/create", self.about(stage, **more))

    def approve(self, who: str, stage: str = "Production", **more: Any) -> httpx.Response:
        groups = more.pop("groups", ())
        body = self.about(stage, **{"archive_existing_versions": False, **more})
        return self.ask(who, "POST", "transition-requests/approve", body, groups=groups)

    def stage(self, version: str = "1") -> str:
        found = self.ok("eve", "GET", f"model-versions/get?name={self.name}&version={version}")
        return str(found["model_version"]["current_stage"])

    def kinds(self, version: str = "1") -> list[str]:
        found = self.ok("eve", "GET", f"activities/list?name={self.name}&version={version}")
        return [activity["activity_type"] for activity in found.get("activities", [])]


@pytest.fixture
def desk(server: Served) -> Desk:
    return Desk(server)


def test_without_a_policy_one_approval_moves_the_version(desk: Desk) -> None:
    made = desk.request(comment="better").json()["request"]
    assert (made["to_stage"], made["comment"]) == ("Production", "better")
    assert made["available_actions"][-1] == "CANCEL_TRANSITION_REQUEST"
    listed = desk.ok("bob", "GET", f"transition-requests/list?name={desk.name}&version=1")
    assert listed["requests"][0]["available_actions"] == [
        "APPROVE_TRANSITION_REQUEST",
        "REJECT_TRANSITION_REQUEST",
    ]
    activity = desk.approve("bob", comment="fine").json()["activity"]
    assert (activity["activity_type"], activity["to_stage"]) == ("APPROVED_REQUEST", "Production")
    assert desk.stage() == "Production"
    assert desk.kinds() == ["REQUESTED_TRANSITION", "APPROVED_REQUEST"]
    listed = desk.ok("bob", "GET", f"transition-requests/list?name={desk.name}&version=1")
    assert listed["requests"] == []


def test_a_policy_that_names_a_model_is_told_to_who_may_read_the_model(server: Served) -> None:
    desk, coming = Desk(server), "coming-soon"
    desk.policy()
    for name, pattern in (("soon", coming), ("many", "hidden-*")):
        desk.ok("admin", "PUT", POLICIES + name, {"pattern": pattern, "stages": ["Production"]})
    server.grant("own", "viewer", "model", desk.name)
    server.grant("next", "viewer", "model", "coming-*")
    server.grant("looker", "auditor", "server", "*")

    def told(who: str) -> set[str]:
        listed = desk.ok(who, "GET", POLICIES.rstrip("/"))["policies"]
        for name in (desk.name, "soon", "many"):
            known = any(policy["name"] == name for policy in listed)
            assert desk.ask(who, "GET", POLICIES + name).status_code == (200 if known else 404)
        return {policy["name"] for policy in listed} & {desk.name, "soon", "many"}

    assert told("stranger") == {"many"}
    assert told("own") == {"many", desk.name}
    assert told("next") == {"many", "soon"}
    for who in ("ana", "looker", "admin"):
        assert told(who) == {"many", "soon", desk.name}


@pytest.mark.parametrize("metric", ["broken", "absent"])
@pytest.mark.parametrize("condition", ["NOT metrics.{} >= 0.5", "NOT (metrics.{} >= 0.5)"])
def test_what_is_not_known_of_a_metric_does_not_pass(
    desk: Desk, metric: str, condition: str
) -> None:
    point = {"run_id": desk.run_id, "key": "broken", "value": "NaN", "timestamp": 1}
    desk.ok("ana", "POST", "runs/log-metric", point)
    desk.policy(condition=condition.format(metric))
    desk.request()
    refused = desk.approve("bob")
    assert refused.status_code == 403
    assert desk.stage() == "None"
    desk.policy(condition=condition.format("loss"))
    assert desk.approve("bob").status_code == 200


def test_an_explanation_tells_what_policies_ask_for(desk: Desk) -> None:
    desk.policy(
        aliases=["champion"],
        approvals=2,
        approver_groups=["risk"],
        exclude_author=True,
        required_tags=["card=done"],
        condition="metrics.loss < 0.5",
        required_comment=True,
    )
    asks = [
        "2 approvals of a transition request, from risk, not by the requester, not by the "
        "version's author",
        "a comment",
        "the tag card=done on the version",
        "a source run whose artifacts the version has, and of which `metrics.loss < 0.5` is true",
    ]
    told = {"name": desk.name, "stages": ["Production"], "aliases": ["champion"], "asks": asks}

    def policies(who: str, permission: str, target: str = "") -> Any:
        query = f"permission={permission}&resource=model:{desk.name}{target}"
        return desk.ok(who, "GET", f"/api/v1/access/explain?{query}")["policies"]

    for target in ("", "&stage=production", "&alias=champion"):
        assert policies("bob", "model:promote", target) == [told], target
    assert policies("bob", "model:approve", "&stage=Production") == [told]
    assert policies("bob", "model:promote", "&stage=Staging&alias=other") == []
    assert policies("bob", "model:write") == []
    assert policies("nobody", "model:promote") == [], "of what one has nothing on"


def test_a_request_is_rejected_or_cancelled(desk: Desk) -> None:
    assert desk.request().status_code == 200
    assert desk.request("bob").json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert desk.ask("bob", "POST", "transition-requests/reject", desk.about()).status_code == 200
    assert desk.approve("bob").status_code == 404
    assert desk.request().status_code == 200
    query = f"transition-requests/delete?name={desk.name}&version=1&stage=Production&creator="
    me = principal_id(desk.server.provider.url, "ana")
    assert desk.ask("bob", "DELETE", query + me).status_code == 404
    assert desk.ask("ana", "DELETE", query + me).status_code == 200
    assert desk.kinds() == [
        "REQUESTED_TRANSITION",
        "REJECTED_REQUEST",
        "REQUESTED_TRANSITION",
        "CANCELLED_REQUEST",
    ]
    assert desk.stage() == "None"


def test_a_policy_binds_the_plain_call_and_says_what_is_missing(desk: Desk) -> None:
    desk.policy()
    body = desk.about(archive_existing_versions=False)
    for path in ("model-versions/transition-stage", "databricks/model-versions/transition-stage"):
        answer = desk.ask("bob", "POST", path, body)
        assert answer.status_code == 403
        assert "1 approval of a transition request" in answer.json()["message"]
        assert "transition-requests/create" in answer.json()["message"]
    assert desk.stage() == "None"
    staging = desk.about("Staging", archive_existing_versions=False)
    assert desk.ask("bob", "POST", "model-versions/transition-stage", staging).status_code == 200


def test_four_eyes(desk: Desk) -> None:
    desk.policy()
    assert desk.request("bob").status_code == 200
    assert "asks for" in desk.approve("bob").json()["message"]
    assert "author of the version" in desk.approve("ana").json()["message"]
    assert desk.approve("cid").status_code == 200
    assert desk.stage() == "Production"


def test_a_quorum_takes_two_people(desk: Desk) -> None:
    desk.policy(approvals=2)
    assert desk.request().status_code == 200
    assert desk.approve("bob").status_code == 200
    assert desk.stage() == "None"
    assert "already" in desk.approve("bob").json()["message"]
    assert desk.approve("cid").status_code == 200
    assert desk.stage() == "Production"


def test_only_members_of_the_groups_count(desk: Desk) -> None:
    desk.policy(approver_groups=["risk"])
    assert desk.request().status_code == 200
    assert "a member of risk" in desk.approve("bob").json()["message"]
    assert desk.approve("bob", groups=("risk",)).status_code == 200
    assert desk.stage() == "Production"


def test_tags_conditions_and_comments(desk: Desk) -> None:
    desk.policy(
        required_tags=["checked=yes"], condition="metrics.loss < 0.3", required_comment=True
    )
    assert "comment" in desk.request().json()["message"]
    assert desk.request(comment="please").status_code == 200
    assert "comment" in desk.approve("bob").json()["message"]
    missing = desk.approve("bob", comment="ok").json()["message"]
    assert "the tag checked=yes" in missing
    assert "`metrics.loss < 0.3`" in missing
    tag = {"name": desk.name, "version": "1", "key": "checked", "value": "yes"}
    desk.ok("ana", "POST", "model-versions/set-tag", tag)
    point = {"run_id": desk.run_id, "key": "loss", "value": 0.2, "timestamp": 2, "step": 1}
    desk.ok("ana", "POST", "runs/log-metric", point)
    assert desk.approve("bob", comment="ok").status_code == 200
    assert desk.stage() == "Production"


def test_a_condition_is_not_met_by_a_run_that_the_files_are_not_of(desk: Desk) -> None:
    desk.policy(approvals=0, condition="metrics.loss < 0.5")

    def moved(**version: str) -> int:
        body = {"name": desk.name, "run_id": desk.run_id, **version}
        made = desk.ok("ana", "POST", "model-versions/create", body)["model_version"]
        body = {"name": desk.name, "version": made["version"], "stage": "Production"}
        answer = desk.ask("bob", "POST", "model-versions/transition-stage", body)
        assert answer.status_code == 200 or "whose artifacts the version has" in answer.text
        return answer.status_code

    def logged(run_id: str) -> dict[str, str]:
        body = {"experiment_id": "0", "source_run_id": run_id}
        info = desk.ok("ana", "POST", "logged-models", body)["model"]["info"]
        return {"source": f"models:/{info['model_id']}", "model_id": info["model_id"]}

    other = desk.ok("ana", "POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    assert moved(source=f"runs:/{desk.run_id}/m") == 200
    assert moved(source="s3://elsewhere/model") == 403
    assert moved(**logged(other)) == 403
    assert moved(**logged("")) == 403
    assert moved(**logged(desk.run_id)) == 200
    assert moved(source=f"mlflow-artifacts:/0/{desk.run_id}/artifacts/n") == 200


def test_a_policy_without_approvals_still_has_its_conditions(desk: Desk) -> None:
    desk.policy(approvals=0, condition="metrics.loss < 0.3")
    body = desk.about(archive_existing_versions=False)
    answer = desk.ask("bob", "POST", "model-versions/transition-stage", body)
    assert "metrics.loss < 0.3" in answer.json()["message"]
    desk.policy(approvals=0, condition="metrics.loss < 0.5")
    assert desk.ask("bob", "POST", "model-versions/transition-stage", body).status_code == 200


def test_an_alias_is_guarded_and_asked_for_by_its_sign(desk: Desk) -> None:
    desk.policy(stages=[], aliases=["champion"])
    alias = {"name": desk.name, "alias": "champion", "version": "1"}
    for spelling in ("champion", "Champion", "\uff43hampion", "champion\n"):
        guarded = {**alias, "alias": spelling}
        assert desk.ask("bob", "POST", "registered-models/alias", guarded).status_code == 403
    other = {**alias, "alias": "challenger"}
    assert desk.ask("bob", "POST", "registered-models/alias", other).status_code == 200
    assert desk.request(stage="@champion").status_code == 200
    assert desk.approve("bob", stage="@champion").status_code == 200
    query = f"registered-models/alias?name={desk.name}&alias=champion"
    assert desk.ok("eve", "GET", query)["model_version"]["version"] == "1"
    assert desk.ask("bob", "POST", "registered-models/alias", alias).status_code == 200, "as it is"


def test_the_approval_pins_what_it_rests_on_and_archives_by_the_same_event(desk: Desk) -> None:
    second = desk.version()
    plain = {"name": desk.name, "version": second, "stage": "Production"}
    desk.ok("bob", "POST", "model-versions/transition-stage", plain)
    desk.policy(condition="metrics.loss < 0.5")
    desk.request()
    before = desk.server.gateway.services.fold.state.next_offsets  # type: ignore[union-attr]
    catalog = {at: offset for at, offset in before.items() if at.topic == "catalog"}
    assert desk.approve("bob", archive_existing_versions=True).status_code == 200
    after = desk.server.gateway.services.fold.state.next_offsets  # type: ignore[union-attr]
    assert [after[at] - offset for at, offset in catalog.items()] == [1], "one event"
    assert (desk.stage(), desk.stage(second)) == ("Production", "Archived")
    services = desk.server.gateway.services
    assert services is not None
    log, [(at, offset)] = services.fold.log, [*catalog.items()]
    event: Any = services.writer._codec.decode(log.read(at, offset, 1)[0].value)
    evidence = event.evidence
    assert evidence.run_id == desk.run_id
    assert evidence.metrics == {"loss": 0.4}
    assert evidence.source_commit == "c0ffee"
    assert evidence.conditions == ("metrics.loss < 0.5",)
    assert list(evidence.artifacts) == [f"0/{desk.run_id}/artifacts/m/MLmodel"]
    assert evidence.artifacts_total == 1
    assert desk.kinds(second)[-1] == "SYSTEM_TRANSITION"


def test_a_new_name_does_not_lead_around_a_policy(desk: Desk) -> None:
    desk.policy()
    rename = {"name": desk.name, "new_name": f"{desk.name}-free"}
    assert desk.ask("admin", "POST", "registered-models/rename", rename).status_code == 403


def test_what_is_promoted_under_a_policy_keeps_its_name(desk: Desk) -> None:
    """Or another model, approved under another name, could be put in its place."""
    desk.ok("admin", "PUT", POLICIES + desk.name, {"pattern": "*", "stages": ["Production"]})
    rename = {"name": desk.name, "new_name": f"{desk.name}-2"}
    back = {"name": f"{desk.name}-2", "new_name": desk.name}
    desk.ok("ana", "POST", "registered-models/rename", rename)
    desk.ok("ana", "POST", "registered-models/rename", back)
    desk.request()
    assert desk.approve("bob").status_code == 200
    refused = desk.ask("ana", "POST", "registered-models/rename", rename)
    assert (refused.status_code, desk.name in refused.json()["message"]) == (403, True)
    desk.ok("admin", "DELETE", POLICIES + desk.name)


def test_who_may_promote_to_one_stage_takes_nothing_out_of_another(desk: Desk) -> None:
    desk.server.grant("sam", "approver", "model", desk.name, stages=["Staging"])
    desk.server.grant("pia", "approver", "model", desk.name, stages=["Staging", "Production"])
    move = {**desk.about("Staging"), "archive_existing_versions": False}
    desk.ok("sam", "POST", "model-versions/transition-stage", move)
    desk.ok("pia", "POST", "model-versions/transition-stage", {**move, "stage": "Production"})
    assert desk.ask("sam", "POST", "model-versions/transition-stage", move).status_code == 403
    assert desk.request(stage="Staging").status_code == 200
    assert desk.approve("sam", stage="Staging").status_code == 403
    assert desk.stage() == "Production"
    assert desk.approve("pia", stage="Staging").status_code == 200


def test_who_may_request_for_one_stage_may_comment(desk: Desk) -> None:
    desk.server.grant("sam", "approver", "model", desk.name, stages=["Staging"])
    comment = {"name": desk.name, "version": "1", "comment": "looks well"}
    desk.ok("sam", "POST", "comments/create", comment)
    assert desk.request("sam").status_code == 403


def test_who_may_what(desk: Desk) -> None:
    assert desk.request("eve").status_code == 403
    desk.request()
    assert desk.approve("eve").status_code == 403
    body = {"pattern": "*", "stages": ["Production"], "approvals": 0}
    for who in ("ana", "bob", "eve"):
        assert desk.ask(who, "PUT", POLICIES + "mine", body).status_code == 403
        assert desk.ask(who, "GET", POLICIES[:-1]).status_code == 200
    wrong = {**body, "condition": "nonsense <"}
    assert desk.ask("admin", "PUT", POLICIES + "mine", wrong).status_code == 400


def test_a_request_ends_when_the_version_gets_there_otherwise(desk: Desk) -> None:
    desk.request()
    body = desk.about(archive_existing_versions=False)
    desk.ok("bob", "POST", "model-versions/transition-stage", body)
    assert desk.approve("bob").status_code == 404
    listed = desk.ok("bob", "GET", f"transition-requests/list?name={desk.name}&version=1")
    assert listed["requests"] == []


def test_comments_are_their_authors(desk: Desk) -> None:
    said = {"name": desk.name, "version": "1", "comment": "why?"}
    made = desk.ok("bob", "POST", "comments/create", said)["comment"]
    assert made["comment"] == "why?"
    change = {"id": made["id"], "comment": "ah."}
    assert desk.ask("cid", "PATCH", "comments/update", change).status_code == 403
    assert desk.ok("bob", "PATCH", "comments/update", change)["comment"]["comment"] == "ah."
    assert desk.ask("eve", "DELETE", f"comments/delete?id={made['id']}").status_code == 403
    assert desk.ask("bob", "DELETE", f"comments/delete?id={made['id']}").status_code == 200
    assert desk.kinds() == ["NEW_COMMENT"]


def test_a_job_of_a_repository_may_be_an_approver(desk: Desk) -> None:
    """CI without secrets: claims of its token are what it is granted by, and stand in the event."""
    issuer = desk.server.provider.url
    grant = {
        "subject_kind": "claims",
        "issuer": issuer,
        "claims": [{"name": "azp", "pattern": "deployer"}],
        "role": "approver",
        "resource_kind": "model",
        "pattern": desk.name,
        "stages": ["Production"],
    }
    desk.ok("admin", "POST", "/api/v1/access/grants", grant)
    desk.policy()
    desk.request()
    for azp, status in (("other", 403), ("deployer", 200)):
        token = desk.server.provider.token(sub="job", azp=azp, groups=[])
        headers = {"authorization": f"Bearer {token}"}
        body = desk.about(archive_existing_versions=False)
        path = f"{MLFLOW}transition-requests/approve"
        answer = desk.server.ask(None, "POST", path, body, headers=headers)
        assert (answer.status_code in (403, 404)) == (status == 403), answer.text
    assert desk.stage() == "Production"
