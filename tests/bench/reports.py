"""How long the auditor's questions take on a long trail, and states of the past.

    python tests/bench/reports.py
    python tests/bench/reports.py --rows 1000000 --rounds 9

A server plays a year of a small team (`harness/year.py`), and registers more models in another. The
trail's table is then made anew with calls between those events, in the order of time, which are
made up: reads, writes and refusals by 500 callers on 2,000 models and 100,000 runs. Questions are
asked in the process, without HTTP: waiting for the log, reading the table and the log, and names
are in the figures. Prints the median and the slowest of each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.year import COMMIT_ONE, DATASET, Year, ms, scripted_year
from muniment_projections.base import Connection
from muniment_projections.registry import then
from muniment_services.reports import past
from muniment_services.reports.changes import changes
from muniment_services.reports.moment import moment_of
from muniment_services.reports.run import answered, run_report
from muniment_services.reports.sources import Sources

MODELS = 100
RUN_EVENTS = 1000
YEARS_MS = 730 * 86_400_000
CHUNKS = 200
"""Parts of the two years that the table is made of, one after the other."""

NAMES = (
    "topic", "partition", "offset", "event_id", "at_ms", "type", "action", "actor", "auth_method",
    "outcome", "resource_kind", "resource_id", "resource_name", "resource_version", "workspace",
    "request_id", "method", "route", "permission", "status", "client_address", "user_agent",
    "duration_us", "token_id",
)  # fmt: skip

MADE_UP = """
INSERT INTO audit_events ({names})
SELECT 'access', n % 6, 1000000 + n // 6, printf('%032x', n), 1735689600000 + n * {step} // 1000,
  'ApiCalled',
  ['run.read', 'model.read', 'artifact.read', 'run.write', 'model.promote'][
    (1 + hash(n) % 5)::INTEGER],
  printf('%032x', hash(n * 7) % 500), 'bearer',
  ['allowed', 'allowed', 'allowed', 'allowed', 'denied', 'failed'][(1 + hash(n * 3) % 6)::INTEGER],
  ['run', 'registered_model', 'artifact'][(1 + hash(n) % 3)::INTEGER],
  printf('%032x', hash(n * 11) % 100000),
  CASE WHEN hash(n) % 3 = 1 THEN 'model-' || (hash(n * 5) % 2000) END,
  CASE WHEN hash(n) % 3 = 1 THEN (1 + hash(n * 17) % 9)::INTEGER END,
  'default', printf('%016x', hash(n)), 'GET', '/api/2.0/mlflow/runs/get', 'run:read',
  [200, 403, 404][(1 + hash(n * 13) % 3)::INTEGER], '10.0.0.1', 'python', 900,
  printf('%016x', hash(n * 19) % 2000)
