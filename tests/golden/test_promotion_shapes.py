"""The JSON of reviewed promotion, field by field, as Databricks' registry has it.

`${any:…}` stands for what differs from run to run; `golden/http/README.md` names the placeholders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from golden.http.answers import Answer, differences
from harness.signed_in import MLFLOW, Served, served
from muniment_auth.principal import principal_id

TIME = "${any:time}"
ID = "${event}"
ABOUT = {"name": "m", "version": "1", "stage": "Production"}
ALL_ACTIONS = [
    "APPROVE_TRANSITION_REQUEST",
    "REJECT_TRANSITION_REQUEST",
    "CANCEL_TRANSITION_REQUEST",
]


class Shapes:
    """A server with a model of ana's, whose promotion bob and cid approve. `check` compares."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.names: dict[str, Any] = {"P": "none"}
        for who, roles in (
            ("ana", ("editor", "approver")),
            ("bob", ("approver",)),
            ("cid", ("approver",)),
        ):
            self.names[who] = principal_id(server.provider.url, who)
            for role in roles:
                server.grant(who, role, "model", "*")
        server.grant("ana", "editor", "server", "*")
        self.ask("ana", "POST", "registered-models/create", {"name": "m"})
        for source in ("s3://b/1", "s3://b/2"):
            self.ask("ana", "POST", "model-versions/create", {"name": "m", "source": source})

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        whole = path if path.startswith("/") else MLFLOW + path
        answer = self.server.ask(who, method, whole, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def check(self, who: str, method: str, path: str, body: Any, wanted: Any) -> Any:
        """Ask, and hold the answer against what it must be; gives the answer."""
        actual = self.ask(who, method, path, body)
        now_ms = time.time_ns() // 1_000_000
        names = {**self.names, **ids_in(actual)}
        expected, got = Answer(200, json=wanted), Answer(200, json=actual)
        assert differences(expected, got, names, now_ms) == []
        return actual


def ids_in(answer: Any) -> dict[str, Any]:
    """The id that an answer has given out, as `${event}`."""
    inner = next(iter(answer.values())) if answer else None
    return {"event": inner["id"]} if isinstance(inner, dict) and "id" in inner else {"event": ""}


@pytest.fixture
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shapes]:
    with served(tmp_path_factory.mktemp("data")) as running:
        yield Shapes(running)


def policy(shapes: Shapes, **more: Any) -> None:
    body = {"pattern": "m", "stages": ["Production"], "approvals": 2, **more}
    shapes.ask("admin", "PUT", "/api/v1/policies/promotion/p", body)


def activity(kind: str, who: str, **more: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "activity_type": kind,
        "user_id": "${" + who + "}",
        "creation_timestamp": TIME,
        "last_updated_timestamp": TIME,
        "from_stage": "None",
        "to_stage": "Production",
        **more,
    }


def test_a_request_and_the_list_of_open_ones(shapes: Shapes) -> None:
    asked = {**ABOUT, "comment": "please"}
    made = activity("REQUESTED_TRANSITION", "ana", comment="please", available_actions=ALL_ACTIONS)
    made["evidence_sha256"] = "${any:sha256}"  # A field of ours.
    answer = shapes.check("ana", "POST", "transition-requests/create", asked, {"request": made})
    shapes.names["request"] = answer["request"]["id"]
    listed = {**made, "id": "${request}", "available_actions": ALL_ACTIONS[:2]}
    query = "transition-requests/list?name=m&version=1"
    shapes.check("bob", "GET", query, None, {"requests": [listed]})
    shapes.check("bob", "GET", query.replace("=1", "=2"), None, {"requests": []})


def test_approvals_and_what_they_move(shapes: Shapes) -> None:
    policy(shapes)
    other = {**ABOUT, "version": "2", "stage": "Staging"}
    shapes.ask("ana", "POST", "transition-requests/create", other)
    shapes.ask("bob", "POST", "transition-requests/approve", other)
    shapes.ask("ana", "POST", "transition-requests/create", ABOUT)
    once = activity("APPROVED_REQUEST", "bob", comment="ok", system_comment="approval 1 of 2")
    body = {**ABOUT, "archive_existing_versions": False, "comment": "ok"}
    shapes.check("bob", "POST", "transition-requests/approve", body, {"activity": once})
    [opened] = shapes.ask("cid", "GET", "transition-requests/list?name=m&version=1")["requests"]
    assert opened["approvals"] == [shapes.names["bob"]]
    twice = activity("APPROVED_REQUEST", "cid", system_comment="approval 2 of 2")
    body = {**ABOUT, "archive_existing_versions": True}
    shapes.check("cid", "POST", "transition-requests/approve", body, {"activity": twice})
    found = shapes.ask("ana", "GET", "model-versions/get?name=m&version=1")["model_version"]
    assert found["current_stage"] == "Production"


