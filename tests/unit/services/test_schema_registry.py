"""A registry that answers oddly, or not: the start says so. A real one: `tests/readers`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.world import TestWorld
from muniment_schemas.framing import ALWAYS_SINGLE_OBJECT, Confluent, schema_id
from muniment_schemas.subjects import Schemas
from muniment_services import schema_registry
from muniment_services.domain.commands import Command
from muniment_services.schema_registry import (
    RegistryError,
    RegistryRefused,
    RegistryUnavailable,
    confluent,
    subject_name,
    without_credentials,
)

SCHEMAS = Schemas.load()
REGISTERED = [s for s in SCHEMAS.by_version.values() if s.event_type not in ALWAYS_SINGLE_OBJECT]
NOWHERE = "http://127.0.0.1:1"

Answer = tuple[int, object]
Answering = Callable[[str, str, bytes], Answer]
"""Method, path and body of a call to what is answered."""


def ids_from_1(method: str, path: str, sent: bytes) -> Answer:
    """A registry in which everything is registered already."""
    return 200, {"id": place_of(path, sent)}


def place_of(path: str, sent: bytes) -> int:
    """The place, from 1, of a schema that is sent to its subject; a subject may have several."""
    known = [(f"/subjects/{subject_name(s, topic_of)}", s.schema_json) for s in REGISTERED]
    return 1 + known.index((path.removesuffix("/versions"), json.loads(sent)["schema"]))


def topic_of(topic: str) -> str:
    return f"m.{topic}"


@contextmanager
def registry(answering: Answering) -> Iterator[str]:
    """A server that answers what it is told to; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answering(self.command, self.path, sent)
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def started(url: str, world: TestWorld | None = None) -> Confluent:
    """A start with the registry, in a world that folds what is submitted."""
    at = TestWorld() if world is None else world

    async def submit(command: Command) -> object:
        return at.do(command)

    return asyncio.run(confluent(url, topic_of, SCHEMAS, at.state.of_kind("schema_id"), submit))


