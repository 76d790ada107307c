"""muniment against MLflow's own server, on one machine, interleaved, ratios printed.

    python tests/bench/against_mlflow.py               all of it (10 minutes: MLflow is filled)
    python tests/bench/against_mlflow.py --runs 1000   a smaller search

Both servers run with their defaults (muniment: embedded log, each write fsynced; MLflow: SQLite,
one worker), on loopback, one at a time under load. Writes go over kept-alive connections from the
same generator. A round measures one server and then the other; the ratio of each round is what
counts, since the machine's speed drifts. Machine, versions and command belong to every figure that
is quoted.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import load
from harness.server import running_muniment, running_upstream

API = "/api/2.0/mlflow/"
CONNECTIONS = 16
BATCH_POINTS = 1000
PARAMS = 10
METRICS = 5

SEARCHES: Mapping[str, Mapping[str, object]] = {
    "first page, newest first": {},
    "filter on metric and param": {"filter": "metrics.m1 < 0.2 and params.p1 = '3'"},
    "sorted by a metric": {"order_by": ["metrics.m2 ASC"]},
    "tag LIKE, sorted by a param": {
        "filter": "tags.team LIKE 'a%'",
        "order_by": ["params.p2 DESC"],
    },
}


class Api:
    """A few calls of MLflow's REST API over one connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)

    def post(self, path: str, body: object) -> dict[str, object]:
        """The JSON answer; anything but 200 stops the benchmark."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", API + path, json.dumps(body), headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {content[:300]!r}")
        answer: dict[str, object] = json.loads(content)
        return answer

    def experiment(self, name: str) -> str:
        """A new experiment's id."""
        return str(self.post("experiments/create", {"name": name})["experiment_id"])

    def run(self, experiment_id: str, start_time: int) -> str:
        """A new run's id."""
        body = {"experiment_id": experiment_id, "start_time": start_time}
        answer: dict[str, dict[str, dict[str, str]]] = self.post("runs/create", body)  # type: ignore[assignment]
        return answer["run"]["info"]["run_id"]


def log_metric(url: str, calls: int, connections: int) -> float:
    """Acknowledged log-metric calls a second."""
    api = Api(url)
    experiment_id = api.experiment(f"log-metric-{time.time_ns()}")
    runs = [api.run(experiment_id, 1) for _ in range(connections)]
    requests = [
        [
            load.post(url, API + "runs/log-metric", json.dumps(_metric(run, i)).encode())
            for i in range(calls // connections)
        ]
        for run in runs
    ]
    return load.run(url, requests).per_second


def _metric(run_id: str, i: int) -> dict[str, object]:
    return {"run_id": run_id, "key": "loss", "value": i / 7, "timestamp": 10**12 + i, "step": i}


def log_batch(url: str, calls: int, connections: int) -> float:
    """Acknowledged points a second, logged in batches of BATCH_POINTS."""
    api = Api(url)
    experiment_id = api.experiment(f"log-batch-{time.time_ns()}")
    runs = [api.run(experiment_id, 1) for _ in range(connections)]
    requests = [
        [
            load.post(url, API + "runs/log-batch", json.dumps(_batch(run, i)).encode())
            for i in range(max(1, calls // connections))
        ]
        for run in runs
    ]
    return load.run(url, requests).per_second * BATCH_POINTS


def _batch(run_id: str, i: int) -> dict[str, object]:
    metrics = [
        {"key": f"m{j % 10}", "value": j / 3, "timestamp": 10**12 + i, "step": i * 100 + j // 10}
        for j in range(BATCH_POINTS)
    ]
    return {"run_id": run_id, "metrics": metrics}


def fill(url: str, runs: int) -> str:
    """An experiment of `runs` runs with PARAMS params, METRICS metrics and two tags each."""
    api = Api(url)
    chance = random.Random(7)
    experiment_id = api.experiment("search")
    for i in range(runs):
        run_id = api.run(experiment_id, 10**12 + i)
        api.post(
            "runs/log-batch",
            {
                "run_id": run_id,
                "params": [
                    {"key": f"p{k}", "value": str(chance.randrange(10))} for k in range(PARAMS)
                ],
                "metrics": [
                    {"key": f"m{k}", "value": chance.random(), "timestamp": 1, "step": 0}
                    for k in range(METRICS)
                ],
                "tags": [{"key": "team", "value": chance.choice(["ada", "bob", "ann"])}],
            },
        )
        if i % 500 == 499:
            print(f"  {url}: {i + 1} runs", file=sys.stderr, flush=True)
    return experiment_id


def search_seconds(url: str, experiment_id: str, search: Mapping[str, object]) -> float:
    """Time of one search for 100 runs."""
    api = Api(url)
    started = time.perf_counter()
    found = api.post(
        "runs/search", {"experiment_ids": [experiment_id], "max_results": 100, **search}
    )
    elapsed = time.perf_counter() - started
    assert found.get("runs"), "the search found nothing"
    return elapsed


def rounds(
    name: str,
    unit: str,
    measure: Sequence[Callable[[], float]],
    count: int,
    higher_is_better: bool = True,
) -> None:
    """Measure ours and theirs in turn, and print medians and the ratio's median and range."""
    ours, theirs = [], []
    for _ in range(count):
        ours.append(measure[0]())
        theirs.append(measure[1]())
    ratios = [a / b if higher_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
    print(
        f"{name:42} {statistics.median(ours):14,.4g} {statistics.median(theirs):14,.4g} {unit:9}"
        f" {statistics.median(ratios):8.1f}x  ({min(ratios):.1f} to {max(ratios):.1f})",
        flush=True,
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000, help="runs to search in (10000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement (3)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="muniment-bench-"))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'':42} {'muniment':>14} {'MLflow':>14} {'unit':9} {'ratio':>8}")
    with running_muniment(folder / "ours") as a, running_upstream(folder / "theirs") as b:
        for connections in (1, CONNECTIONS):
            rounds(
                f"log-metric, {connections} connections",
                "calls/s",
                [
                    partial(log_metric, a.url, 4000, connections),
                    partial(log_metric, b.url, 160, connections),
                ],
                options.rounds,
            )
        rounds(
            f"log-batch of {BATCH_POINTS} points, 4 connections",
            "points/s",
            [lambda: log_batch(a.url, 800, 4), lambda: log_batch(b.url, 24, 4)],
            options.rounds,
        )
        started = time.perf_counter()
        ours = fill(a.url, options.runs)
        filled_ours = time.perf_counter() - started
        theirs = fill(b.url, options.runs)
        filled_theirs = time.perf_counter() - started - filled_ours
        print(
            f"{f'create and fill {options.runs} runs, 1 connection':42} {filled_ours:14,.4g} "
            f"{filled_theirs:14,.4g} {'s':9} {filled_theirs / filled_ours:8.1f}x"
        )
        for name, search in SEARCHES.items():
            rounds(
                f"search {options.runs} runs: {name}",
                "s",
                [
                    partial(search_seconds, a.url, ours, search),
                    partial(search_seconds, b.url, theirs, search),
                ],
                max(5, options.rounds),
                higher_is_better=False,
            )


if __name__ == "__main__":
    main()
