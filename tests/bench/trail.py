"""What the trail costs: the same calls with it and without it, interleaved.

    python tests/bench/trail.py
    python tests/bench/trail.py --rounds 5 --calls 4000
    python tests/bench/trail.py --rows 10000000

Two servers with the embedded log. One is as it is; the other records no calls and has no table of
events, which is no setting but done to it here. A round measures one and then the other, and its
ratio counts; so does the server's own CPU time a call, which other work on the machine disturbs
less. --rows: how long questions take on a trail of so many events, which are made up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import load
from bench.signed_in import API, ask, new_run
from harness.server import Server, free_port, process_environment
from muniment_projections.audit import reader, tables
from muniment_projections.audit.query import compile_query
from muniment_projections.audit.reader import Wanted

CONNECTIONS = 16
BATCH_POINTS = 200

WITHOUT = """
from muniment_projections.audit.apply import AuditProjection
from muniment_services import trail
from muniment_services.cli.main import main
async def nothing(self, principal, call): pass
trail.Trail.record = nothing
AuditProjection.apply = lambda self, tx, batch: None
main()
"""

Made = Callable[[str, str, int], bytes]


def log_metric(url: str, run_id: str, step: int) -> bytes:
    """A call that leads to an event of one point."""
    body = {"run_id": run_id, "key": "m", "value": 0.5, "timestamp": 1, "step": step}
    return load.post(url, f"{API}runs/log-metric", json.dumps(body).encode())


def log_batch(url: str, run_id: str, step: int) -> bytes:
    """A call that leads to an event of BATCH_POINTS points."""
    points = [
        {"key": f"m{n}", "value": 0.5, "timestamp": 1, "step": step} for n in range(BATCH_POINTS)
    ]
    body = json.dumps({"run_id": run_id, "metrics": points}).encode()
    return load.post(url, f"{API}runs/log-batch", body)


def get_run(url: str, run_id: str, _: int) -> bytes:
    """A read, which the trail records."""
    head = f"GET {API}runs/get?run_id={run_id} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    return head.encode()


CALLS: tuple[tuple[str, Made, int], ...] = (
    ("log-metric", log_metric, 1),
    ("log-batch", log_batch, 8),
    ("runs/get", get_run, 1),
)
"""Name, request, and by how much fewer of them a round has."""


def server(folder: Path, program: Sequence[str]) -> Server:
    """A server on a folder, started."""
    port = free_port()
    command = [sys.executable, *program, "serve", "--port", str(port), "--data-dir", str(folder)]
    started = Server(command, port, folder, process_environment())
    folder.mkdir(parents=True)
    started.start()
    return started


def measured(one: Server, run_id: str, made: Made, calls: int) -> tuple[float, float]:
    """Calls a second, and CPU microseconds a call."""
    process = psutil.Process(one.process.pid)
    before = process.cpu_times()
    requests = [
        [made(one.url, run_id, place * calls + step) for step in range(calls // CONNECTIONS)]
        for place in range(CONNECTIONS)
    ]
    timing = load.run(one.url, requests)
    after = process.cpu_times()
    spent = after.user - before.user + after.system - before.system
    return timing.per_second, spent / timing.requests * 1e6


def cost(rounds: int, calls: int) -> None:
    """Print calls a second and CPU time with and without the trail, and the ratios."""
    folder = Path(tempfile.mkdtemp())
    on = server(folder / "on", ["-m", "muniment_services"])
    off = server(folder / "off", ["-c", WITHOUT])
    try:
        runs = {one.url: new_run(one.url, None) for one in (on, off)}
        for name, made, fewer in CALLS:
            pairs = []
            for round_ in range(rounds + 1):
                both = [measured(s, runs[s.url], made, calls // fewer) for s in (on, off)]
                if round_:  # The first warms up.
                    pairs.append(both)
            speed = statistics.median(a[0] / b[0] for a, b in pairs)
            spent = statistics.median(a[1] / b[1] for a, b in pairs)
            rate = statistics.median(a[0] for a, _ in pairs)
            print(
                f"{name:11} {rate:7.0f} a second with the trail: {speed:.2f} of without, "
                f"{spent:.2f} of its CPU time"
            )
        ask(on.url, f"{API}runs/search", {"experiment_ids": ["0"]}, None)
    finally:
        on.kill()
        off.kill()


MADE_UP = """
INSERT INTO audit_events ({names})
SELECT 'access', n % 6, n // 6, printf('%032x', n), 1767225600000 + n * 3, 'ApiCalled',
  ['run.read', 'model.read', 'artifact.read', 'run.write', 'model.promote'][
    (1 + hash(n) % 5)::INTEGER],
  printf('%032x', hash(n * 7) % 500), 'bearer',
  ['allowed', 'allowed', 'allowed', 'allowed', 'denied', 'failed'][(1 + hash(n * 3) % 6)::INTEGER],
  ['run', 'registered_model', 'artifact'][(1 + hash(n) % 3)::INTEGER],
  printf('%032x', hash(n * 11) % 100000),
  CASE WHEN hash(n) % 3 = 1 THEN 'model-' || (hash(n * 5) % 2000) END,
  'default', printf('%016x', hash(n)), 'GET', '/api/2.0/mlflow/runs/get', 'run:read',
  [200, 403, 404][(1 + hash(n * 13) % 3)::INTEGER], '10.0.0.1', 'python', 900
FROM range(?) AS made(n)
"""

NAMES = (
    "topic", "partition", "offset", "event_id", "at_ms", "type", "action", "actor", "auth_method",
    "outcome", "resource_kind", "resource_id", "resource_name", "workspace", "request_id",
    "method", "route", "permission", "status", "client_address", "user_agent", "duration_us",
)  # fmt: skip


def questions(rows: int) -> None:
    """Print how long questions take on a trail of so many rows."""
    path = Path(tempfile.mkdtemp()) / "trail.duckdb"
    connection = duckdb.connect(str(path), config={"threads": 2, "memory_limit": "2GB"})
    connection.execute(tables.CREATE)
    connection.execute(MADE_UP.format(names=", ".join(f'"{n}"' for n in NAMES)), [rows])
    connection.execute("CHECKPOINT")
    print(f"{rows} events, {path.stat().st_size / 1e6:.0f} MB")
    actor = f"{7:032x}"
    for text in (
        "",
        f"actor:{actor}",
        f"actor:{actor} outcome:denied action:model.*",
        "resource:models/model-17",
        "resource:models/model-19*",
        "time:2026-01-01..2026-01-01 status:403",
        f"actor:{actor} time:2026-01-01T03:00..2026-01-01T04:00",
        '"model-1999"',
    ):
        where = compile_query(text, lambda _: ())
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            found = reader.events(connection, Wanted(where, max_results=100))
            taken.append(time.perf_counter() - began)
        print(f"{statistics.median(taken) * 1000:7.0f} ms  {len(found.rows):4} rows  {text!r}")
    began = time.perf_counter()
    reader.facets(connection, compile_query("", lambda _: ()))
    print(f"{(time.perf_counter() - began) * 1000:7.0f} ms  facets of all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=0)
    given = parser.parse_args()
    if given.rows:
        questions(given.rows)
    else:
        cost(given.rounds, given.calls)
