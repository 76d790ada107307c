"""How long a replica of a long log needs to start: from nothing, and from a snapshot.

    python tests/bench/snapshot.py --points 100000000 --folder /tmp/snapshot-bench

Fills an embedded log with batches of 1,000 points, builds its projections, has a running server
make a snapshot while somebody reads and writes, and starts a second data folder with the same log
and the snapshot until it is ready. Prints one line for each step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / name) for name in ("services", "projections", "auth", "schemas")]
sys.path.insert(0, str(CHECKOUT / "tests"))

import numpy as np  # noqa: E402

from harness.server import Server, free_port, is_healthy, process_environment  # noqa: E402
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor  # noqa: E402
from muniment_schemas.events import MetricColumns  # noqa: E402
from muniment_services import bootstrap  # noqa: E402
from muniment_services.clock import now_ms  # noqa: E402
from muniment_services.config import Settings  # noqa: E402
from muniment_services.domain.commands import Context  # noqa: E402
from muniment_services.domain.run import evolve  # noqa: E402
from muniment_services.domain.run_data import LogBatch, log_batch  # noqa: E402
from muniment_services.domain.run_life import CreateRun, create  # noqa: E402
from muniment_services.log import opening  # noqa: E402
from muniment_services.state import CurrentState  # noqa: E402
from muniment_services.write import record_of  # noqa: E402

POINTS_A_BATCH = 1_000
BATCHES_A_RUN = 100
KEYS = tuple(f"metric-{number}" for number in range(10))
IN_FLIGHT = 2_000
READY_WITHIN_S = 900.0
POLL_S = 0.02
PROBE_S = 0.05


def main() -> None:
    """Run all steps, printing how long each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/snapshot-bench"))
    parser.add_argument("--snapshots", help="where snapshots go; a folder beside the data if none")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    first, second = folder / "first", folder / "second"
    place = arguments.snapshots or str(folder / "snapshots")
    if not (first / opening.LOG_FILE).exists():
        with timed(f"filling a log with {arguments.points:,} points"):
            asyncio.run(fill(first, arguments.points))
        print(f"  log: {size_mb(first / opening.LOG_FILE):,.0f} MB")
        with timed("building the projections from the log"):
            command(["rebuild", "--data-dir", str(first)])
    with timed("starting with projections at rest"):
        server = start(first, place)
    try:
        with watched(server.url) as slowest, timed("making a snapshot beside reads and writes"):
            command(["snapshot", "create", "--url", server.url])
        print(f"  meanwhile: slowest read {slowest['read']:.2f} s, write {slowest['write']:.2f} s")
    finally:
        server.stop()
    print(f"  file: {size_mb(first / 'projections.duckdb'):,.0f} MB")
    command(["snapshot", "list", "--data-dir", str(first), "--snapshots", place])
    shutil.rmtree(second, ignore_errors=True)
    second.mkdir()
    for path in first.glob(f"{opening.LOG_FILE}*"):  # with its write-ahead log
        shutil.copyfile(path, second / path.name)
    with timed("restoring by itself, page cache warm"):
        command(["snapshot", "restore", "--data-dir", str(second), "--snapshots", place])
    (second / "projections.duckdb").unlink()
    drop_caches()
    with timed("STARTING AN EMPTY REPLICA FROM THE SNAPSHOT UNTIL READY"):
        server = start(second, place)
    server.stop()
    if "begin with a snapshot" not in server.log or "built anew" in server.log:
        raise SystemExit(f"the replica did not begin with the snapshot:\n{server.log}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s", flush=True)


