"""The door: which hosts may enter, what is a body, what is refused before a handler."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from muniment_auth.permissions import Permission
from muniment_auth.principal import NOBODY, Principal, local_principal
from muniment_schemas.envelope import Actor, Envelope
from muniment_schemas.events import ApiCalled
from muniment_services.api.callers import LocalCallers
from muniment_services.api.gateway import App, Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.api.requests import Field
from muniment_services.api.routes import Answer, Call, Route, RouteTable
from muniment_services.api.services import Services

FIELDS = (Field("name"),)


async def named(call: Call) -> bytes:
    assert call.authority.reads_all
    return json.dumps(call.params(FIELDS)).encode()


async def nothing(call: Call) -> Answer:
    assert call.authority.reads_all or call.principal is NOBODY
    return Answer(b"OK", content_type="text/plain")


ROUTES = (
    Route("GET", "/health", Permission.PUBLIC, nothing),
    Route("GET", "/thing", Permission.RUN_READ, named),
    Route("POST", "/thing", Permission.RUN_WRITE, named),
    Route("PATCH", "/thing", Permission.RUN_WRITE, named),
    Route("GET", "/things/{rest:path}", Permission.RUN_READ, nothing),
)


class Forgiving:
    """Services of a gateway alone: everybody is known, and every call is recorded."""

    def __init__(self) -> None:
        self.identities = self.trail = self

    def stale_header(self, _: Permission) -> None:
        return None

    async def register_once(self, _: Principal) -> None:
        return None

    def envelope(self, *_: Any) -> Envelope:
        return Envelope(
            event_id="e",
            type="ApiCalled",
            aggregate_kind="caller",
            aggregate_id="p",
            actor=Actor(principal_id="p", auth_method="local"),
            request_id="r",
            recorded_at_ms=1,
        )

    async def record(self, _: Principal, call: ApiCalled) -> None:
        assert call.status


async def no_fallback(scope: Any, _: Any, __: Any) -> None:
    raise AssertionError(f"{scope['path']} went past the gateway")


def send(
    method: str,
    path: str,
    headers: dict[bytes, bytes] | None = None,
    body: bytes = b"",
    query: bytes = b"",
    table: RouteTable | None = None,
    without: bytes = b"",
    also: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, Any]:
    """Status and body of the answer, JSON decoded. without: a header. also: more of them."""
    callers = LocalCallers(local_principal("tester"))
    gateway = Gateway(table or RouteTable(ROUTES), HostCheck(()), callers, cast(App, no_fallback))
    gateway.services = cast(Services, Forgiving())
    sent: list[Any] = []
    sized = {b"content-length": str(len(body)).encode()} if body else {}
    named = {b"host": b"localhost:5000"} | sized | (headers or {})
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [*((name, named[name]) for name in named if name != without), *also],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def take(message: Any) -> None:
        sent.append(message)

    asyncio.run(gateway(scope, receive, take))
    answer = sent[1]["body"]
    return sent[0]["status"], json.loads(answer) if answer[:1] == b"{" else answer


def test_a_client_that_goes_away_before_its_request_is_whole_is_recorded() -> None:
    callers = LocalCallers(local_principal("tester"))
    gateway = Gateway(RouteTable(ROUTES), HostCheck(()), callers, cast(App, no_fallback))
    recorded: list[ApiCalled] = []

    class Kept(Forgiving):
        async def record(self, _: Principal, call: ApiCalled) -> None:
            recorded.append(call)

    gateway.services = cast(Services, Kept())
    headers = [(b"host", b"localhost"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/thing", "query_string": b""}
    messages = iter(
        [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    asyncio.run(gateway({**scope, "headers": headers}, receive, send))
    (call,) = recorded
    assert (call.status, call.outcome) == (499, "failed")


async def forgetful(_: Call) -> bytes:
    return b'{"secret": 1}'


def test_what_asked_nobody_is_not_answered() -> None:
    table = RouteTable((Route("GET", "/thing", Permission.RUN_READ, forgetful),))
    status, error = send("GET", "/thing", table=table)
    assert (status, error["error_code"]) == (500, "INTERNAL_ERROR")


def test_an_unknown_host_sees_the_probes_only() -> None:
    stranger = {b"host": b"example.test"}
    assert send("GET", "/health", stranger) == (200, b"OK")
    status, error = send("GET", "/thing", stranger)
    assert (status, error["error_code"]) == (403, "PERMISSION_DENIED")


def test_who_names_no_host_sees_the_probes_only() -> None:
    assert send("GET", "/health", without=b"host") == (200, b"OK")
    assert send("GET", "/thing", without=b"host")[0] == 400


@pytest.mark.parametrize("name", [b"host", b"authorization", b"idempotency-key"])
def test_two_words_on_one_thing_are_refused(name: bytes) -> None:
    status, error = send("GET", "/thing", also=((name, b"a"), (name, b"b")))
    assert (status, error["error_code"]) == (400, "BAD_REQUEST")
    assert name.decode() in error["message"]


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", b"http://example.test", 403),
        ("POST", b"null", 403),
        ("POST", b"http://localhost:3000", 200),
        ("GET", b"http://example.test", 200),
    ],
)
def test_pages_of_other_hosts_may_not_write(method: str, origin: bytes, status: int) -> None:
    headers = {b"origin": origin, b"content-type": b"application/json"}
    assert send(method, "/thing", headers, b"{}")[0] == status


@pytest.mark.parametrize(("workspace", "status"), [(b"default", 500), (b"x", 500), (b" ", 200)])
def test_a_request_for_a_workspace_hears_that_there_is_none(workspace: bytes, status: int) -> None:
    headers = {b"x-mlflow-workspace": workspace}
    answered, body = send("GET", "/thing", headers)
    assert answered == status
    if status == 500:
        assert body["error_code"] == "FEATURE_DISABLED"
    assert send("GET", "/health", headers) == (200, b"OK")


def test_a_read_takes_its_query_and_without_one_its_body() -> None:
    body = b'{"name": "body"}'
    assert send("GET", "/thing", query=b"name=query", body=body) == (200, {"name": "query"})
    assert send("GET", "/thing", body=body) == (200, {"name": "body"})
    assert send("GET", "/thing") == (200, {})


def test_only_post_and_put_must_name_their_content_type() -> None:
    body = b'{"name": "body"}'
    assert send("PATCH", "/thing", body=body) == (200, {"name": "body"})
    assert send("POST", "/thing", body=body)[0] == 400


def test_other_methods_of_a_path_are_told() -> None:
    status, error = send("PUT", "/thing")
    assert (status, error["error_code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET, PATCH, POST" in error["message"]


def test_the_rest_of_a_path_may_hold_anything() -> None:
    assert send("GET", "/things/a/\nb") == (200, b"OK")
