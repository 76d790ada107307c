"""The network between one replica and all brokers is cut, in both directions or in one.

The other replica goes on as if nothing were; the lonely one refuses writes and marks what it
answers as stale. When only replies are lost, brokers take writes that nobody is told of: those may
be in the log, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.brokers import fresh_prefix
from harness.kafka_home import Home, StartTeam
from harness.ledger import folded, records
from harness.partition import Network, cluster_behind_a_network
from harness.points import check_counted, writing
from harness.replicas import digests

pytestmark = pytest.mark.slow

WRITES = 200
WITHIN_S = 30.0
CUT_S = 14.0
"""Longer than a record may take to be acknowledged."""
UNAFFECTED_S_MAX = 5.0


class Directions(NamedTuple):
    """What a cut holds back."""

    requests: bool
    replies: bool


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three brokers, reached directly and through a network that can be cut."""
    with cluster_behind_a_network(tmp_path_factory.mktemp("kafka"), 3) as started:
        yield started


@pytest.mark.parametrize(
    "directions",
    [
        pytest.param(Directions(requests=True, replies=True), id="both"),
        pytest.param(Directions(requests=False, replies=True), id="replies"),
    ],
)
def test_a_replica_is_cut_off(
    directions: Directions, network: Network, team: StartTeam, tmp_path: Path
) -> None:
    home = Home(network.cluster, fresh_prefix())
    behind = {
        "MUNIMENT_KAFKA_BOOTSTRAP": network.bootstrap,
        "MUNIMENT_AUDIT_MODE": "degraded",  # Reads that cannot be recorded are answered.
    }
    with team(home, 2, environments=[behind, {}]) as (lonely, other):
        with (
            writing([lonely.url], 4, name="lonely") as cut_off,
            writing([other.url], 2, pause_s=0.01, name="other") as beside,
        ):
            cut_off.await_acknowledged(WRITES, WITHIN_S)
            beside.await_acknowledged(WRITES, WITHIN_S)
            network.cut(requests=directions.requests, replies=directions.replies)
            cut_s = time.monotonic()
            time.sleep(CUT_S)
            status, headers, answer = lonely.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
            assert status == 200, answer
            assert "Muniment-Stale" in headers
            status, headers, _ = other.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
            assert (status, "Muniment-Stale" in headers) == (200, False)
            assert not cut_off.acknowledged_since(cut_s + 1.0)
            network.mend()
            mended_s = cut_off.await_acknowledged(1, WITHIN_S)
            cut_off.await_acknowledged(WRITES, WITHIN_S)
        assert beside.longest_stall_s() < UNAFFECTED_S_MAX
        assert beside.refusals == []
        assert any(refusal.status == 503 for refusal in cut_off.refusals)
        entries = list(folded(records(home.bootstrap, home.prefix)))
        both = cut_off.joined(beside)
        counts = [check_counted(both, entries, one.url) for one in (lonely, other)]
        digests([lonely, other])
        unheard = counts[0]["logged"] - counts[0]["acknowledged"]
        print(
            f"{counts[0]}; {unheard} points logged and not acknowledged; back in {mended_s:.1f} s"
        )
