"""Replicas die while they catch up, and run out of disk: the log goes on, and nothing is lost."""

from __future__ import annotations

import errno
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import brokers
from harness.backlog import POINTS, fill
from harness.kafka_home import Home, StartTeam
from harness.ledger import folded, records
from harness.points import check_counted, writing
from harness.replicas import Replica, digests, replica
from muniment_schemas.events import ExperimentCreated
from muniment_services.domain.experiment import KIND, evolve
from muniment_services.state import CurrentState

pytestmark = pytest.mark.slow

RUNS = 150
BATCHES = 300
KILLS_AT = (0.1, 0.4, 0.7)
"""Of the events that are left, how much is folded when the replica is killed."""
READY_WITHIN_S = 60.0
POLL_S = 0.02
DISK_MB = 48
WRITES = 300
MENDED_WITHIN_S = 30.0


def state_of(home: Home) -> CurrentState:
    """A state that has the Default experiment, from its creation in the log."""
    creations = (
        entry.event
        for entry in folded(records(home.bootstrap, home.prefix))
        if isinstance(entry.event, ExperimentCreated)
    )
    state = CurrentState()
    state.restore({(KIND, event.envelope.aggregate_id): evolve(None, event) for event in creations})
    return state


def killed_while_catching_up(one: Replica, part: float) -> dict[str, Any]:
    """Start a replica and kill it when that part of what it has to fold is folded."""
    one.begin()
    deadline = time.monotonic() + READY_WITHIN_S
    told: dict[str, Any] = {}
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        try:
            status, headers, told = one.get("/readyz")
        except OSError:
            continue  # it does not listen yet
        assert status == 503, "it was ready before it could be killed: make the backlog longer"
        assert int(headers["Retry-After"]) >= 1
        if told.get("total") and told["events"] >= part * told["total"]:
            assert told["phase"] == "catching up"
            assert one.get("/health")[0] == 200, "it lives"
            one.kill()
            return told
    raise TimeoutError(f"it does not catch up: {told}")


def test_killed_while_it_catches_up(home: Home, team: StartTeam, tmp_path: Path) -> None:
    with team(home, 1) as (whole,):
        run_ids = fill(home, state_of(home), RUNS, BATCHES)
        late = replica(
            tmp_path / "late", {**home.settings, "artifacts": str(tmp_path / "artifacts")}
        )
        told = [killed_while_catching_up(late, part) for part in KILLS_AT]
        # What was committed before a kill is not folded again.
        assert [one["total"] for one in told] == sorted((o["total"] for o in told), reverse=True)
        assert told[-1]["total"] < told[0]["total"]
        ready_s = late.start(READY_WITHIN_S)
        try:
            digests([whole, late])
            for run_id in random.sample(run_ids, 5):
                path = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss"
                status, _, answer = late.get(path)
                assert status == 200, answer
                assert [p["step"] for p in answer["metrics"]] == list(range(BATCHES * POINTS))
        finally:
            late.stop()
        print(f"killed at {[(o['events'], o['total']) for o in told]}; ready {ready_s:.1f} s later")


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    """A file system of DISK_MB at a path; yields the name of a file that may fill it."""
    at.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(at)], check=True)
    try:
        yield at / "ballast"
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def fill_up(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise


def searched(one: Replica) -> tuple[int, Any]:
    """Status and answer of a question that needs the projections."""
    status, _, answer = one.post("runs/search", {"experiment_ids": ["0"], "max_results": 5})
    return status, answer


def test_the_disk_of_a_replica_is_full(home: Home, team: StartTeam, tmp_path: Path) -> None:
    with small_disk(tmp_path / "replica-0") as ballast, team(home, 2) as replicas:
        full, well = replicas
        with writing([full.url]) as load:
            load.await_acknowledged(WRITES, MENDED_WITHIN_S)
            fill_up(ballast)
            brokers.awaited(lambda: searched(full)[0] == 503, "reads go on", MENDED_WITHIN_S)
            load.await_acknowledged(WRITES, MENDED_WITHIN_S)
            status, answer = searched(full)
            assert status == 503, answer
            assert answer["error_code"] == "TEMPORARILY_UNAVAILABLE"
            assert full.get("/readyz")[0] == 503, "what it cannot answer goes to another replica"
            assert full.get("/api/v1/health")[0] == 503
            assert searched(well)[0] == 200
            ballast.unlink()
            freed_s = time.monotonic()
            brokers.awaited(lambda: searched(full)[0] == 200, "reads stay out", MENDED_WITHIN_S)
            mended_s = time.monotonic() - freed_s
            load.await_acknowledged(WRITES, MENDED_WITHIN_S)
        assert load.refusals == [], "the log goes on whatever the disk of a replica does"
        assert full.get("/readyz")[0] == 200
        entries = list(folded(records(home.bootstrap, home.prefix)))
        counts = [check_counted(load, entries, one.url) for one in replicas]
        digests(replicas)
        print(f"{counts[0]}; read again {mended_s:.1f} s after there was room")
