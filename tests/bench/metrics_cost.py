"""What counting costs: a request, a folded event, and a scrape of a server with many routes.

    python tests/bench/metrics_cost.py                  200,000 rounds each
    python tests/bench/metrics_cost.py --rounds 50000

Counts in a loop, without a server, and prints microseconds each; ends with 1 when a request costs
REQUEST_US_MAX or more. The scrape is of every route at three statuses, text included.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest

from muniment_projections.base import Folded
from muniment_services.api.app import ROUTES
from muniment_services.metrics import Metrics

REQUEST_US_MAX = 5.0
REPEATS = 5
BATCH = 100


def best_us(work: Callable[[int], None], rounds: int) -> float:
    """Microseconds of a round, in the quickest of REPEATS repeats."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work(rounds)
        times.append(time.perf_counter() - began)
    return min(times) / rounds * 1e6


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200_000)
    rounds = parser.parse_args().rounds
    metrics = Metrics()
    for route in ROUTES:
        for status in (200, 404, 503):
            watched = metrics.began()
            watched.route, watched.status = route.path, status
            metrics.ended(watched, route.method)

    def requests(count: int) -> None:
        path = ROUTES[-1].path
        for _ in range(count):
            watched = metrics.began()
            watched.route = path
            watched.status = 200
            metrics.ended(watched, "POST")

    def events(count: int) -> None:
        item = Folded("runs", 0, 0, None, None, None)  # type: ignore[arg-type]
        batch = [item] * BATCH
        for number in range(count // BATCH):
            metrics.folded(batch, number, (number - 10) * BATCH)

    def scrapes(count: int) -> None:
        for _ in range(count):
            registry = CollectorRegistry(auto_describe=False)
            registry.register(metrics)
            generate_latest(registry)

    request_us = best_us(requests, rounds)
    print(f"request        {request_us:8.2f} µs")
    print(f"folded event   {best_us(events, rounds):8.2f} µs, in batches of {BATCH}")
    print(f"scrape         {best_us(scrapes, 5) / 1000:8.1f} ms, {len(ROUTES)} routes all in use")
    if request_us >= REQUEST_US_MAX:
        print(f"a request costs {REQUEST_US_MAX:g} µs or more", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