def test_rejections_and_cancellations(shapes: Shapes) -> None:
    shapes.ask("ana", "POST", "transition-requests/create", ABOUT)
    rejected = activity("REJECTED_REQUEST", "bob", comment="no")
    body = {**ABOUT, "comment": "no"}
    shapes.check("bob", "POST", "transition-requests/reject", body, {"activity": rejected})
    shapes.ask("ana", "POST", "transition-requests/create", ABOUT)
    query = "&".join(f"{key}={value}" for key, value in ABOUT.items())
    path = f"transition-requests/delete?{query}&creator={shapes.names['ana']}"
    cancelled = activity("CANCELLED_REQUEST", "ana")
    shapes.check("ana", "DELETE", path, None, {"activity": cancelled})


def test_comments_are_told_as_they_are_now(shapes: Shapes) -> None:
    made = {
        "id": ID,
        "user_id": "${bob}",
        "comment": "why?",
        "creation_timestamp": TIME,
        "last_updated_timestamp": TIME,
        "available_actions": ["EDIT_COMMENT", "DELETE_COMMENT"],
    }
    said = {"name": "m", "version": "1", "comment": "why?"}
    first = shapes.check("bob", "POST", "comments/create", said, {"comment": made})
    comment_id = first["comment"]["id"]
    change = {"id": comment_id, "comment": "ah."}
    changed = {**made, "comment": "ah."}
    shapes.check("bob", "PATCH", "comments/update", change, {"comment": changed})
    [told] = shapes.ask("ana", "GET", "activities/list?name=m&version=1")["activities"]
    assert (told["id"], told["comment"]) == (comment_id, "ah.")
    assert told["creation_timestamp"] == first["comment"]["creation_timestamp"]
    assert told["last_updated_timestamp"] >= told["creation_timestamp"]
    shapes.check("bob", "DELETE", f"comments/delete?id={comment_id}", None, {})
    [told] = shapes.ask("ana", "GET", "activities/list?name=m&version=1")["activities"]
    assert (told["id"], told.get("comment")) == (comment_id, None)
    assert told["system_comment"] == "deleted by its author"


def test_databricks_own_version_and_model(shapes: Shapes) -> None:
    shapes.ask("ana", "POST", "transition-requests/create", ABOUT)
    moved = {
        "name": "m",
        "version": "1",
        "creation_timestamp": TIME,
        "last_updated_timestamp": TIME,
        "user_id": "${ana}",
        "current_stage": "Staging",
        "description": "",
        "source": "s3://b/1",
        "run_id": "",
        "run_link": "",
        "status": "READY",
        "permission_level": "CAN_MANAGE",
    }
    opened = {
        **activity("REQUESTED_TRANSITION", "ana", available_actions=ALL_ACTIONS),
        "id": "${any:text}",
        "from_stage": "Staging",
    }
    path = "databricks/model-versions/transition-stage"
    body = {**ABOUT, "stage": "Staging", "archive_existing_versions": False}
    wanted = {"model_version_databricks": {**moved, "open_requests": [opened]}}
    shapes.check("ana", "POST", path, body, wanted)
    none = {**moved, "version": "2", "source": "s3://b/2", "current_stage": "None"}
    latest = [{**moved, "permission_level": 0}, {**none, "permission_level": 0}]
    model = {
        "id": ID,
        "name": "m",
        "user_id": "${ana}",
        "creation_timestamp": TIME,
        "last_updated_timestamp": TIME,
        "permission_level": "CAN_MANAGE_PRODUCTION_VERSIONS",
        "latest_versions": [
            {key: value for key, value in version.items() if key != "permission_level"}
            for version in latest
        ],
    }
    wanted = {"registered_model_databricks": model}
    shapes.check("bob", "GET", "databricks/registered-models/get?name=m", None, wanted)


def test_activities_of_what_is_gone_are_told_by_the_name(shapes: Shapes) -> None:
    shapes.ask("ana", "POST", "transition-requests/create", ABOUT)
    shapes.ask("bob", "POST", "transition-requests/approve", ABOUT)
    shapes.ask("admin", "DELETE", "registered-models/delete", {"name": "m"})
    assert shapes.server.ask(
        "bob", "GET", f"{MLFLOW}activities/list?name=m&version=1"
    ).status_code == 404  # fmt: skip
    told = shapes.ask("bob", "GET", "/api/v1/models/m/versions/1/activities")["activities"]
    kinds = [one["activity_type"] for one in told]
    assert kinds == ["REQUESTED_TRANSITION", "APPROVED_REQUEST"]
    assert len({one["model_id"] for one in told}) == 1
    nobody = shapes.server.ask("eve", "GET", "/api/v1/models/m/versions/1/activities")
    assert nobody.status_code in (403, 404)
    unknown = shapes.server.ask("bob", "GET", "/api/v1/models/m/versions/9/activities")
    assert unknown.status_code == 404
