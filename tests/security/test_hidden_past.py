"""The past of models is told to whoever may read what they are, or were last, and to no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.signed_in import MLFLOW, Served, served

PROMPT = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
LATE_MS = 99_999_999_999_999


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """mo reads all models, pat all prompts, pub models by the name of pub-*."""
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("mo", "viewer", "model", "*")
        running.grant("pat", "viewer", "prompt", "*")
        running.grant("pub", "viewer", "model", "pub-*")
        yield running


def done(server: Served, method: str, path: str, **body: Any) -> None:
    answer = server.ask("admin", method, f"{MLFLOW}{path}", body)
    assert answer.status_code == 200, answer.text


def made(server: Served, name: str, tags: list[dict[str, str]] | None = None) -> None:
    done(server, "POST", "registered-models/create", name=name, tags=tags or [])
    done(server, "POST", "model-versions/create", name=name, source="s3://b/x")


def pasts(name: str, version: int = 1) -> list[str]:
    of_version = f"/api/v1/models/{name}/versions/{version}"
    return [
        f"{of_version}/timeline",
        f"{of_version}/activities",
        f"/api/v1/models/{name}/state?as_of_ms={LATE_MS}",
    ]


def statuses(server: Served, who: str, paths: list[str]) -> set[int]:
    return {server.ask(who, "GET", path).status_code for path in paths}


def test_a_prompt_s_past_is_not_a_model_s(server: Served) -> None:
    made(server, "said", PROMPT)
    assert statuses(server, "mo", pasts("said")) == {404}
    assert statuses(server, "pat", pasts("said")) == {200}
    listed = server.ask("mo", "GET", f"/api/v1/models?as_of={LATE_MS}").json()["models"]
    assert "said" not in [model["name"] for model in listed]
    done(server, "DELETE", "registered-models/delete", name="said")
    gone = pasts("said")[:1]
    assert statuses(server, "mo", gone) == {404}
    assert statuses(server, "pat", gone) == {200}


def test_an_earlier_name_gives_no_right_to_what_came_after_it(server: Served) -> None:
    made(server, "pub-a")
    assert statuses(server, "pub", pasts("pub-a")) == {200}
    done(server, "POST", "registered-models/rename", name="pub-a", new_name="hidden-a")
    done(server, "POST", "model-versions/create", name="hidden-a", source="s3://b/y")
    done(server, "POST", "registered-models/alias", name="hidden-a", alias="secret", version="1")
    both = [*pasts("pub-a"), *pasts("pub-a", 2)]
    assert statuses(server, "pub", both) == {404}
    assert server.ask("mo", "GET", pasts("pub-a", 2)[0]).status_code == 200
    made(server, "pub-a")
    found = server.ask("pub", "GET", pasts("pub-a")[0])
    assert found.status_code == 200
    assert len(found.json()["existed"]) == 1
    assert "secret" not in found.text


def test_what_is_gone_is_decided_on_by_its_last_name(server: Served) -> None:
    made(server, "pub-b")
    done(server, "POST", "registered-models/rename", name="pub-b", new_name="kept-b")
    done(server, "DELETE", "registered-models/delete", name="kept-b")
    assert server.ask("pub", "GET", pasts("pub-b")[0]).status_code == 404
    assert server.ask("mo", "GET", pasts("pub-b")[0]).status_code == 200
