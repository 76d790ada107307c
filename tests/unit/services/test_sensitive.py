"""What is secret by its name never comes into the log; what is not comes back as it was sent."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from harness.door import Door
from harness.signed_in import served
from muniment_services import bootstrap, sensitive
from muniment_services.config import Settings
from muniment_services.domain.commands import Command
from muniment_services.domain.deciders import DECIDERS
from muniment_services.domain.run_data import LogBatch
from muniment_services.redaction import LOGGED_DEFAULT, PREFIX, Redaction
from muniment_services.sensitive import Edge

SECRET = "correct-horse-battery"
MLFLOW = "/api/2.0/mlflow/"
EDGE = Edge(Redaction(LOGGED_DEFAULT, b"key"))
HASHED = Redaction((), b"key").hashed(SECRET)
REQUEST = b"POST runs/log-batch\n" + SECRET.encode()
PAIRS = [{"key": "db_password", "value": SECRET}, {"key": "lr", "value": "0.1"}]


def edge(command: Command) -> Command:
    return EDGE(command, REQUEST)[0]


@pytest.mark.parametrize(
    "key",
    [
        "password", "db.password", "DB_PASSWORD", "smtp-passwd", "client_secret", "openai_api_key",
        "openaiApiKey", "aws_secret_access_key", "auth_token", "hub_token", "optimizer/api-key",
    ],
)  # fmt: skip
def test_secrets_are_told_by_the_last_word_of_their_name(key: str) -> None:
    command = edge(LogBatch(run_id="r", params=((key, SECRET),), tags=((key, SECRET),)))
    assert command == LogBatch(run_id="r", params=((key, HASHED),), tags=((key, HASHED),))


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens", "tokenizer", "pad_token", "eos_token_id", "n_tokens", "token_count",
        "min_password_length", "secretary_model", "key", "keys", "primary_key", "monkey", "lr",
        "mlflow.user", "mlflow.my_password", "_mlflow_secret",
    ],
)  # fmt: skip
def test_what_jobs_count_with_comes_back_as_it_was_sent(key: str) -> None:
    sent = LogBatch(run_id="r", params=((key, "512"),))
    assert EDGE(sent, REQUEST) == (sent, REQUEST)


def test_what_was_read_can_be_logged_again() -> None:
    once = edge(LogBatch(run_id="r", params=(("password", SECRET),)))
    assert edge(once) is once
    fake = LogBatch(run_id="r", params=(("password", f"{PREFIX}not-really"),))
    assert edge(fake) != fake


def test_what_a_request_is_remembered_by_tells_nothing_of_its_secrets() -> None:
    """A digest of the request alone would let whoever reads the log try passwords."""
    _, request = EDGE(LogBatch(run_id="r", params=(("password", SECRET),)), REQUEST)
    assert request == Redaction((), b"key").hashed(REQUEST.decode()).encode()


def test_every_command_that_holds_values_by_key_is_covered() -> None:
    """A field that is a mapping of texts, or pairs of them, is among those that are looked at."""
    known = sensitive.NAMED | sensitive.NESTED
    harmless = {
        ("ApproveRequest", "files"),  # Digests.
        ("IssueCredential", "claims"),  # Of tokens, which the configuration chooses.
        ("LogSpans", "summary"),  # Counts.
        ("NoteSignIn", "sign_in"),
        ("RenewSession", "sign_in"),
    }
    found = set()
    for command in DECIDERS:
        hints = typing.get_type_hints(command)
        fields = set(command.__struct_fields__)
        for name in fields - known:
            if _holds_values(hints[name]) and (command.__name__, name) not in harmless:
                found.add((command.__name__, name))
        if "value" in fields:
            assert "key" in fields, command
    assert found == set()


def _holds_values(hint: Any) -> bool:
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return True
    if origin is tuple and parts[:1] == (tuple[str, str],):
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        inner = typing.get_type_hints(hint)
        return any(_holds_values(inner[name]) for name in hint.__struct_fields__)
    return any(_holds_values(part) for part in parts)


def calls(run: str, trace: str, model: str) -> list[tuple[str, str, Any]]:
    """Every call that takes params, tags or the like. Method, path, body."""
    tag = {"key": "auth_token", "value": SECRET}
    tags, by_key = PAIRS, {"password": SECRET, "lr": "0.1"}
    dataset = {"name": "d", "digest": "x", "source_type": "s", "source": "s"}
    info = {
        "trace_id": f"{trace}3",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"},
        },
        "request_time": "2026-01-31T12:00:00Z", "state": "OK",
        "trace_metadata": by_key, "tags": by_key,
    }  # fmt: skip
    assessment = {
        "assessment_name": "a", "source": {"source_type": "HUMAN", "source_id": "x"},
        "feedback": {"value": True}, "metadata": by_key, "trace_id": f"{trace}3",
        "create_time": "2026-01-31T12:00:00Z", "last_update_time": "2026-01-31T12:00:00Z",
    }  # fmt: skip
    three = "/api/3.0/mlflow/traces"
    return [
        ("POST", f"{MLFLOW}experiments/create", {"name": "e", "tags": tags}),
        ("POST", f"{MLFLOW}experiments/set-experiment-tag", {"experiment_id": "0", **tag}),
        ("POST", f"{MLFLOW}runs/create", {"experiment_id": "0", "tags": tags}),
        ("POST", f"{MLFLOW}runs/set-tag", {"run_id": run, **tag}),
        ("POST", f"{MLFLOW}runs/log-parameter", {"run_id": run, **tag}),
        ("POST", f"{MLFLOW}runs/log-batch", {"run_id": run, "params": tags, "tags": tags}),
        (
            "POST",
            f"{MLFLOW}runs/log-inputs",
            {"run_id": run, "datasets": [{"dataset": dataset, "tags": tags}]},
        ),
        ("POST", f"{MLFLOW}registered-models/create", {"name": "m", "tags": tags}),
        ("POST", f"{MLFLOW}registered-models/set-tag", {"name": "m", **tag}),
        (
            "POST",
            f"{MLFLOW}model-versions/create",
            {"name": "m", "source": "s3://x/m", "tags": tags},
        ),
        ("POST", f"{MLFLOW}model-versions/set-tag", {"name": "m", "version": "1", **tag}),
        (
            "POST",
            f"{MLFLOW}logged-models",
            {"experiment_id": "0", "name": "l", "params": tags, "tags": tags},
        ),
        ("PATCH", f"{MLFLOW}logged-models/{model}/tags", {"tags": tags}),
        ("POST", f"{MLFLOW}logged-models/{model}/params", {"model_id": model, "params": tags}),
        ("POST", three, {"trace": {"trace_info": info}}),
        ("PATCH", f"{three}/{trace}3/tags", tag),
        ("POST", f"{three}/{trace}3/assessments", {"assessment": assessment}),
    ]


async def _old_trace(door: Door) -> None:
    """A trace as clients before 3.0 log it, whose id is the server's."""
    path = f"{MLFLOW}traces"
    begun = {"experiment_id": "0", "timestamp_ms": 1, "request_metadata": PAIRS, "tags": PAIRS}
    made = await door.ask("POST", path, begun, key="begin")
    assert made.status == 200, made.body
    ended = {"timestamp_ms": 2, "status": "OK", "request_metadata": PAIRS, "tags": PAIRS}
    one = f"{path}/{made.json['trace_info']['request_id']}"
    assert (await door.ask("PATCH", one, ended, key="end")).status == 200


