"""Rebuilding while clients write and read: nobody notices, whatever happens on the way."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.server import Server, process_environment, running_muniment
from muniment_schemas.columns import pack
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor
from muniment_services import bootstrap
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.commands import Context
from muniment_services.domain.run_data import LogBatch, log_batch
from muniment_services.domain.run_life import CreateRun, create
from muniment_services.log import opening
from muniment_services.state import CurrentState
from muniment_services.write import record_of

pytestmark = pytest.mark.slow

RUNS = 200
BATCHES = 50
REBUILDS = 2
KILLS = 5
REBUILT_WITHIN_S = 90.0
DRAIN_S_MAX = 5.0
ADMIN = "/api/v1/projections/rebuild"
PROJECTIONS = "projections.duckdb"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with RUNS × (BATCHES + 1) events, so that a rebuild takes its time."""
    folder = tmp_path_factory.mktemp("history") / "data"
    asyncio.run(_fill(folder))
    return folder


async def _fill(folder: Path) -> None:
    settings = Settings(data_dir=folder)
    async with bootstrap.services(settings) as services:
        state = services.fold.state
    log = opening.embedded_log(folder, settings)
    codec = bootstrap.codec(log)
    await log.start()
    chance = random.Random(5)
    context = Context(
        now_ms=now_ms(),
        random=chance.randbytes,
        actor=Actor(principal_id="filler", auth_method="local"),
        request_id="fill",
        workspace=WORKSPACE_DEFAULT,
    )
    appended = []
    for number in range(RUNS):
        start = CreateRun(experiment_id="0", name=f"r{number}", user_id="u", start_time_ms=number)
        created = create(state, start, context)
        appended.append(log.append(record_of(created, codec, log)))
        run_id = created.envelope.aggregate_id
        # Decided in a world that has this run alone, which is all that the decision looks at.
        world = CurrentState(catalog=state.catalog)
        world.admit({("run", run_id): _evolved(created)})
        for step in range(BATCHES):
            points = pack(["loss", "acc"], [chance.random(), 1.0], [step, step], [step, step])
            logged = log_batch(world, LogBatch(run_id=run_id, metrics=points), context)
            assert logged is not None
            appended.append(log.append(record_of(logged, codec, log)))
    await asyncio.gather(*appended)
    await log.close()


def _evolved(created: Any) -> Any:
    from muniment_services.domain.run import evolve

    return evolve(None, created)