def test_subjects_are_named_by_topic_and_record() -> None:
    names = [subject_name(SCHEMAS.newest[t], topic_of) for t in ("RunCreated", "AliasSet")]
    assert names == ["m.runs-muniment.events.RunCreated", "m.catalog-muniment.events.AliasSet"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://key:secret@registry:8081/x/", "https://registry:8081/x"),
        ("http://registry", "http://registry"),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_all_ids_stand_in_the_log_before_they_are_used() -> None:
    world = TestWorld()
    with registry(ids_from_1) as url:
        framing = started(url, world)
    noted = {s.fingerprint: s.registry_id for s in world.state.of_kind("schema_id")}  # type: ignore[attr-defined]
    assert noted == {s.fingerprint.hex(): n for n, s in enumerate(REGISTERED, start=1)}
    for subject in REGISTERED:
        assert noted[subject.fingerprint.hex()] == schema_id(framing.header(subject))


def test_a_later_start_writes_nothing_and_needs_no_registry() -> None:
    world = TestWorld()
    down = False

    def answering(method: str, path: str, sent: bytes) -> Answer:
        return (503, "down") if down else ids_from_1(method, path, sent)

    with pytest.MonkeyPatch.context() as patch, registry(answering) as url:
        patch.setattr(schema_registry, "PAUSES_S", (0.01,))
        first = started(url, world)
        events = len(world.events)
        started(url, world)
        down = True
        without = started(url, world)
    assert len(world.events) == events == len(REGISTERED)
    assert [without.header(s) for s in REGISTERED] == [first.header(s) for s in REGISTERED]


def test_a_registry_that_is_down_at_the_first_start_is_told() -> None:
    with pytest.raises(RegistryUnavailable, match=f"at {NOWHERE} cannot be used: .*Check"):
        started("http://key:secret@127.0.0.1:1")


def test_another_registry_that_is_down_is_told_though_the_log_knows_ids() -> None:
    world = TestWorld()
    with registry(ids_from_1) as url:
        started(url, world)
    with pytest.raises(RegistryUnavailable):
        started(NOWHERE, world)


def test_another_registry_with_the_same_ids_is_taken() -> None:
    world = TestWorld()
    with registry(ids_from_1) as one, registry(ids_from_1) as other:
        first, second = started(one, world), started(other, world)
    assert [first.header(s) for s in REGISTERED] == [second.header(s) for s in REGISTERED]


def test_another_registry_that_gives_more_ids_is_taken() -> None:
    def higher(method: str, path: str, sent: bytes) -> Answer:
        status, found = ids_from_1(method, path, sent)
        assert isinstance(found, dict)
        return status, {"id": found["id"] + 1000}

    world = TestWorld()
    with registry(ids_from_1) as one, registry(higher) as other:
        first, second = started(one, world), started(other, world)
    ids = [[schema_id(f.header(s)) for s in REGISTERED] for f in (first, second)]
    assert ids[1] == [number + 1000 for number in ids[0] if number is not None]


def test_another_registry_whose_ids_mean_something_else_is_refused() -> None:
    def shifted(method: str, path: str, sent: bytes) -> Answer:
        status, found = ids_from_1(method, path, sent)
        assert isinstance(found, dict)
        return status, {"id": 1 + found["id"] % len(REGISTERED)}

    world = TestWorld()
    with registry(ids_from_1) as one, registry(shifted) as other:
        started(one, world)
        with pytest.raises(RegistryRefused, match=f"since the registry at {one} gave it"):
            started(other, world)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((404, "<html>"), RegistryUnavailable, "answers 404 <html>"),
        ((200, "<html>"), RegistryUnavailable, "answers 200 <html>"),
        ((401, {"error_code": 401, "message": "who?"}), RegistryUnavailable, "answers 401 who"),
        ((200, {"id": "x"}), RegistryUnavailable, "it answers the id 'x'"),
        ((200, {"id": 2**31}), RegistryUnavailable, "it answers the id 2147483648"),
        ((200, {}), RegistryUnavailable, "it answers the id None"),
        ((422, {"message": "no Avro"}), RegistryRefused, "answers 422 no Avro"),
    ],
)
def test_odd_answers_are_told(answer: Answer, kind: type[RegistryError], words: str) -> None:
    with registry(lambda method, path, sent: answer) as url, pytest.raises(kind, match=words):
        started(url)


def empty(method: str, path: str, sent: bytes) -> Answer:
    """A registry that has nothing of ours and takes everything under one id."""
    if method == "PUT":
        return 200, {"compatibility": "FULL_TRANSITIVE"}
    if path.startswith("/compatibility/"):
        return 404, {"error_code": 40401, "message": "no such subject"}
    if not path.endswith("/versions"):
        return 404, {"error_code": 40403, "message": "no such schema"}
    return 200, {"id": place_of(path, sent)}


def test_nothing_is_registered_when_one_schema_would_be_refused() -> None:
    calls: list[str] = []

    def answering(method: str, path: str, sent: bytes) -> Answer:
        calls.append(path)
        if path.startswith("/compatibility/") and "TraceTagSet" in path:
            return 200, {"is_compatible": False, "messages": ["reader lacks b"]}
        return empty(method, path, sent)

    with registry(answering) as url, pytest.raises(RegistryRefused) as raised:
        started(url)
    assert "TraceTagSet.v1.avsc under m.runs-muniment.events.TraceTagSet: reader lacks b" in str(
        raised.value
    )
    assert not [path for path in calls if path.startswith("/subjects/") and "/versions" in path]


def test_what_passes_is_tried_again_and_what_does_not_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema_registry, "PAUSES_S", (0.01, 0.01))
    refusals = 2

    def answering(method: str, path: str, sent: bytes) -> Answer:
        nonlocal refusals
        if method == "PUT" and refusals > 0:
            refusals -= 1
            return 409, {"message": "a rule exists"}
        return empty(method, path, sent)

    with registry(answering) as url:
        framing = started(url)
        assert [schema_id(framing.header(s)) for s in REGISTERED] == [
            n for n, _ in enumerate(REGISTERED, start=1)
        ]
        refusals = 3
        with pytest.raises(RegistryRefused, match="answers 409 a rule exists"):
            started(url)
