"""Commands that ask a server where people sign in: they show the token of the environment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from unit.cli.conftest import Call

TOKEN = "mnt_token"
DONE = {
    "phase": "done", "events": 1, "total": 1, "bytes": 1, "snapshot": "s", "name": "s",
    "quarantine": [], "checks": [], "parts": [], "policies": [],
}  # fmt: skip


class Guarded(BaseHTTPRequestHandler):
    """Readiness for everybody; anything else for whoever has the token."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.asked.append(self.path)
        status = 200 if allowed or self.path == "/readyz" else 401
        self._send(status, DONE if status == 200 else {"message": "sign in"})

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Guarded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUNIMENT_TOKEN", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["MUNIMENT_TOKEN", "MLFLOW_TRACKING_TOKEN"])
@pytest.mark.parametrize(
    "command",
    [("rebuild",), ("quarantine", "list"), ("policy", "list"), ("status", "--json")],
    ids=" ".join,
)
def test_the_token_of_the_environment_is_shown(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], variable: str
) -> None:
    if command[0] != "status":
        refused = call(*command, "--url", url)
        assert (refused.status, "sign in" in refused.err) == (1, True)
    monkeypatch.setenv(variable, TOKEN)
    done = call(*command, "--url", url)
    assert done.status == 0, done.err


def test_a_snapshot_is_asked_for_with_the_token(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUNIMENT_TOKEN", TOKEN)
    Guarded.asked.clear()
    ended = call("snapshot", "create", "--url", url)
    assert "sign in" not in ended.err
    assert Guarded.asked[0].startswith("/api/v1/snapshots?keep=")


def test_readiness_is_told_without_a_token_and_health_is_not(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = call("status", "--url", url)
    assert (told.status, told.lines[0].split()[0]) == (0, "ready")
    assert "server:read" in told.lines[1]
    monkeypatch.setenv("MUNIMENT_TOKEN", TOKEN)
    assert "server:read" not in call("status", "--url", url).out
