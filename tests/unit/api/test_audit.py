"""Formats of the trail, and the live tail as a client reads it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from harness.door import Door
from muniment_services import bootstrap
from muniment_services.api import audit_formats as formats
from muniment_services.api.routes import Answer
from muniment_services.config import Settings

EVENTS = "/api/v1/audit/events"
MODELS = "/api/2.0/mlflow/registered-models/"


def test_every_format_has_every_event(tmp_path: Path) -> None:
    async def test() -> None:
        async with bootstrap.services(Settings(data_dir=tmp_path)) as services:
            door = Door(services, bootstrap.local_user())
            body = {"name": "fraud", "description": 'a, "b"'}
            assert (await door.ask("POST", f"{MODELS}create", body)).status == 200
            query = {"q": "resource:models/fraud"}
            page = (await door.ask("GET", EVENTS, query=query)).json
            (event,) = page["events"]
            assert event["action"] == "model.create"
            assert event["after"]["description"] == body["description"]
            assert event["actor_name"] == bootstrap.local_user().name

            async def as_(name: str) -> bytes:
                answer = await door.ask("GET", EVENTS, query={**query, "format": name})
                assert answer.status == 200, answer.body
                return answer.body

            (line,) = csv.DictReader(io.StringIO((await as_("csv")).decode()))
            assert json.loads(line["after"])["description"] == body["description"]
            table = pyarrow.parquet.read_table(io.BytesIO(await as_("parquet")))
            assert table.column("event_id").to_pylist() == [event["event_id"]]
            assert json.loads(await as_("jsonl")) == event
            _check_ocsf(json.loads(await as_("ocsf")), event)
            wrong = await door.ask("GET", EVENTS, query={"format": "xml"})
            assert (wrong.status, "format is one of" in wrong.json["message"]) == (400, True)

    asyncio.run(test())


def _check_ocsf(told: dict[str, Any], event: dict[str, Any]) -> None:
    """What OCSF 1.3 requires of API Activity, and that it says the same."""
    required = {
        "activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id",
        "src_endpoint", "time", "type_uid",
    }  # fmt: skip
    assert required <= told.keys()
    assert (told["class_uid"], told["category_uid"]) == (6003, 6)
    assert told["type_uid"] == 6003 * 100 + told["activity_id"]
    assert told["activity_id"] == formats.CREATE
    assert told["metadata"]["uid"] == event["event_id"]
    assert told["actor"]["user"]["uid"] == event["actor"]
    assert told["resources"][0]["name"] == "fraud"
    assert told["time"] == event["at_ms"]


def test_a_refusal_is_a_failure_of_ocsf() -> None:
    columns = dict.fromkeys(
        (
            "actor", "client_id", "token_id", "resource_kind", "resource_id", "resource_name",
            "resource_version", "route", "error_code", "delegation", "comment", "traceparent",
        )
    )  # fmt: skip
    row = {
        **columns, "action": "model.promote", "outcome": "denied", "status": 403, "at_ms": 1,
        "reason": "no", "duration_us": 5000, "event_id": "e", "topic": "access", "partition": 1,
        "offset": 2, "type": "ApiCalled", "request_id": "r", "client_address": "10.0.0.1",
        "method": "POST", "user_agent": "curl", "workspace": "default", "auth_method": "bearer",
    }  # fmt: skip
    told = formats.ocsf(row, {})
    assert (told["status_id"], told["status_detail"], told["duration"]) == (2, "no", 5)
    assert (told["activity_name"], told["src_endpoint"]) == ("Update", {"ip": "10.0.0.1"})


def messages(chunk: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for message in chunk.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
        if "data" in lines:
            found.append((lines["id"], json.loads(lines["data"])))
    return found


async def tail(door: Door, last: str | None = None) -> AsyncGenerator[bytes, None]:
    """The chunks of a stream, the first of which only opens it."""
    from harness.door import TABLE

    found = TABLE.find("GET", "/api/v1/audit/stream")
    assert found is not None
    route, params = found
    headers = {} if last is None else {b"last-event-id": last.encode()}
    who = door.principal
    call = door._call(who, route.permission, "GET", params, b"q=action:model.*", headers, b"", None)
    answer = await route.handler(call)
    assert isinstance(answer, Answer)
    assert answer.content_type == "text/event-stream"
    assert isinstance(answer.body, AsyncGenerator)
    assert answer.endless
    assert (await anext(answer.body)).startswith(b"retry: ")
    return answer.body


def test_a_tail_goes_on_behind_the_last_event_that_was_seen(tmp_path: Path) -> None:
    async def test() -> None:
        async with bootstrap.services(Settings(data_dir=tmp_path)) as services:
            door = Door(services, bootstrap.local_user())
            assert (await door.ask("POST", f"{MODELS}create", {"name": "old"})).status == 200
            await services.runner.fresh()
            first = await tail(door)
            for name in ("a", "b", "c"):
                await door.ask("POST", f"{MODELS}create", {"name": name})
            seen: list[tuple[str, dict[str, Any]]] = []
            while len(seen) < 3:
                seen += messages(await anext(first))
            assert [event["resource_name"] for _, event in seen] == ["a", "b", "c"]
            await first.aclose()
            again = await tail(door, last=seen[0][0])
            rest = messages(await anext(again))
            assert [event["resource_name"] for _, event in rest] == ["b", "c"]
            await again.aclose()

    asyncio.run(asyncio.wait_for(test(), 120))


@pytest.mark.parametrize("last", ["", "x", "runs/a:1", "runs/1", "é"])
def test_a_place_that_no_stream_has_sent_is_refused(tmp_path: Path, last: str) -> None:
    async def test() -> None:
        async with bootstrap.services(Settings(data_dir=tmp_path)) as services:
            door = Door(services, bootstrap.local_user())
            headers = {"last-event-id": last}
            answer = await door.ask("GET", "/api/v1/audit/stream", headers=headers)
            assert answer.status == 400

    asyncio.run(test())