def test_no_file_of_the_server_has_what_was_logged(tmp_path: Path) -> None:
    async def test() -> None:
        async with bootstrap.services(Settings(data_dir=tmp_path)) as services:
            door = Door(services, bootstrap.local_user())
            made = await door.ask("POST", f"{MLFLOW}runs/create", {"experiment_id": "0"})
            run = made.json["run"]["info"]["run_id"]
            begun = {"experiment_id": "0", "name": "first"}
            model = (await door.ask("POST", f"{MLFLOW}logged-models", begun)).json
            model_id = model["model"]["info"]["model_id"]
            trace = "tr-" + "a" * 31
            for number, (method, path, body) in enumerate(calls(run, trace, model_id)):
                answer = await door.ask(method, path, body, key=f"key-{number}")
                assert answer.status == 200, (path, answer.body)
                assert SECRET.encode() not in answer.body, path
            await _old_trace(door)
            await services.runner.fresh()
            found = (await door.ask("GET", f"{MLFLOW}runs/get", query={"run_id": run})).json
            params = {p["key"]: p["value"] for p in found["run"]["data"]["params"]}
            hashed = (await door.ask("POST", "/api/v1/audit/hash", {"value": SECRET})).json["hash"]
            assert params == {"auth_token": hashed, "db_password": hashed, "lr": "0.1"}

            again = {"run_id": run, "key": "db_password", "value": SECRET}
            same = await door.ask("POST", f"{MLFLOW}runs/log-parameter", again)
            assert same.status == 200, "the same value is no change"
            other = await door.ask("POST", f"{MLFLOW}runs/log-parameter", {**again, "value": "x"})
            assert (other.status, SECRET in other.body.decode()) == (400, False)
            assert "'x'" not in other.json["message"]

            query = f"params.db_password = '{hashed}'"
            search = {"experiment_ids": ["0"], "filter": query}
            rows = (await door.ask("POST", f"{MLFLOW}runs/search", search)).json["runs"]
            assert [row["info"]["run_id"] for row in rows] == [run]

    asyncio.run(test())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "log.sqlite" for path in files)
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
    content = b"".join(path.read_bytes() for path in files if path.name.startswith("log.sqlite"))
    assert content.count(PREFIX.encode()) > 20, "it would be found if it were there"


def test_a_repeat_with_secrets_meets_itself(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        path = f"{MLFLOW}runs/create"

        def ask(value: str) -> httpx.Response:
            body = {"experiment_id": "0", "tags": [{"key": "password", "value": value}]}
            content = msgspec.json.encode(body)
            headers = {"idempotency-key": "one", "content-type": "application/json"}
            return server.ask("admin", "POST", path, content=content, headers=headers)

        first = ask(SECRET)
        assert first.status_code == 200
        assert ask(SECRET).json() == first.json()
        other = ask("another")
        assert (other.status_code, "another body" in other.text) == (400, True)


@pytest.mark.parametrize(("patterns", "kept"), [((), SECRET), (("lr",), SECRET), (None, None)])
def test_which_is_for_the_operator_to_say(
    tmp_path: Path, patterns: tuple[str, ...] | None, kept: str | None
) -> None:
    async def test() -> None:
        settings = Settings(data_dir=tmp_path, log_sensitive=patterns)
        async with bootstrap.services(settings) as services:
            door = Door(services, bootstrap.local_user())
            body = {"experiment_id": "0", "tags": PAIRS}
            tags = (await door.ask("POST", f"{MLFLOW}runs/create", body)).json["run"]["data"][
                "tags"
            ]
            values = {tag["key"]: tag["value"] for tag in tags}
            assert (values["db_password"] == SECRET) == (kept == SECRET)
            assert values["lr"].startswith(PREFIX) == (patterns == ("lr",))
            # What must not be in the log is not in the trail of calls either.
            assert services.trail.redaction.is_sensitive("lr") == (patterns == ("lr",))

    asyncio.run(test())
