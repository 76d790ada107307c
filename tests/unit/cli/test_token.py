"""`muniment token` on a running server: what it prints, and where a token comes from."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.server import Server, running_muniment
from muniment_auth.tokens import TOKEN_PREFIX, parse
from muniment_services.cli.asked import SERVER_VARIABLES
from muniment_services.cli.client import TOKEN_VARIABLES
from unit.cli.conftest import Call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_muniment(tmp_path_factory.mktemp("token") / "data") as running:
        yield running


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TOKEN_VARIABLES, *SERVER_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_a_service_token_is_printed_alone_listed_and_revoked(call: Call, server: Server) -> None:
    made = call(
        *("token", "create", "nightly", "--service", "--scope", "run:*"),
        *("--scope", "experiment:read", "--days", "30", "--url", server.url),
    )
    assert made.status == 0, made.err
    secret = parse(made.out.removesuffix("\n"), TOKEN_PREFIX)
    assert secret is not None
    assert "It is not shown again." in made.err
    assert secret.secret not in made.err
    listed = call("token", "list", "--url", server.url)
    assert [line for line in listed.lines if line.startswith(secret.id)]
    assert "service nightly: experiment:read, run:*, until" in listed.out
    by_text = call("token", "revoke", secret.text, "--url", server.url, "--reason", "leaked")
    assert by_text.status == 0
    assert by_text.out.endswith("(revoked)\n")
    assert secret.id not in call("token", "list", "--url", server.url).out
    ended = call("token", "list", "--ended", "--json", "--data-dir", server.data_dir)
    kept = {one["id"]: one for one in json.loads(ended.out)["tokens"]}
    assert kept[secret.id]["revoked_reason"] == "leaked"


def test_what_the_server_refuses_is_one_line(call: Call, server: Server) -> None:
    for words, said in (
        (("create", "x"), "local principal has no personal tokens"),
        (("create", "x", "--service", "--days", "999"), "at most 366 days"),
        (("create", "x", "--service", "--scope", "run:fly"), "is a scope of nothing"),
        (("revoke", "x" * 16), "There is no token"),
    ):
        called = call("token", *words, "--url", server.url)
        assert (called.status, called.out) == (1, "")
        assert said in called.err
        assert len(called.err.splitlines()) == 1


def test_without_a_server_it_says_how_to_name_one(call: Call) -> None:
    called = call("token", "list")
    assert called.status == 1
    assert "--url" in called.err


class Echo(BaseHTTPRequestHandler):
    """Notes who calls; `/elsewhere` is where it would send a token if clients let it."""

    heard: list[tuple[str, str | None]]
    redirect: str | None = None

    def do_GET(self) -> None:
        type(self).heard.append((self.path, self.headers["Authorization"]))
        self.send_response(302 if self.redirect else 200)
        if self.redirect:
            self.send_header("Location", self.redirect)
        self.end_headers()
        self.wfile.write(b'{"tokens": [], "roles": [], "policies": []}')

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def echo() -> Iterator[tuple[type[Echo], str]]:
    handler = type("Handler", (Echo,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def test_the_token_comes_from_the_option_or_the_environment(
    call: Call, echo: tuple[type[Echo], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, url = echo
    call("token", "list", "--url", url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "c")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    call("token", "list")
    monkeypatch.setenv("MUNIMENT_TOKEN", "b")
    call("token", "list")
    call("token", "list", "--token", "a", "--all")
    assert [who for _, who in handler.heard] == [None, "Bearer c", "Bearer b", "Bearer a"]
    assert handler.heard[-1][0] == "/api/v1/tokens?all=true"


def test_every_command_finds_its_server_in_the_same_order(
    call: Call,
    echo: tuple[type[Echo], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    handler, url = echo
    nowhere = "http://127.0.0.1:1"
    for command in (("token", "list"), ("access", "roles"), ("policy", "list")):
        handler.heard.clear()
        monkeypatch.delenv("MUNIMENT_SERVER", raising=False)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlruns.db")
        assert "no server has" in call(*command).err, "MLflow's may name what is no server"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        call(*command)
        assert len(handler.heard) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_URI", nowhere)
        monkeypatch.setenv("MUNIMENT_SERVER", url)
        call(*command)
        assert len(handler.heard) == 2
        monkeypatch.setenv("MUNIMENT_SERVER", nowhere)
        call(*command, "--url", url)
        assert len(handler.heard) == 3
        assert "no server has" in call(*command, "--data-dir", tmp_path / "mine").err


def test_a_token_is_not_sent_on_to_where_a_server_points(
    call: Call, echo: tuple[type[Echo], str]
) -> None:
    handler, url = echo
    handler.redirect = f"{url}/elsewhere"
    called = call("token", "list", "--url", url, "--token", "a")
    assert called.status == 1
    assert [path for path, _ in handler.heard] == ["/api/v1/tokens"]


def test_a_token_variable_is_no_misspelt_setting(tmp_path: Path) -> None:
    from muniment_services.config import unknown_variables

    assert unknown_variables(
        {"MUNIMENT_TOKEN": "x", "MUNIMENT_SERVER": "x", "MUNIMENT_TOKENS": "x"}
    ) == ["MUNIMENT_TOKENS"]
