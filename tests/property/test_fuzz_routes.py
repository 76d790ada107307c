"""Whatever is sent to whatever route, the answer is no fault of ours and has MLflow's shape."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.begun import begun
from harness.examples import examples
from harness.exchanges import Step, _full_path, load, scenario_names
from harness.login_stage import CORP, PARTNER, browser_login
from harness.provider import FakeProvider
from muniment_services import bootstrap
from muniment_services.api.app import ROUTES, build
from muniment_services.api.callers import LocalCallers
from muniment_services.api.gateway import Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.api.routes import Route
from muniment_services.config import Settings

EXAMPLES = 400
_PLACEHOLDER = re.compile(r"\$\{[^{}]+\}")
Headers = Mapping[bytes, bytes]
PAGES = ("/login", "/logout")
"""What answers people, not programs."""

FAULT = "The server failed on this request"
"""How the answer to a fault of ours begins; MLflow's own 500s say something else."""

# A rebuild starts a process; the answer of a live tail has no end.
LEFT_OUT = ("/projections/rebuild", "/audit/stream")
FUZZED = tuple(route for route in ROUTES if not route.path.endswith(LEFT_OUT))

FIELDS = (
    "run_id run_uuid run_ids experiment_id experiment_ids name new_name key value timestamp step "
    "metrics params tags models model_id model_ids datasets dataset filter order_by max_results "
    "page_token view_type run_view_type status start_time end_time run_name artifact_location "
    "metric_key start_step end_step path version stage alias source description field_name "
    "locations trace info trace_id request_id assessment update_mask num_parts upload_id parts "
    "model_json name_contains as_of_ms archive_existing_versions stages digest source_type "
    "permission permissions resource subject_kind subject resource_kind pattern role claims issuer "
    "aliases tag_keys expires_at_ms comment groups principal reason as_of from to at target commit "
    "credential client digest model group format"
).split()
TEXTS = ("", "0", "1", "-1", "x", "é", "\ud800", "\0", "a/b", "../a", "nan", "true", "name = 'x'")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(TEXTS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=8).map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=20).map(lambda text: text.encode().decode("latin-1")),
)
queries = st.one_of(
    st.lists(
        st.tuples(
            st.sampled_from(FIELDS), st.sampled_from(TEXTS[:6] + TEXTS[7:]) | st.text(max_size=6)
        ),
        max_size=4,
    ).map(lambda pairs: urlencode(pairs).encode()),
    st.binary(max_size=20),
)
headers = st.dictionaries(
    st.sampled_from(
        [b"content-type", b"idempotency-key", b"origin", b"traceparent", b"range", b"accept"]
    ),
    st.sampled_from([b"application/json", b"", b"x", b"bytes=0-1", b"\xff", b"text/plain"]),
    max_size=3,
)
segments = st.sampled_from(["0", "1", "x", "..", "%2e%2e", "é", "a b"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=6
)


@dataclass
class Server:
    """A server without a socket."""

    gateway: Gateway
    loop: asyncio.AbstractEventLoop
    run_id: str = ""

    def call(self, scope: Mapping[str, Any], body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer."""
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        self.loop.run_until_complete(self.gateway(dict(scope), receive, send))
        assert sent[0]["type"] == "http.response.start"
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), answer

    def new_run(self) -> str:
        """The id of a new run in the Default experiment."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/2.0/mlflow/runs/create",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        _, _, answer = self.call(scope, b'{"experiment_id": "0"}')
        run_id = json.loads(answer)["run"]["info"]["run_id"]
        assert isinstance(run_id, str)
        return run_id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    running = bootstrap.services(Settings(data_dir=begun(folder)))
    gateway = build(lambda: running, HostCheck(()), LocalCallers(bootstrap.local_user()))
    services = loop.run_until_complete(stack.enter_async_context(running))
    provider = FakeProvider({CORP.name: CORP, PARTNER.name: PARTNER})
    gateway.services = dataclasses.replace(services, browser=browser_login(provider))
    server = Server(gateway, loop)
    server.run_id = server.new_run()
    yield server
    loop.run_until_complete(stack.aclose())
    loop.close()


@st.composite
def paths(draw: st.DrawFn, route: Route) -> str:
    """A path of the route, its parameters filled in."""
    parts = []
    for part in route.path.split("/"):
        parts.append(draw(segments) if part.startswith("{") else part)
    return "/".join(parts)


def check(server: Server, method: str, path: str, query: bytes, sent: Headers, body: bytes) -> None:
    """Send, and judge the answer."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [
            (b"host", b"localhost"),
            (b"content-length", str(len(body)).encode()),
            *{b"content-type": b"application/json", **sent}.items(),
        ],
    }
    status, answered, answer = server.call(scope, body)
    told = answer.decode("utf-8", "replace")
    assert FAULT not in told
    if status >= 400 and method != "HEAD" and not path.startswith(PAGES):
        assert answered[b"content-type"].startswith(b"application/json"), told
        error = json.loads(answer)
        assert isinstance(error.get("message", error.get("detail")), (str, list)), told
        assert status in (501, 503) or status < 500 or error["error_code"], told


@given(st.data())
@settings(max_examples=examples(EXAMPLES))
def test_no_request_is_answered_by_a_fault(server: Server, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(FUZZED))
    method = data.draw(st.sampled_from([route.method, route.method, "HEAD", "DELETE"]))
    body = data.draw(bodies).encode("utf-8", "surrogatepass")
    check(server, method, data.draw(paths(route)), data.draw(queries), data.draw(headers), body)


@given(st.data())
@settings(max_examples=examples(EXAMPLES))
def test_no_recorded_call_with_a_part_changed_is_answered_by_a_fault(
    server: Server, data: st.DataObject
) -> None:
    step = data.draw(st.sampled_from(recorded()))
    ids = st.sampled_from([server.run_id, server.run_id, "0", "x"])
    method, _, path = _PLACEHOLDER.sub(lambda _: data.draw(ids), step.do).partition(" ")
    path, _, query = _full_path(path).partition("?")
    given_query = urlencode(_filled(step.query, data, ids), doseq=True) or query
    body = b""
    if step.body is not msgspec.UNSET:
        body = json.dumps(changed(_filled(step.body, data, ids), data)).encode()
    check(server, method, path, given_query.encode(), {}, body)


@cache
def recorded() -> tuple[Step, ...]:
    """All calls that were recorded, of all scenarios."""
    return tuple(step for name in scenario_names() for step in load(name).steps)


def _filled(value: Any, data: st.DataObject, ids: st.SearchStrategy[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, data, ids) for key, item in value.items() if key != "$repeat"}
    if isinstance(value, list):
        return [_filled(item, data, ids) for item in value]
    return _PLACEHOLDER.sub(lambda _: data.draw(ids), value) if isinstance(value, str) else value


def changed(value: Any, data: st.DataObject) -> Any:
    """The value with one part of it, at any depth, in the place of another value."""
    if data.draw(st.integers(0, 3)) == 0 or not isinstance(value, (dict, list)) or not value:
        return data.draw(values)
    place = data.draw(
        st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value)))
    )
    value[place] = changed(value[place], data)
    return value
