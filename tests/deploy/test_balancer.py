"""The balancer's own configuration, before real servers: who is asked, and how often."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from harness.server import free_port, running_muniment
from house.sources import ROOT

CONFIG = ROOT / "deploy" / "compose" / "haproxy.cfg"
HAPROXY = ROOT / ".cache" / "tools" / "bin" / "haproxy"
WITHIN_S = 15.0

pytestmark = pytest.mark.slow


class Stand:
    """A server that says whether it is ready, counts its posts, and may break off an answer."""

    def __init__(self) -> None:
        self.ready = True
        self.breaks_off = False
        self.posts = 0
        self.port = free_port()
        stand = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200 if stand.ready else 503)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                stand.posts += 1
                if stand.breaks_off:
                    self.close_connection = True
                    self.connection.close()
                    return
                self._answer(200)

            def _answer(self, status: int) -> None:
                content = str(stand.port).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def balancer(folder: Path, one: int, other: int) -> Iterator[str]:
    """HAProxy as the composition has it, before servers on two ports of this machine."""
    if not HAPROXY.exists():
        raise FileNotFoundError("haproxy is not there; run deploy/scripts/tools")
    port = free_port()
    text = CONFIG.read_text("utf-8")
    text = text.replace("bind :5000", f"bind 127.0.0.1:{port}")
    text = text.replace("replica-1:5000", f"127.0.0.1:{one}")
    text = text.replace("replica-2:5000", f"127.0.0.1:{other}")
    own = folder / "haproxy.cfg"
    own.write_text(text, "utf-8")
    checked = subprocess.run(
        [HAPROXY, "-c", "-f", own], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    process = subprocess.Popen([HAPROXY, "-db", "-f", own], stderr=subprocess.DEVNULL)
    try:
        await_listening(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def await_listening(port: int) -> None:
    """Return once somebody takes connections at a port."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the balancer does not listen"
            time.sleep(0.05)
        else:
            return


@contextmanager
def balanced(folder: Path, one: Stand, other: Stand) -> Iterator[str]:
    with balancer(folder, one.port, other.port) as url:
        await_answers(url, {one.port, other.port})
        yield url


def asked(url: str, method: str = "GET") -> int:
    """Which server answered; 0: none did, or with an error."""
    request = urllib.request.Request(url, data=b"{}" if method == "POST" else None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.read())
    except (urllib.error.URLError, ConnectionError):
        return 0


def await_answers(url: str, ports: set[int]) -> None:
    """Wait until exactly these answer."""
    deadline = time.monotonic() + WITHIN_S
    while {asked(url) for _ in range(12)} != ports:
        assert time.monotonic() < deadline, f"{ports} do not answer alone"
        time.sleep(0.3)


@pytest.fixture
def stands() -> Iterator[tuple[Stand, Stand]]:
    one, other = Stand(), Stand()
    yield one, other
    one.close()
    other.close()


def test_a_replica_that_is_not_ready_is_passed_over(
    tmp_path: Path, stands: tuple[Stand, Stand]
) -> None:
    one, other = stands
    with balanced(tmp_path, one, other) as url:
        one.ready = False
        await_answers(url, {other.port})
        assert {asked(url, "POST") for _ in range(20)} == {other.port}
        one.ready = True
        await_answers(url, {one.port, other.port})


def test_a_replica_that_has_gone_costs_no_request(
    tmp_path: Path, stands: tuple[Stand, Stand]
) -> None:
    one, other = stands
    with balanced(tmp_path, one, other) as url:
        one.close()
        assert 0 not in {asked(url, "POST") for _ in range(40)}


def test_a_request_that_reached_a_replica_is_never_sent_twice(
    tmp_path: Path, stands: tuple[Stand, Stand]
) -> None:
    one, other = stands
    with balanced(tmp_path, one, other) as url:
        one.breaks_off = other.breaks_off = True
        assert [asked(url, "POST") for _ in range(10)] == [0] * 10
        assert one.posts + other.posts == 10


def test_a_server_of_ours_that_drains_costs_no_request(tmp_path: Path) -> None:
    """Two of them, apart: one has a model that the other has not, and so tells who answered."""
    with (
        running_muniment(tmp_path / "leaving", extra_args=("--drain-s", "4")) as leaving,
        running_muniment(tmp_path / "staying") as staying,
        balancer(tmp_path, *(int(server.url.rpartition(":")[2]) for server in (leaving, staying)))
        as url,
        httpx.Client(base_url=f"{url}/api/2.0/mlflow", trust_env=False) as client,
    ):  # fmt: skip
        model = {"name": "only here"}
        made = httpx.post(f"{leaving.url}/api/2.0/mlflow/registered-models/create", json=model)
        assert made.status_code == 200

        def answered() -> int:
            return client.get("/registered-models/get", params=model).status_code

        deadline = time.monotonic() + WITHIN_S
        while {answered() for _ in range(8)} != {200, 404}:
            assert time.monotonic() < deadline, "not both are asked"
            time.sleep(0.2)
        leaving.process.terminate()
        found = []
        while leaving.process.poll() is None:
            found.append(client.post("/experiments/search", json={"max_results": 1}).status_code)
        assert set(found) == {200}
        assert len(found) > 100
        assert {answered() for _ in range(20)} == {404}
