"""A topic is deleted under running replicas: they say so, and answer nothing that is not so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kafka.admin import NewTopic

from harness import brokers
from harness.kafka_home import Home, StartTeam
from harness.ledger import decoded, logged_points, records
from harness.points import Load, writing
from harness.replicas import Replica
from harness.server import ServerFailed
from muniment_services.log.base import RUNS

pytestmark = pytest.mark.slow

NOTICED_WITHIN_S = 40.0
WRITES = 150
PARTITIONS = 6
CALL_S = 30.0
DELETED_WITHIN_S = 3.0


def lose(home: Home) -> None:
    """Delete the runs topic."""
    brokers.delete_topic(home.bootstrap, f"{home.prefix}.runs")


def lose_and_recreate(home: Home) -> None:
    """Delete the runs topic, and make an empty one in its place."""
    lose(home)
    settings = {"retention.ms": "-1", "retention.bytes": "-1", "min.insync.replicas": "2"}
    settings |= {"max.message.bytes": "26214400", "unclean.leader.election.enable": "false"}
    topic = NewTopic(f"{home.prefix}.runs", PARTITIONS, 3, topic_configs=settings)
    with brokers.admin(home.bootstrap) as client:
        client.create_topics([topic])


def is_there(home: Home) -> bool:
    """Whether the brokers know the runs topic."""
    with brokers.admin(home.bootstrap) as client:
        return f"{home.prefix}.runs" in client.list_topics()


def status_of(call: Callable[..., Any], *arguments: Any) -> int:
    """The status of an answer."""
    status: int = call(*arguments)[0]
    return status


def check_loud(one: Replica, run_id: str) -> None:
    """Health is red, probes turn traffic away, nothing is written and nothing old is told."""
    assert status_of(one.get, "/readyz") == 503
    status, _, told = one.get("/api/v1/health")
    assert (status, told["status"]) == (503, "red"), told
    metric = {"run_id": run_id, "key": "late", "value": 1.0, "timestamp": 1, "step": 0}
    for path, body in (
        ("runs/log-metric", metric),
        ("runs/create", {"experiment_id": "0", "start_time": 1}),
        ("experiments/create", {"name": f"late-{one.name}"}),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 5}),
    ):
        status, headers, answer = one.post(path, body, CALL_S)
        assert status == 503, f"{path}: {status} {answer}"
        assert int(headers["Retry-After"]) >= 1
    assert status_of(one.get, f"/api/2.0/mlflow/runs/get?run_id={run_id}") == 503
    assert status_of(one.get, "/api/2.0/mlflow/experiments/get?experiment_id=0") == 503


@pytest.mark.parametrize("harm", [lose, lose_and_recreate])
def test_a_topic_goes_while_clients_write(
    harm: Callable[[Home], None], home: Home, team: StartTeam
) -> None:
    with team(home, 2) as replicas:
        with writing([one.url for one in replicas], name="before") as load:
            load.await_acknowledged(WRITES, NOTICED_WITHIN_S)
        run_id = load.runs[0]
        with writing([one.url for one in replicas], name="during", writers=3) as late:
            late.await_acknowledged(10, NOTICED_WITHIN_S)
            harm(home)
            gone_s = time.monotonic()
            for one in replicas:
                brokers.awaited(
                    lambda one=one: status_of(one.get, "/readyz") == 503,  # type: ignore[misc]
                    f"{one.name} has not noticed",
                    NOTICED_WITHIN_S,
                )
            noticed_s = time.monotonic() - gone_s
            time.sleep(2.0)
        check_no_lies(home, late, gone_s, noticed_s)
        for one in replicas:
            check_loud(one, run_id)
        print(f"noticed after {noticed_s:.1f} s; {len(late.refusals)} writes refused")
        check_a_new_start_is_refused(replicas[0])


def check_no_lies(home: Home, late: Load, gone_s: float, noticed_s: float) -> None:
    """Nothing is acknowledged once the loss is known, and nothing in between that is not kept."""
    assert not late.acknowledged_since(gone_s + noticed_s)
    between = late.acknowledged_since(gone_s)
    if between and not is_there(home):
        # A broker may still take what reached it while it was being told of the deletion.
        assert not late.acknowledged_since(gone_s + DELETED_WITHIN_S)
    elif between:
        kept, _ = logged_points(decoded(records(home.bootstrap, home.prefix, [RUNS])))
        assert not between - kept.keys(), "a write was acknowledged by a topic that was gone"


def check_a_new_start_is_refused(one: Replica) -> None:
    """What is projected came from events that are gone: no start may serve what is left."""
    one.stop()
    with pytest.raises(ServerFailed, match=r"lost|another log"):
        one.start(ready_within_s=NOTICED_WITHIN_S)
