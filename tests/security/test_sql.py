"""SQL is for whoever may read everything; it shows no secrets, and the trail has what was asked."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator

import httpx
import pyarrow.parquet
import pytest

from harness.signed_in import MLFLOW, Served, served

SQL = "/api/v1/audit/sql"
ARCHIVE = "/api/v1/audit/tables.tar"
COUNT = "SELECT count(*) AS runs FROM runs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("auditor", "auditor", "*", "*")
        running.grant("serverwide", "auditor", "server", "*")
        running.grant("here", "auditor", "*", "*", workspace="default")
        running.grant("some", "auditor", "*", "team-*")
        running.grant("viewer", "viewer", "*", "*")
        assert running.ask("admin", "POST", f"{MLFLOW}runs/create", {"experiment_id": "0"})
        yield running


def asked(server: Served, who: str | None, statement: str = COUNT) -> httpx.Response:
    return server.ask(who, "POST", SQL, {"statement": statement})


def test_whoever_may_read_everything_is_answered(server: Served) -> None:
    for who in ("auditor", "admin"):
        assert asked(server, who).json()["rows"] == [[1]]
        assert server.ask(who, "GET", ARCHIVE).status_code == 200


@pytest.mark.parametrize("who", ["serverwide", "here", "some", "viewer", "stranger"])
def test_nobody_else_is(server: Served, who: str) -> None:
    for answer in (asked(server, who), server.ask(who, "GET", ARCHIVE)):
        assert answer.status_code == 403, answer.text
        assert "rows" not in answer.text


def test_it_takes_a_sign_in(server: Served) -> None:
    assert asked(server, None).status_code == 401


def test_the_trail_has_every_statement(server: Served) -> None:
    for who, statement, outcome in (
        ("auditor", "SELECT 'answered'", "allowed"),
        ("auditor", "SELECT * FROM read_text('/etc/passwd')", "failed"),
        ("serverwide", "SELECT 'not for it'", "denied"),
    ):
        request_id = asked(server, who, statement).headers["x-request-id"]
        query = {"q": f"request:{request_id}"}
        (event,) = server.ask("auditor", "GET", "/api/v1/audit/events", params=query).json()[
            "events"
        ]
        assert (event["action"], event["outcome"]) == ("audit.read", outcome)
        assert json.loads(event["request"]["body"])["statement"] == statement
        whole = json.dumps({"statement": statement}, separators=(",", ":")).encode()
        assert event["request"]["body_sha256"] == hashlib.sha256(whole).hexdigest()


def test_secrets_of_a_statement_are_hashed_in_the_trail(server: Served) -> None:
    answer = asked(server, "auditor", "SELECT * FROM params WHERE api_key = 'hunter2'")
    query = {"q": f"request:{answer.headers['x-request-id']}"}
    told = server.ask("auditor", "GET", "/api/v1/audit/events", params=query).text
    assert "hmac-sha256:" in told
    assert "hunter2" not in told


def test_the_tables_hold_no_secrets_and_no_identities(server: Served) -> None:
    made = server.ask("auditor", "POST", "/api/v1/tokens", {"name": "mine"})
    assert made.status_code == 200, made.text
    secret = made.json()["secret"]
    with tarfile.open(fileobj=io.BytesIO(server.ask("auditor", "GET", ARCHIVE).content)) as found:
        tables = [
            pyarrow.parquet.read_table(io.BytesIO(file.read()))
            for member in found
            if member.name.endswith(".parquet") and (file := found.extractfile(member))
        ]
    assert len(tables) > 10
    text = "\n".join(str(table.to_pylist()) for table in tables)
    bare = secret.rpartition("_")[2]
    for hidden in (secret, bare, hashlib.sha256(secret.encode()).hexdigest(), "serverwide"):
        assert hidden not in text
    sealed = {column for table in tables for column in table.column_names}
    assert sealed.isdisjoint({"document", "key_sha256", "request_sha256"})