FROM range({begin}, {end}) AS made(n)
"""


def register(year: Year) -> None:
    """More models, each with two versions of which one is in Production, all through a year."""
    for number in range(MODELS):
        year.clock.at_ms += YEARS_MS // 2 // MODELS - 1000
        name = f"other-{number}"
        year.do("fay", "registered-models/create", {"name": name})
        for version in ("1", "2"):
            body = {"name": name, "source": "s3://elsewhere/m"}
            year.do("fay", "model-versions/create", body)
            move = {"name": name, "version": version, "stage": "Production"}
            year.do("fay", "model-versions/transition-stage", {
                **move, "archive_existing_versions": True,
            })  # fmt: skip
    for step in range(RUN_EVENTS):
        point = {"key": "auc", "value": 0.5, "timestamp": 1, "step": step}
        year.do("ana", "runs/log-metric", {"run_id": year.runs["third"], **point})


def fill(year: Year, rows: int) -> None:
    """Make the trail's table anew, with made-up calls between its events."""
    names = ", ".join(f'"{name}"' for name in NAMES)

    def made(connection: Connection) -> None:
        connection.execute("CREATE TABLE happened AS FROM audit_events")
        connection.execute("DELETE FROM audit_events")
        for chunk in range(CHUNKS):
            begin, end = (ms("2025-01-01") + YEARS_MS * n // CHUNKS for n in (chunk, chunk + 1))
            connection.execute(
                "INSERT INTO audit_events FROM happened WHERE at_ms >= ? AND at_ms < ?"
                " ORDER BY at_ms",
                [begin, end],
            )
            part = [rows * n // CHUNKS for n in (chunk, chunk + 1)]
            step = YEARS_MS * 1000 // rows
            sql = MADE_UP.format(names=names, step=step, begin=part[0], end=part[1])
            connection.execute(sql)
        connection.execute("DROP TABLE happened")

    year.services.runner.store.read(made)


def measured(year: Year, name: str, made: Callable[[], Awaitable[int]], rounds: int) -> None:
    """Print how long something takes, and how many rows it brings."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = year.server.loop.run_until_complete(_run(made))
        taken.append((time.perf_counter() - began) * 1000)
    median, most = statistics.median(taken), max(taken)
    print(f"{median:7.0f} ms  {most:7.0f} ms at most  {found:5} rows  {name}", flush=True)


async def _run(made: Callable[[], Awaitable[int]]) -> int:
    return await made()


def questions(year: Year, rounds: int) -> None:
    """Each report, asked as people would."""
    caller = f"{7:032x}"
    for name, parameters in (
        ("promotions", {"model": "fraud"}),
        ("coincidences", {}),
        ("production-at", {"at": "2025-06-01"}),
        ("unapproved", {}),
        ("readers", {"model": "fraud"}),
        ("readers", {"model": "fraud", "version": "2", "from": "2025-03-01", "to": "2025-04-01"}),
        ("refusals", {"principal": "mallory"}),
        ("refusals", {"resource": "models/model-17"}),
        ("credential", {"credential": f"{7:016x}"}),
        ("credential", {"client": caller}),
        ("promoters-at", {"model": "fraud", "at": "2025-06-01"}),
        ("uses", {"dataset": DATASET}),
        ("uses", {"commit": COMMIT_ONE}),
        ("completeness", {}),
    ):

        async def report(name: str = name, parameters: dict[str, str] = parameters) -> int:
            return len((await run_report(year.services, name, parameters)).rows)

        measured(year, f"{name} {parameters or ''}", report, rounds)


def states(year: Year, rounds: int) -> None:
    """States of the past, at a time and at a place in the log."""
    services, run_id = year.services, year.runs["third"]
    for at in ("2025-06-01", year.places["champion"]):

        async def model(at: str = at) -> int:
            def read(sources: Sources) -> int:
                moment = moment_of(at, 0, sources.recorded_at)
                found = then.model_at(sources.connection, "fraud", moment.when)
                assert found is not None
                return len(found.versions)

            return await answered(services, "model", read)

        async def access(at: str = at) -> int:
            def read(sources: Sources) -> int:
                moment = moment_of(at, 0, sources.recorded_at)
                return len(past.access_at(sources, moment).state.grants)

            return await answered(services, "access", read)

        async def run(at: str = at) -> int:
            def read(sources: Sources) -> int:
                moment = moment_of(at, 0, sources.recorded_at)
                found = past.run_at(sources, run_id, moment)
                assert found is not None
                return len(found.run.metrics)

            return await answered(services, "run", read)

        async def difference(at: str = at) -> int:
            def read(sources: Sources) -> int:
                one, other = (moment_of(m, 0, sources.recorded_at) for m in ("2025-02-01", at))
                return len(changes(sources, one, other, "default", None)[0])

            return await answered(services, "diff", read)

        measured(year, f"a model as of {at}", model, rounds)
        measured(year, f"access as of {at}", access, rounds)
        measured(year, f"a run as of {at}", run, rounds)
        measured(year, f"what changed until {at}", difference, rounds)


def main() -> None:
    """Play, fill up, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with scripted_year(Path(tempfile.mkdtemp())) as year:
        register(year)
        began = time.perf_counter()
        fill(year, given.rows)
        print(
            f"{given.rows:,} calls made up in {time.perf_counter() - began:.0f} s; "
            f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        questions(year, given.rounds)
        states(year, given.rounds)


if __name__ == "__main__":
    main()
