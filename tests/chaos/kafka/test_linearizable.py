"""Clients race on replicas while brokers and replicas are killed: one history, one winner each.

What clients were told is checked for linearizability, what the log holds against what was
acknowledged, and at the end all replicas hold the same, table by table.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from harness.histories import check_all
from harness.kafka_home import Home, StartTeam
from harness.ledger import check_writes, folded, records
from harness.race import Race
from harness.replicas import Replica, digests, stuttering

OPERATIONS = 20_000
OPERATIONS_QUICK = 1_000
RACED_WITHIN_S = 240.0
FAULTS = ("replica", "broker", "frozen broker", "replica", "broker", "replica", "leader")
STRICT = {"stale_reads": "false"}
"""Reads say that they are stale, or are new; here they have to be new."""


def check_race(race: Race, home: Home, replicas: Sequence[Replica]) -> None:
    """What the clients saw, what the log holds and what replicas hold fit together."""
    assert race.failures == []
    began = time.monotonic()
    objects = check_all(race.arena.models(), race.history)
    checked_s = time.monotonic() - began
    counts = check_writes(race.sent, folded(records(home.bootstrap, home.prefix)))
    tables = digests(replicas)["tables"]
    assert tables["registered_models"]["rows"] > 0
    print(
        f"{race.known} operations on {objects} objects, checked in {checked_s:.1f} s; "
        f"{dict(race.outcomes)}; longest silence {race.longest_silence_s():.1f} s; {dict(counts)}"
    )


@pytest.mark.slow
def test_two_replicas_on_one_broker(lone_home: Home, team: StartTeam) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with team(lone_home, 2, **STRICT) as replicas:
        race = Race([one.url for one in replicas], seed)
        race.start()
        with stuttering(replicas, random.Random(seed)):
            race.await_known(OPERATIONS_QUICK, RACED_WITHIN_S)
        race.stop()
        check_race(race, lone_home, replicas)


def inflict(fault: str, home: Home, replicas: Sequence[Replica], chance: random.Random) -> None:
    """One fault, and its end."""
    cluster = home.cluster
    if fault == "replica":
        victim = chance.choice(replicas)
        victim.kill()
        time.sleep(chance.uniform(0, 0.5))
        victim.start()
        return
    node = home.leader() if fault == "leader" else chance.choice(list(cluster.brokers))
    if fault == "frozen broker":
        cluster.brokers[node].freeze()
        time.sleep(chance.uniform(1, 5))
        cluster.brokers[node].thaw()
        return
    cluster.brokers[node].kill()
    time.sleep(chance.uniform(0.5, 3))
    cluster.restart(node)
    home.await_whole()


@pytest.mark.slow
def test_three_replicas_on_three_brokers_that_are_killed(home: Home, team: StartTeam) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with team(home, 3, **STRICT) as replicas:
        race = Race([one.url for one in replicas], seed)
        race.start()
        with stuttering(replicas, random.Random(seed)):
            for number, fault in enumerate(FAULTS, 1):
                race.await_known(OPERATIONS * number // (len(FAULTS) + 1), RACED_WITHIN_S)
                before, began = race.known, time.monotonic()
                inflict(fault, home, replicas, chance)
                took_s = time.monotonic() - began
                print(f"{fault}: {took_s:.1f} s, {race.known - before} operations meanwhile")
            race.await_known(OPERATIONS, RACED_WITHIN_S)
        race.stop()
        check_race(race, home, replicas)
