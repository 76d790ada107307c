"""The whole server killed under load: what was acknowledged is there, once, in log and answers."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.server import Server, process_environment, running_muniment
from muniment_schemas.codec import Codec
from muniment_schemas.columns import points
from muniment_schemas.events import BatchLogged, RunCreated
from muniment_schemas.subjects import Schemas
from muniment_services.log.base import RUNS, Record, TopicPartition
from muniment_services.log.embedded import EmbeddedLog

KILLS = 22
WRITERS = 6
DRAIN_S_MAX = 10.0

Point = tuple[str, str, int]
"""(run, key, step): what one write leaves behind, and no other write does."""


@dataclass
class Writer(threading.Thread):
    """Creates runs and logs to them, each write once, and notes which were acknowledged."""

    url: str
    name_prefix: str
    stopping: threading.Event
    acknowledged: set[Point] = field(default_factory=set)
    attempted: set[Point] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Write until told to stop; a refused or broken call is not repeated."""
        step = 0
        run_id = None
        while not self.stopping.is_set():
            try:
                connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
                while not self.stopping.is_set():
                    step += 1
                    if run_id is None or step % 200 == 0:
                        run_id = self._create(connection)
                    self._log(connection, run_id, step)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)

    def _create(self, connection: http.client.HTTPConnection) -> str:
        answer = _post(connection, "runs/create", {"experiment_id": "0", "start_time": 1})
        run_id: str = json.loads(answer)["run"]["info"]["run_id"]
        self.runs.add(run_id)
        return run_id

    def _log(self, connection: http.client.HTTPConnection, run_id: str, step: int) -> None:
        if step % 5:
            written = {(run_id, self.name_prefix, step)}
            body: dict[str, object] = {
                "run_id": run_id,
                "key": self.name_prefix,
                "value": 1.5,
                "timestamp": 7,
                "step": step,
            }
            path = "runs/log-metric"
        else:
            written = {(run_id, f"{self.name_prefix}-batch-{i}", step) for i in range(20)}
            metrics = [
                {"key": key, "value": 0.5, "timestamp": 7, "step": s} for _, key, s in written
            ]
            body = {"run_id": run_id, "metrics": metrics}
            path = "runs/log-batch"
        self.attempted |= written
        _post(connection, path, body)
        self.acknowledged |= written


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, object]) -> bytes:
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"{response.status} {content!r}")
    return content


def records(data_dir: Path) -> Iterator[Record]:
    """Every record of the runs topic, read from the file as an outsider would."""

    async def read() -> list[Record]:
        log = EmbeddedLog(data_dir / "log.sqlite", read_only=True)
        await log.start()
        found: list[Record] = []
        for partition in range(log.partitions[RUNS]):
            at = TopicPartition(RUNS, partition)
            while batch := log.read(at, len([r for r in found if r.at == at])):  # type: ignore[arg-type]
                found += batch
        await log.close()
        return found

    yield from asyncio.run(read())


def logged(data_dir: Path) -> tuple[Counter[Point], Counter[str]]:
    """How often each point, and each run's creation, stands in the log."""
    codec = Codec(Schemas.load())
    seen: Counter[Point] = Counter()
    created: Counter[str] = Counter()
    for record in records(data_dir):
        event = codec.decode(record.value)
        if isinstance(event, RunCreated):
            created[event.envelope.aggregate_id] += 1
        elif isinstance(event, BatchLogged) and event.metrics is not None:
            read = points(event.metrics)
            for index, step in zip(read.key_index.tolist(), read.step.tolist(), strict=True):
                seen[event.envelope.aggregate_id, read.keys[index], step] += 1
    return seen, created


def answered(server: Server, writers: list[Writer]) -> Counter[Point]:
    """The points that the API gives for the runs of all writers."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    found: Counter[Point] = Counter()
    for writer in writers:
        for run_id in writer.runs:
            for key in {key for run, key, _ in writer.attempted if run == run_id}:
                connection.request(
                    "GET",
                    f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={key}",
                )
                history = json.loads(connection.getresponse().read()).get("metrics", [])
                found.update((run_id, key, point["step"]) for point in history)
    return found


def started(server: Server) -> tuple[list[Writer], threading.Event]:
    """Writers at work on a server."""
    stopping = threading.Event()
    writers = [Writer(server.url, f"w{i}", stopping) for i in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers, stopping


def finished(writers: list[Writer], stopping: threading.Event) -> None:
    """Stop the writers and wait for them."""
    stopping.set()
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()


def check(server: Server, writers: list[Writer]) -> None:
    """Every acknowledged write once, every other at most once, and the API says the same."""
    seen, created = logged(server.data_dir)
    acknowledged = set().union(*(w.acknowledged for w in writers))
    attempted = set().union(*(w.attempted for w in writers))
    assert acknowledged, "the writers got nothing through"
    assert not acknowledged - seen.keys(), "acknowledged writes are missing from the log"
    assert not seen.keys() - attempted, "the log has points that nobody wrote"
    assert max(seen.values()) == 1, "a write stands in the log twice"
    assert {created[run_id] for w in writers for run_id in w.runs} == {1}
    shown = answered(server, writers)
    assert shown.keys() == seen.keys()
    assert max(shown.values()) == 1


@pytest.mark.slow
def test_kill_minus_nine_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with running_muniment(tmp_path / "data") as server:
        writers, stopping = started(server)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.05, 0.6))
            server.kill()
            server.start()
        time.sleep(0.3)
        finished(writers, stopping)
        check(server, writers)
        status = server.stop()
        assert status == 0
    verify(tmp_path / "data")


@pytest.mark.slow
def test_sigterm_under_load_drains_what_was_acknowledged(tmp_path: Path) -> None:
    with running_muniment(tmp_path / "data") as server:
        writers, stopping = started(server)
        time.sleep(1.0)
        asked = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked < DRAIN_S_MAX
        finished(writers, stopping)
        server.start()
        check(server, writers)


def verify(data_dir: Path) -> None:
    """`muniment verify` agrees: the log is whole, and the projections equal a rebuild of it."""
    command = [sys.executable, "-m", "muniment_services", "verify", "--data-dir", str(data_dir)]
    done = subprocess.run(
        command, env=process_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
