"""Everything is restarted, one after the other, while MLflow's client trains behind a balancer.

No call may fail that the client's own retries do not cover, and nothing that it logged is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient

from harness.balancer import balanced
from harness.kafka_home import Home, StartTeam
from harness.replicas import digests
from harness.training import STEPS, Jobs

pytestmark = pytest.mark.slow

WARM_S = 3.0
DRAIN_S = "1"


@contextmanager
def training(uri: str, names: list[str]) -> Iterator[Jobs]:
    """Jobs at work; none is left at the end."""
    jobs = Jobs(uri, names)
    try:
        yield jobs
    finally:
        jobs.kill()


def test_everything_is_restarted_while_clients_train(home: Home, team: StartTeam) -> None:
    with (
        team(home, 2, drain_s=DRAIN_S) as replicas,
        balanced([one.url for one in replicas]) as balancer,
        training(balancer.url, ["a", "b"]) as jobs,
    ):
        began = time.monotonic()
        time.sleep(WARM_S)
        for one in replicas:
            assert one.stop() == 0
            one.start()
        for node, broker in home.cluster.brokers.items():
            broker.stop()
            home.cluster.restart(node)
            home.await_whole()
        restarted_s = time.monotonic() - began
        results = jobs.finished()
        client = MlflowClient(replicas[0].url)
        for result in results:
            found = client.search_runs([result["experiment_id"]], max_results=5_000)
            # A creation that the client sent twice makes two runs, as with MLflow's own server.
            assert {run.info.run_id for run in found} >= set(result["runs"])
            for run_id in result["runs"]:
                history = client.get_metric_history(run_id, "loss")
                assert [(p.step, p.value) for p in history] == [(s, s / 7) for s in range(STEPS)]
        digests(replicas)
        print(
            f"restarted in {restarted_s:.0f} s; "
            f"{[(len(r['runs']), r['calls'], round(r['slowest_s'], 1)) for r in results]} runs, "
            f"calls, slowest call in s; {dict(balancer.counts)}"
        )