@pytest.fixture
def data_dir(history: Path, tmp_path: Path) -> Path:
    """A copy of the history."""
    subprocess.run(["cp", "-r", str(history), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


@dataclass
class Client(threading.Thread):
    """Calls one thing again and again and notes every answer that is not 200."""

    url: str
    call: Callable[[Client, int], None]
    stopping: threading.Event
    calls: int = 0
    failed: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Call until told to stop, or until a call fails."""
        try:
            while not self.stopping.is_set():
                began = time.monotonic()
                self.call(self, self.calls)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.calls += 1
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(repr(error))

    def post(self, path: str, **body: object) -> dict[str, Any]:
        """One call of MLflow's API; what is not a 200 is noted."""
        status, answer = request(self.connection, "POST", f"/api/2.0/mlflow/{path}", body)
        if status != 200:
            self.failed.append(f"{path}: {status} {answer}")
        return answer


def request(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one call."""
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    return response.status, answer


def write_and_read_back(client: Client, number: int) -> None:
    """A run with a metric, which a search must find at once."""
    name = f"{id(client)}-{number}"
    made = client.post("runs/create", experiment_id="0", run_name=name, start_time=1)
    run_id = made["run"]["info"]["run_id"]
    client.post("runs/log-metric", run_id=run_id, key="m", value=0.5, timestamp=1, step=number)
    where = f"attributes.run_name = '{name}' AND metrics.m = 0.5"
    found = client.post("runs/search", experiment_ids=["0"], filter=where)
    if [run["info"]["run_id"] for run in found.get("runs", [])] != [run_id]:
        client.failed.append(f"{name} was not found: {found}")


def read_old(client: Client, number: int) -> None:
    """The best of all runs, and one that was there before."""
    body: dict[str, Any] = {"experiment_ids": ["0"], "order_by": ["metrics.loss"], "max_results": 5}
    if len(client.post("runs/search", **body)["runs"]) != 5:
        client.failed.append("fewer runs than there are")
    where = f"attributes.run_name = 'r{number % RUNS}'"
    if len(client.post("runs/search", experiment_ids=["0"], filter=where)["runs"]) != 1:
        client.failed.append(f"r{number % RUNS} was not found")


@contextmanager
def clients(url: str) -> Iterator[list[Client]]:
    """Two writers and two readers at work; that nothing failed is checked at the end."""
    stopping = threading.Event()
    calls = (write_and_read_back, write_and_read_back, read_old, read_old)
    working = [Client(url, call, stopping) for call in calls]
    for client in working:
        client.start()
    yield working
    stopping.set()
    for client in working:
        client.join(30)
        assert client.failed == []
        assert client.calls > 0


def admin(url: str, method: str) -> tuple[int, dict[str, Any]]:
    """Start a rebuild (POST) or ask how far it is (GET)."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    return request(connection, method, ADMIN)


def wait_until_rebuilt(url: str) -> dict[str, Any]:
    """The status of the rebuild when it has ended."""
    deadline = time.monotonic() + REBUILT_WITHIN_S
    while time.monotonic() < deadline:
        _, status = admin(url, "GET")
        if status["phase"] in ("done", "failed"):
            return status
        time.sleep(0.05)
    raise AssertionError(f"the rebuild has not ended: {status}")


def muniment(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One call of the command line."""
    command = [sys.executable, "-m", "muniment_services", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=process_environment())


def check(data_dir: Path) -> None:
    """`muniment verify` finds nothing."""
    ended = muniment("verify", "--data-dir", data_dir)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def projection_files(data_dir: Path) -> list[str]:
    """Names of the projections' files but for write-ahead logs."""
    return [path.name for path in data_dir.glob("projections*") if path.suffix != ".wal"]


def test_clients_do_not_notice_a_rebuild(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        with clients(server.url) as working:
            for _ in range(REBUILDS):
                before = [client.calls for client in working]
                ended = muniment("rebuild", "--data-dir", data_dir, "--json")
                assert ended.returncode == 0, ended.stderr
                last = json.loads(ended.stdout.splitlines()[-1])
                assert last["phase"] == "done"
                assert last["events"] > RUNS * BATCHES
                after = [client.calls for client in working]
                assert all(now > then for now, then in zip(after, before, strict=True))
        assert len(projection_files(data_dir)) == 1
        check(data_dir)
    assert projection_files(data_dir) == [PROJECTIONS]
    check(data_dir)


def test_there_is_one_rebuild_at_a_time(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        assert admin(server.url, "GET") == (200, {**admin(server.url, "GET")[1], "phase": "idle"})
        status, started = admin(server.url, "POST")
        assert (status, started["phase"]) == (202, "building")
        status, refused = admin(server.url, "POST")
        assert (status, refused["error_code"]) == (409, "RESOURCE_CONFLICT")
        ended = muniment("rebuild", "--data-dir", data_dir)
        assert ended.returncode == 1
        assert "being rebuilt already" in ended.stderr
        assert wait_until_rebuilt(server.url)["phase"] == "done"
        assert admin(server.url, "POST")[0] == 202
        assert wait_until_rebuilt(server.url)["phase"] == "done"


def _kill_at(server: Server, seconds: float) -> None:
    assert admin(server.url, "POST")[0] == 202
    time.sleep(seconds)
    server.restart()


def test_killed_at_any_moment_of_a_rebuild(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        began = time.monotonic()
        assert admin(server.url, "POST")[0] == 202
        wait_until_rebuilt(server.url)
        whole_s = time.monotonic() - began
        chance = random.Random(11)
        for turn in range(KILLS):
            # The last third is where files are exchanged.
            _kill_at(server, whole_s * (chance.uniform(0.6, 1.05) if turn % 2 else chance.random()))
            assert projection_files(data_dir) == [PROJECTIONS]
        with clients(server.url):
            assert admin(server.url, "POST")[0] == 202
            assert wait_until_rebuilt(server.url)["phase"] == "done"
    check(data_dir)


def test_a_builder_that_dies_leaves_the_old_projections(data_dir: Path) -> None:
    with running_muniment(data_dir) as server, clients(server.url):
        assert admin(server.url, "POST")[0] == 202
        for pid in _children(server.process.pid):
            os.kill(pid, 9)
        ended = wait_until_rebuilt(server.url)
        assert ended["phase"] == "failed"
        assert "ended with status" in ended["error"]
        assert projection_files(data_dir) == [PROJECTIONS]
    check(data_dir)


def _children(pid: int) -> list[int]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return [int(child) for child in found]
        time.sleep(0.01)
    raise AssertionError("no building process was started")


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_sigterm_during_a_rebuild_gives_it_up(data_dir: Path, seconds: float) -> None:
    with running_muniment(data_dir) as server:
        assert admin(server.url, "POST")[0] == 202
        time.sleep(seconds)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < DRAIN_S_MAX
        assert projection_files(data_dir) == [PROJECTIONS]
        assert not (data_dir / "server.json").exists()
    check(data_dir)
