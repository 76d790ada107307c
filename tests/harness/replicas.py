"""Replicas: several of our servers on one log, each with a folder and a port of its own.

They share the log and one folder of artifacts. A replica counts as started when `/readyz` says so:
`/health` answers before it has caught up. What each prints is kept beside its folder over all its
starts, for whoever has to find out why a test failed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.message import Message
from pathlib import Path
from typing import Any

from harness.server import (
    POLL_S,
    Server,
    ServerFailed,
    free_port,
    is_healthy,
    process_environment,
)

READY_WITHIN_S = 180.0
CALL_S = 15.0
DIGESTS_WITHIN_S = 30.0
STUTTER_EVERY_S = (0.1, 0.5)
STUTTER_S = (0.02, 0.15)


UNRECORDED = """
[[audit_rules]]
level = "none"
routes = ["/api/v1/projections/digests", "*/runs/search"]
"""
"""Calls that only look: recording them would change what they look at."""


class Replica:
    """One server process of several: kill, stop, freeze and start it again, at one URL."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.data_dir = server.data_dir

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.data_dir.name

    @property
    def log(self) -> str:
        """The end of what it printed, over all its starts."""
        return self.server.log

    def start(self, ready_within_s: float = READY_WITHIN_S) -> float:
        """Start the process and wait until it is ready; gives the seconds that took."""
        began = time.monotonic()
        self.begin()
        try:
            self.await_ready(ready_within_s)
        except BaseException:
            self.server.kill()
            raise
        return time.monotonic() - began

    def begin(self) -> None:
        """Start the process; it is not ready yet."""
        self.server.begin()

    def await_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return once GET /readyz is 200. Raises ServerFailed with the log's end."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.server.process.poll() is not None:
                what = f"the replica ended with status {self.server.process.returncode}"
                raise ServerFailed(what, self.server.command, self.log)
            if is_healthy(self.url, "/readyz"):
                return
            time.sleep(POLL_S)
        raise ServerFailed(f"not ready in {within_s:g} s", self.server.command, self.log)

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def stop(self) -> int:
        """SIGTERM, and wait; gives the exit status."""
        return self.server.stop()

    def pause(self, seconds: float) -> None:
        """SIGSTOP and, after a while, SIGCONT: it wakes up behind, with requests waiting for it."""
        pid = self.server.process.pid
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.killpg(pid, signal.SIGCONT)

    def get(self, path: str, timeout_s: float = CALL_S) -> tuple[int, Message, Any]:
        """Status, headers and JSON of one GET, whatever the status. Raises OSError."""
        return self.call("GET", path, None, timeout_s)

    def post(self, path: str, body: object, timeout_s: float = CALL_S) -> tuple[int, Message, Any]:
        """The same of one POST of MLflow's API, version 2.0."""
        return self.call("POST", f"/api/2.0/mlflow/{path}", body, timeout_s)

    def call(
        self, method: str, path: str, body: object, timeout_s: float = CALL_S
    ) -> tuple[int, Message, Any]:
        """Status, headers and content (JSON if it is) of one request. Raises OSError."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        request = urllib.request.Request(self.url + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.headers, _parsed(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, _parsed(refused.read())


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")


@contextmanager
def running_replicas(
    folder: Path,
    count: int,
    settings: Mapping[str, str],
    *,
    environments: Sequence[Mapping[str, str]] = (),
) -> Iterator[list[Replica]]:
    """So many replicas in folders `replica-N` below `folder`, ready; stopped by SIGTERM at the end.

    settings: names as in the configuration (`log`, `kafka_bootstrap`, …), for all. environments:
    further variables of each replica, as many as replicas or none.
    Raises ServerFailed with a replica's log when it does not start or stop.
    """
    replicas = [
        replica(
            folder / f"replica-{number}",
            {"artifacts": str(folder / "artifacts"), **settings},
            extra,
        )
        for number, extra in zip(range(count), environments or [{}] * count, strict=True)
    ]
    with ThreadPoolExecutor(count) as pool:
        started = [pool.submit(one.start) for one in replicas]
    try:
        for start in started:
            start.result()
        yield replicas
    except BaseException:
        for one in replicas:
            one.kill()
        raise
    for one in replicas:
        one.stop()


def replica(
    data_dir: Path, settings: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> Replica:
    """A replica that is not started yet. Settings go in by the environment, as in a container."""
    port = free_port()
    command = [sys.executable, "-m", "muniment_services", "serve", "--port", str(port)]
    command += ["--data-dir", str(data_dir)]
    variables = {f"MUNIMENT_{name.upper()}": value for name, value in settings.items()}
    data_dir.mkdir(parents=True, exist_ok=True)
    rules = data_dir.with_suffix(".toml")
    rules.write_text(UNRECORDED)
    variables["MUNIMENT_CONFIG"] = str(rules)
    return Replica(
        Server(command, port, data_dir, process_environment() | variables | dict(environment or {}))
    )


@contextmanager
def stuttering(replicas: Sequence[Replica], chance: random.Random) -> Iterator[None]:
    """Replicas that pause, one at a time, again and again: none can be trusted to be up to date."""
    stopping = threading.Event()

    def stutter() -> None:
        while not stopping.wait(chance.uniform(*STUTTER_EVERY_S)):
            chance.choice(replicas).pause(chance.uniform(*STUTTER_S))

    thread = threading.Thread(target=stutter, name="stutter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def digests(replicas: Sequence[Replica], within_s: float = DIGESTS_WITHIN_S) -> Any:
    """What the projections of all replicas hold, once they agree on checkpoints and on every table.

    Raises AssertionError with the differences when they do not within the time.
    """
    deadline = time.monotonic() + within_s
    while True:
        # A search waits until its replica has projected all that is in the log.
        found = [_digests(one) for one in replicas]
        if all(one == found[0] for one in found[1:]):
            return found[0]
        if time.monotonic() > deadline:
            raise AssertionError(_differences(replicas, found))
        time.sleep(0.2)


def _digests(one: Replica) -> Any:
    search = {"experiment_ids": ["0"], "max_results": 1}
    status, _, answer = one.post("runs/search", search)
    assert status == 200, f"{one.name}: {answer}"
    status, _, told = one.get("/api/v1/projections/digests", DIGESTS_WITHIN_S)
    assert status == 200, f"{one.name}: {told}"
    return told


def _differences(replicas: Sequence[Replica], found: Sequence[Any]) -> str:
    lines = ["replicas differ"]
    for one, told in zip(replicas, found, strict=True):
        lines.append(f"  {one.name}: checkpoints {told['checkpoints']}")
        lines += [
            f"    {table}: {digest}"
            for table, digest in told["tables"].items()
            if digest != found[0]["tables"].get(table)
        ]
    return "\n".join(lines)
