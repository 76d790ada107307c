"""Grants for some tags only, and models that stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served

V3 = "/api/3.0/mlflow/"
PROMPT = "mlflow.prompt.is_prompt"
NUMBERS = count()
ALLOWED, OTHER = "stage-of-work", "owner"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """tess edits all experiments, but of tags only one; ed edits models and prompts."""
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("tess", "editor", "experiment", "*", tag_keys=[ALLOWED])
        for kind in ("model", "prompt"):
            running.grant("ed", "editor", kind, "*")
            running.grant(kind, "viewer", kind, "*")
        yield running


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


class Things:
    """An experiment of the admin's with a run, a logged model and a trace, tagged with both."""

    def __init__(self, server: Served) -> None:
        tags = [{"key": key, "value": "1"} for key in (ALLOWED, OTHER)]

        def make(path: str, body: Any) -> Any:
            whole = path if path.startswith("/") else MLFLOW + path
            return ok(server.ask("admin", "POST", whole, body))

        name = f"e{next(NUMBERS)}"
        made = make("experiments/create", {"name": name, "tags": tags})
        self.experiment = made["experiment_id"]
        of_it = {"experiment_id": self.experiment, "tags": tags}
        self.run = make("runs/create", of_it)["run"]["info"]["run_id"]
        made = make("logged-models", {**of_it, "name": "m"})["model"]["info"]
        self.logged_model = made["model_id"]
        begun = {"timestamp_ms": 1, **of_it}
        self.trace = make("traces", begun)["trace_info"]["request_id"]


def trace_info(things: Things, key: str) -> Any:
    place = {"mlflow_experiment": {"experiment_id": things.experiment}}
    return {"trace": {"trace_info": {
        "trace_id": f"tr-{next(NUMBERS):032x}",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", **place},
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": {key: "2"},
    }}}  # fmt: skip


def changes(things: Things, key: str) -> list[tuple[str, str, Any]]:
    """Every call that changes a tag of an experiment, run, logged model or trace."""
    tag = {"key": key, "value": "2"}
    experiment, run = {"experiment_id": things.experiment}, {"run_id": things.run}
    model, trace = f"logged-models/{things.logged_model}/tags", f"traces/{things.trace}"
    return [
        ("POST", "experiments/create", {"name": f"e{next(NUMBERS)}", "tags": [tag]}),
        ("POST", "experiments/set-experiment-tag", {**experiment, **tag}),
        ("POST", "experiments/delete-experiment-tag", {**experiment, "key": key}),
        ("POST", "runs/create", {**experiment, "tags": [tag]}),
        ("POST", "runs/set-tag", {**run, **tag}),
        ("POST", "runs/log-batch", {**run, "tags": [{"key": ALLOWED, "value": "2"}, tag]}),
        ("POST", "runs/delete-tag", {**run, "key": key}),
        ("POST", "logged-models", {**experiment, "name": "m", "tags": [tag]}),
        ("PATCH", model, {"tags": [tag]}),
        ("DELETE", f"{model}/{key}", None),
        ("POST", "traces", {**experiment, "timestamp_ms": 1, "tags": [tag]}),
        ("POST", f"{V3}traces", trace_info(things, key)),
        ("PATCH", f"{trace}/tags", tag),
        ("DELETE", f"{trace}/tags", {"key": key}),
        ("PATCH", trace, {"timestamp_ms": 2, "status": "OK", "tags": [tag]}),
    ]


def test_a_grant_for_some_tags_is_for_no_others(server: Served) -> None:
    things = Things(server)
    for key, status in ((OTHER, 403), (ALLOWED, 200)):
        for method, path, body in changes(things, key):
            whole = path if path.startswith("/") else MLFLOW + path
            answer = server.ask("tess", method, whole, body)
            assert answer.status_code == status, (key, method, path, answer.text)
            if status == 403:
                assert f"for tag {ALLOWED} only" in answer.text
    run = ok(server.ask("admin", "GET", f"{MLFLOW}runs/get?run_id={things.run}"))["run"]
    assert {tag["key"]: tag["value"] for tag in run["data"]["tags"]}[OTHER] == "1"


def test_it_does_all_else_as_before(server: Served) -> None:
    things = Things(server)
    batch = {"run_id": things.run, "params": [{"key": "a", "value": "b"}]}
    ok(server.ask("tess", "POST", f"{MLFLOW}runs/log-batch", batch))
    made = {"experiment_id": things.experiment, "run_name": "named"}
    ok(server.ask("tess", "POST", f"{MLFLOW}runs/create", made))
    ok(server.ask("tess", "POST", f"{MLFLOW}runs/delete", {"run_id": things.run}))
    run = ok(server.ask("admin", "GET", f"{MLFLOW}runs/get?run_id={things.run}"))["run"]
    assert run["info"]["lifecycle_stage"] == "deleted"
    assert run["data"]["params"] == batch["params"]


def test_two_such_grants_add_up(server: Served) -> None:
    things = Things(server)
    for key in ("a", "b"):
        server.grant("two", "editor", "experiment", "*", tag_keys=[key])
    tags = [{"key": key, "value": "1"} for key in ("a", "b")]
    batch = {"run_id": things.run, "tags": tags}
    ok(server.ask("two", "POST", f"{MLFLOW}runs/log-batch", batch))
    batch["tags"] = [*tags, {"key": "c", "value": "1"}]
    answer = server.ask("two", "POST", f"{MLFLOW}runs/log-batch", batch)
    assert answer.status_code == 403


@pytest.mark.parametrize("who", ["ed", "admin"])
@pytest.mark.parametrize("prompt", [True, False])
def test_a_model_becomes_no_prompt_and_a_prompt_no_model(
    server: Served, who: str, prompt: bool
) -> None:
    name = f"m{next(NUMBERS)}"
    body: dict[str, Any] = {"name": name}
    if prompt:
        body["tags"] = [{"key": PROMPT, "value": "true"}]
    ok(server.ask("ed", "POST", f"{MLFLOW}registered-models/create", body))
    set_tag, delete_tag = (f"{MLFLOW}registered-models/{way}-tag" for way in ("set", "delete"))
    for value in ("true", "TRUE", "false", ""):
        tag = {"name": name, "key": PROMPT, "value": value}
        answer = server.ask(who, "POST", set_tag, tag)
        stays = (value.lower() == "true") is prompt
        assert (answer.status_code == 200) is stays, answer.text
        if not stays:
            assert "stays one" in answer.text
    gone = server.ask(who, "DELETE", delete_tag, {"name": name, "key": PROMPT})
    assert gone.status_code == (400 if prompt else 200)
    for kind in ("prompt", "model"):
        seen = server.ask(kind, "GET", f"{MLFLOW}registered-models/get?name={name}")
        assert (seen.status_code == 200) is (prompt is (kind == "prompt"))
