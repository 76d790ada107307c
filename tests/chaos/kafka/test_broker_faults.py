"""Brokers die, freeze and come back under load: nothing acknowledged is lost, stalls are bounded.

Every test writes points that can be found again, breaks something, mends it, and compares what was
acknowledged with what the log holds and with what a replica answers.
"""

from __future__ import annotations

import time

import pytest

from harness.kafka_home import Home, StartTeam
from harness.ledger import folded, records
from harness.points import Load, check_counted, writing
from harness.replicas import Replica, digests

pytestmark = pytest.mark.slow

WARM_WRITES = 300
FAILOVER_S_MAX = 15.0
"""Between two acknowledgements while a leader is replaced: the brokers' session time-out (3 s), and
what it takes everyone to hear of it."""
RECOVERED_WITHIN_S = 30.0
REFUSED_WITHIN_S = 27.0
"""A write that cannot be taken is refused by then: the fold's WRITE_S_MAX, and a turn of its watch,
which asks the log meanwhile (LOOK_UP_S_MAX)."""
READ_WITHIN_S = 10.0
OUTAGE_S = 6.0
PAST_DELIVERY_S = 14.0
"""Longer than a record may take to be acknowledged: the producer's APPEND_S_MAX, and its watch."""


def check_after(load: Load, home: Home, replicas: list[Replica]) -> None:
    """What was acknowledged is there once, in the log and on every replica, and all agree."""
    entries = list(folded(records(home.bootstrap, home.prefix)))
    for one in replicas:
        counts = check_counted(load, entries, one.url)
    digests(replicas)
    print(f"{counts}; longest stall {load.longest_stall_s():.1f} s")


def check_refusals(load: Load) -> None:
    """Who was refused was told soon, and when to come again; nobody got an error of ours."""
    for refusal in load.refusals:
        assert refusal.took_s < REFUSED_WITHIN_S, refusal
        assert refusal.status in (0, 429, 503), refusal
        assert refusal.status == 0 or int(refusal.retry_after or 0) >= 1, refusal


def test_the_leader_is_killed_under_load(home: Home, team: StartTeam) -> None:
    with team(home, 2) as replicas:
        with writing([one.url for one in replicas]) as load:
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
            leader = home.leader("runs")
            home.cluster.brokers[leader].kill()
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
            home.cluster.restart(leader)
            home.await_whole()
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
        assert load.longest_stall_s() < FAILOVER_S_MAX
        check_refusals(load)
        check_after(load, home, replicas)


def check_stale(one: Replica) -> None:
    """What is folded is answered, at once and marked: from memory and from the projections."""
    began = time.monotonic()
    status, headers, answer = one.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert status == 200, answer
    assert answer["experiment"]["name"] == "Default"
    assert headers["Muniment-Stale"].startswith("as_of=20")
    search = {"experiment_ids": ["0"], "max_results": 5}
    status, headers, answer = one.post("runs/search", search)
    assert status == 200, answer
    assert len(answer["runs"]) == 5
    assert "Muniment-Stale" in headers
    assert time.monotonic() - began < READ_WITHIN_S


def check_refused(one: Replica) -> None:
    """What cannot be recorded is not answered, and nothing of it is told."""
    began = time.monotonic()
    status, headers, answer = one.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert (status, "experiment" in answer) == (503, False)
    assert int(headers["Retry-After"]) >= 1
    assert time.monotonic() - began < READ_WITHIN_S


def test_two_of_three_brokers_are_down(home: Home, team: StartTeam) -> None:
    with team(home, 2, environments=[{"MUNIMENT_AUDIT_MODE": "degraded"}, {}]) as replicas:
        degraded, strict = replicas
        with writing([one.url for one in replicas]) as load:
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
            down = [node for node in home.cluster.brokers if node != home.leader("catalog")][:1]
            down.append(home.leader("catalog"))
            for node in down:
                home.cluster.brokers[node].kill()
            time.sleep(PAST_DELIVERY_S)
            before = len(load.answered_s)
            check_stale(degraded)
            check_refused(strict)
            for one in replicas:
                began = time.monotonic()
                status, headers, _ = one.post("experiments/create", {"name": "refused"}, 30)
                assert (status, time.monotonic() - began < REFUSED_WITHIN_S) == (503, True)
                assert int(headers["Retry-After"]) >= 1
                assert one.get("/readyz")[0] == 200, "it can answer what it knows"
            assert len(load.answered_s) == before, "a write was acknowledged by one broker alone"
            for node in down:
                home.cluster.brokers[node].begin()
            for node in down:
                home.cluster.await_listening(node)
            recovered_s = load.await_acknowledged(1, RECOVERED_WITHIN_S)
            print(f"the first write was taken {recovered_s:.1f} s after the brokers were back")
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
        check_refusals(load)
        assert any(refusal.status == 503 for refusal in load.refusals)
        for one in replicas:
            _, headers, _ = one.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
            assert "Muniment-Stale" not in headers
        check_after(load, home, replicas)


def test_a_broker_is_frozen_and_thawed(home: Home, team: StartTeam) -> None:
    with team(home, 2) as replicas:
        with writing([one.url for one in replicas]) as load:
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
            frozen = home.cluster.brokers[home.leader("runs")]
            frozen.freeze()
            time.sleep(OUTAGE_S)
            frozen.thaw()
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
        assert load.longest_stall_s() < FAILOVER_S_MAX
        check_refusals(load)
        home.await_whole()
        check_after(load, home, replicas)


def test_the_producer_does_not_wedge(lone_home: Home, team: StartTeam) -> None:
    """A broker freezes with batches in flight, is killed, and comes back after they expired.

    An idempotent producer of kafka-python never sends again after that; the server has to.
    """
    with team(lone_home, 1) as replicas:
        with writing([one.url for one in replicas]) as load:
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
            broker = lone_home.cluster.brokers[1]
            broker.freeze()
            time.sleep(1.0)
            broker.kill()
            time.sleep(PAST_DELIVERY_S)
            lone_home.cluster.restart(1)
            recovered_s = load.await_acknowledged(1, RECOVERED_WITHIN_S)
            print(f"the first write was taken {recovered_s:.1f} s after the broker was back")
            load.await_acknowledged(WARM_WRITES, RECOVERED_WITHIN_S)
        check_refusals(load)
        assert any(refusal.status == 503 for refusal in load.refusals)
        check_after(load, lone_home, replicas)