async def fill(folder: Path, points: int) -> None:
    """A log with so many points: runs of BATCHES_A_RUN batches of POINTS_A_BATCH points."""
    settings = Settings(data_dir=folder)
    async with bootstrap.services(settings) as services:
        state = services.fold.state
    log = opening.embedded_log(folder, settings)
    codec = bootstrap.codec(log)
    await log.start()
    chance = random.Random(5)
    noise = np.random.default_rng(5)
    context = Context(
        now_ms=now_ms(),
        random=chance.randbytes,
        actor=Actor(principal_id="filler", auth_method="local"),
        request_id="fill",
        workspace=WORKSPACE_DEFAULT,
    )
    waiting = []
    for number in range(-(-points // (POINTS_A_BATCH * BATCHES_A_RUN))):
        command = CreateRun(experiment_id="0", name=f"r{number}", user_id="u", start_time_ms=number)
        created = create(state, command, context)
        waiting.append(log.append(record_of(created, codec, log)))
        run_id = created.envelope.aggregate_id
        # Decided in a world that has this run alone, which is all that the decision looks at.
        world = CurrentState(catalog=state.catalog)
        world.admit({("run", run_id): evolve(None, created)})
        for batch in range(BATCHES_A_RUN):
            logged = log_batch(
                world, LogBatch(run_id=run_id, metrics=columns(noise, batch)), context
            )
            assert logged is not None
            waiting.append(log.append(record_of(logged, codec, log)))
            if len(waiting) >= IN_FLIGHT:
                await asyncio.gather(*waiting)
                waiting.clear()
    await asyncio.gather(*waiting)
    await log.close()


def columns(noise: np.random.Generator, batch: int) -> MetricColumns:
    """Curves that fall with noise on them: digits that no compression can guess."""
    steps = POINTS_A_BATCH // len(KEYS)
    step = np.repeat(np.arange(batch * steps, (batch + 1) * steps), len(KEYS)).astype("<i8")
    value = 1.0 / (step + 1) + noise.normal(0, 0.01, POINTS_A_BATCH)
    return MetricColumns(
        count=POINTS_A_BATCH,
        keys=KEYS,
        key_index=np.tile(np.arange(len(KEYS)), steps).astype("<u2").tobytes(),
        value=value.astype("<f8").tobytes(),
        timestamp_ms=(1_700_000_000_000 + step * 1000).astype("<i8").tobytes(),
        step=step.tobytes(),
        contexts=(),
        context_index=b"",
    )


def command(arguments: Sequence[str]) -> None:
    """Run muniment's command line."""
    line = [sys.executable, "-m", "muniment_services", *arguments]
    subprocess.run(line, env=process_environment(), check=True)


def start(folder: Path, place: str) -> Server:
    """A server on a data folder, ready."""
    port = free_port()
    line = [sys.executable, "-m", "muniment_services", "serve", "--port", str(port)]
    line += ["--data-dir", str(folder), "--snapshots", place]
    server = Server(line, port, folder, process_environment())
    with server.log_path.open("wb") as log:
        server._process = subprocess.Popen(
            line, stdout=log, stderr=log, env=process_environment(), start_new_session=True
        )
    deadline = time.monotonic() + READY_WITHIN_S
    while not is_healthy(server.url, "/readyz"):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server does not get ready:\n{server.log}")
        time.sleep(POLL_S)
    return server


@contextmanager
def watched(url: str) -> Iterator[dict[str, float]]:
    """Somebody writes a metric and reads it back by a search, again and again."""
    slowest = {"read": 0.0, "write": 0.0}
    stopping = threading.Event()
    made = call(url, "runs/create", {"experiment_id": "0", "start_time": 1})
    run_id = made["run"]["info"]["run_id"]

    def work() -> None:
        for step in range(10**9):
            if stopping.wait(PROBE_S):
                return
            point = {"key": "m", "value": step, "timestamp": step, "step": step, "run_id": run_id}
            search = {"experiment_ids": ["0"], "max_results": 1}
            for kind, path, body in (
                ("write", "runs/log-metric", point),
                ("read", "runs/search", search),
            ):
                began = time.monotonic()
                call(url, path, body)
                slowest[kind] = max(slowest[kind], time.monotonic() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield slowest
    finally:
        stopping.set()
        thread.join()


def call(url: str, path: str, body: object) -> dict[str, dict[str, dict[str, str]]]:
    """One call of MLflow's API."""
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, dict[str, dict[str, str]]] = json.load(answer)
        return found


def drop_caches() -> None:
    """As on a machine that has never seen these files; only root can."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        print(f"  page caches stay warm: {error}")


def size_mb(path: Path) -> float:
    """Size of a file in megabytes."""
    return path.stat().st_size / 1e6


if __name__ == "__main__":
    main()
