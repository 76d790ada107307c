"""Every call is in the trail exactly once: every route there is, as an admin, a viewer and nobody.

A successful call whose write is an event leaves that event and nothing else; a probe leaves
nothing; any other call leaves one record, whatever it was answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.events import ApiCalled
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.api.app import ROUTES
from muniment_services.api.routes import Route
from muniment_services.audit_levels import Level, Levels
from muniment_services.log.base import LogUnavailable

CODEC = Codec(Schemas.load())
LEVELS = Levels()
STREAMS = "/api/v1/audit/stream"
SLOW = ("/api/v1/projections/rebuild", "/api/v1/snapshots", STREAMS)
EVENTS = "/api/v1/audit/events"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("viewer", "viewer", "*", "*")
        run = running.ask("admin", "POST", f"{MLFLOW}runs/create", {"experiment_id": "0"})
        running.folder = f"0/{run.json()['run']['info']['run_id']}/artifacts"
        yield running


class Since:
    """What was added to the log from here on."""

    def __init__(self, server: Served) -> None:
        assert server.gateway.services is not None
        self._log = server.gateway.services.fold.log
        self._server = server
        self._starts = server.loop.run_until_complete(self._log.end_offsets())

    def events(self, request_id: str) -> list[Event]:
        """The events that a request led to, those of every topic."""
        ends = self._server.loop.run_until_complete(self._log.end_offsets())
        found = [
            CODEC.decode(record.value)
            for at, start in self._starts.items()
            if ends[at] > start
            for record in self._log.read(at, Offset(start))
        ]
        return [event for event in found if event.envelope.request_id == request_id]


def call(server: Served, who: str | None, route: Route) -> httpx.Response:
    """The answer to an all but empty request."""
    folder = server.folder
    path = re.sub(r"\{\w+\}", "1", route.path.replace("{path:path}", f"{folder}/x"))
    path = re.sub(r"\{\w+:path\}", "1", path)
    body: dict[str, str] | None = {} if route.method in ("POST", "PUT", "PATCH", "DELETE") else None
    return server.ask(who, route.method, path, body)


@pytest.mark.parametrize("who", [None, "viewer", "admin"])
def test_every_route_leaves_one_trace_of_every_call(server: Served, who: str | None) -> None:
    wrong = []
    for route in ROUTES:
        if route.path in SLOW:
            continue
        since = Since(server)
        answer = call(server, who, route)
        events = since.events(answer.headers["x-request-id"])
        calls = [event for event in events if isinstance(event, ApiCalled)]
        status = answer.status_code
        made = status < 400 and len(events) > len(calls)
        silent = LEVELS.of(route.path, route.permission) is Level.NONE and status not in (401, 403)
        if len(calls) != (0 if made or silent else 1):
            wrong.append(f"{route.method} {route.path} ({status}): {events}")
        for told in calls:
            assert (told.method, told.route, told.status) == (route.method, route.path, status)
            assert told.permission == route.permission
            assert told.bytes_out == len(answer.content)
            outcome = "allowed" if status < 400 else "denied" if status in (401, 403) else "failed"
            assert told.outcome == outcome or told.outcome == "denied", told
            assert (told.envelope.actor.principal_id == "nobody") == (
                who is None or route.permission == "public:read"
            )
    assert wrong == []


@pytest.mark.parametrize("path", ["/nope", "/api/2.0/mlflow/nope"])
def test_calls_that_meet_no_route_are_in_the_trail(server: Served, path: str) -> None:
    for who, status in ((None, 401), ("viewer", 404)):
        since = Since(server)
        answer = server.ask(who, "GET", path)
        (told,) = since.events(answer.headers["x-request-id"])
        assert isinstance(told, ApiCalled)
        assert (told.status, told.route, told.error_code) == (
            status,
            None,
            answer.json()["error_code"],
        )


def test_a_repeat_that_leads_to_no_event_is_a_call(server: Served) -> None:
    def create() -> tuple[httpx.Response, list[Event]]:
        since = Since(server)
        body = {"experiment_id": "0"}
        headers = {"idempotency-key": "once"}
        answer = server.ask("admin", "POST", f"{MLFLOW}runs/create", body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer, since.events(answer.headers["x-request-id"])

    first, events = create()
    assert [event.envelope.type for event in events] == ["RunCreated"]
    second, events = create()
    assert second.json() == first.json()
    assert [event.envelope.type for event in events] == ["ApiCalled"]


def test_what_is_hidden_is_a_refusal_of_the_trail_although_not_of_the_answer(
    server: Served,
) -> None:
    made = server.ask("admin", "POST", f"{MLFLOW}registered-models/create", {"name": "hidden"})
    assert made.status_code == 200
    since = Since(server)
    answer = server.ask("stranger", "GET", f"{MLFLOW}registered-models/get?name=hidden")
    assert answer.status_code in (403, 404)
    (told,) = since.events(answer.headers["x-request-id"])
    assert isinstance(told, ApiCalled)
    assert told.outcome == "denied"


def test_a_read_of_a_version_names_model_and_version(server: Served) -> None:
    server.ask("admin", "POST", f"{MLFLOW}registered-models/create", {"name": "fraud"})
    made = server.ask(
        "admin", "POST", f"{MLFLOW}model-versions/create", {"name": "fraud", "source": "/x"}
    )
    since = Since(server)
    answer = server.ask("viewer", "GET", f"{MLFLOW}model-versions/get?name=fraud&version=1")
    (told,) = since.events(answer.headers["x-request-id"])
    assert isinstance(told, ApiCalled)
    first = told.resources[0]
    assert (first.kind, first.name, first.version) == ("registered_model", "fraud", 1), made.text


def ask_trail(server: Served, query: str, **more: Any) -> list[dict[str, Any]]:
    answer = server.ask("admin", "GET", str(httpx.URL(EVENTS, params={"q": query, **more})))
    assert answer.status_code == 200, answer.text
    found = answer.json().get("events", [])
    assert isinstance(found, list)
    return found


def test_auditors_find_who_was_refused_by_name(server: Served) -> None:
    server.ask("viewer", "POST", f"{MLFLOW}registered-models/create", {"name": "mine"})
    (found,) = ask_trail(server, "actor:viewer outcome:denied action:model.create", max_results=1)
    assert (found["actor_name"], found["status"]) == ("viewer", 403)
    assert found["route"] == f"{MLFLOW}registered-models/create"


def test_questions_to_the_trail_are_in_it(server: Served) -> None:
    ask_trail(server, "actor:somebody")
    newest = ask_trail(server, "action:audit.read", max_results=1)[0]
    assert newest["route"] == EVENTS
    assert server.ask("viewer", "GET", EVENTS).status_code == 403


def test_pages_follow_each_other_without_a_hole(server: Served) -> None:
    until = max(event["at_ms"] for event in ask_trail(server, "topic:access", max_results=1))
    query = f"time:*..{until} -action:audit.read"
    whole = ask_trail(server, query, max_results=1000)
    found: list[dict[str, Any]] = []
    token = None
    while True:
        params = {"q": query, "max_results": 7, **({"page_token": token} if token else {})}
        page = server.ask("admin", "GET", str(httpx.URL(EVENTS, params=params))).json()
        found += page["events"]
        token = page.get("next_page_token")
        if token is None:
            break
        if len(found) > 60:
            break
    assert [event["event_id"] for event in found] == [
        event["event_id"] for event in whole[: len(found)]
    ]
    other = server.ask("admin", "GET", str(httpx.URL(EVENTS, params={"q": "x", "page_token": "?"})))
    assert other.status_code == 400


def test_a_query_that_makes_no_sense_is_refused_with_the_place(server: Served) -> None:
    answer = server.ask("admin", "GET", str(httpx.URL(EVENTS, params={"q": "actor:a ) b"})))
    assert answer.status_code == 400
    assert "from character 9 on" in answer.json()["message"]


def test_without_the_log_nothing_is_told(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.gateway.services is not None
    log = server.gateway.services.fold.log

    def fail(_: Any) -> Any:
        raise LogUnavailable("disk full")

    monkeypatch.setattr(type(log), "append", lambda self, record: fail(record))
    for who, method, path, body in (
        ("viewer", "GET", f"{MLFLOW}experiments/get?experiment_id=0", None),
        ("viewer", "POST", f"{MLFLOW}runs/search", {"experiment_ids": ["0"]}),
        ("viewer", "GET", f"{MLFLOW}experiments/get?experiment_id=99", None),
        (None, "GET", f"{MLFLOW}experiments/get?experiment_id=0", None),
        ("admin", "POST", f"{MLFLOW}runs/create", {"experiment_id": "0"}),
        ("admin", "GET", EVENTS, None),
    ):
        answer = server.ask(who, method, path, body)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "5"
        assert "Default" not in answer.text
    assert server.ask(None, "GET", "/health").status_code == 200
