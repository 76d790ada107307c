"""What a page costs at the start and at the end of a long list.

    python tests/bench/paging.py                 100,000 runs, pages of 1,000
    python tests/bench/paging.py --runs 20000

Fills a server of this checkout through its API, pages through everything, in the default order and
by a metric, and prints the median of the first and of the last ten pages and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import load
from bench.against_mlflow import API, Api
from harness.server import running_muniment

CONNECTIONS = 16
PAGE_RUNS = 1000
EDGE_PAGES = 10


def fill(url: str, runs: int) -> str:
    """An experiment of runs with one metric each, made over several connections."""
    api = Api(url)
    experiment_id = api.experiment("paging")
    creates = [
        load.post(
            url,
            API + "runs/create",
            json.dumps(
                {
                    "experiment_id": experiment_id,
                    "start_time": 10**12 + i,
                    "tags": [{"key": "team", "value": f"t{i % 7}"}],
                }
            ).encode(),
        )
        for i in range(runs)
    ]
    load.run(url, [creates[i::CONNECTIONS] for i in range(CONNECTIONS)])
    logs = [
        load.post(
            url,
            API + "runs/log-metric",
            json.dumps(
                {"run_id": run_id, "key": "m", "value": (i * 7919) % runs, "timestamp": 1}
            ).encode(),
        )
        for i, run_id in enumerate(_ids(api, experiment_id))
    ]
    load.run(url, [logs[i::CONNECTIONS] for i in range(CONNECTIONS)])
    return experiment_id


def _ids(api: Api, experiment_id: str) -> list[str]:
    ids: list[str] = []
    for found, _ in pages(api, {"experiment_ids": [experiment_id], "max_results": 10_000}):
        ids += found
    return ids


def pages(api: Api, search: dict[str, object]) -> list[tuple[list[str], float]]:
    """The run ids of every page, and the seconds that it took."""
    answered = []
    token: dict[str, object] = {}
    while True:
        started = time.perf_counter()
        found: dict[str, list[dict[str, dict[str, str]]]] = api.post(  # type: ignore[assignment]
            "runs/search", search | token
        )
        elapsed = time.perf_counter() - started
        answered.append(([run["info"]["run_id"] for run in found.get("runs", [])], elapsed))
        if "next_page_token" not in found:
            return answered
        token = {"page_token": found["next_page_token"]}


def main() -> None:
    """Fill, page, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000, help="runs to page through (100000)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="muniment-bench-"))
    with running_muniment(folder / "data") as server:
        started = time.perf_counter()
        experiment_id = fill(server.url, options.runs)
        print(f"{options.runs} runs made in {time.perf_counter() - started:.0f} s")
        for name, order in (("newest first", []), ("by a metric", ["metrics.m DESC"])):
            search = {
                "experiment_ids": [experiment_id],
                "max_results": PAGE_RUNS,
                "order_by": order,
            }
            answered = pages(Api(server.url), search)
            ids = [run_id for found, _ in answered for run_id in found]
            assert len(ids) == len(set(ids)) == options.runs, "a run was skipped or repeated"
            times = [elapsed for found, elapsed in answered if len(found) == PAGE_RUNS]
            first, last = (statistics.median(t) for t in (times[:EDGE_PAGES], times[-EDGE_PAGES:]))
            print(
                f"{name}: {len(answered)} pages of {PAGE_RUNS}; first ten {first * 1000:.0f} ms, "
                f"last ten {last * 1000:.0f} ms, last/first {last / first:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
