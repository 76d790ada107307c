"""Real Kafka brokers for tests: given, in a container, or from jars; never anything else.

Where they come from, first that applies: the environment (MUNIMENT_TEST_KAFKA names bootstrap
servers), a container engine (testcontainers), the jars that `deploy/scripts/kafka` fetches. What is
not there is an error, in a person's checkout and in continuous integration alike.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, UnknownTopicOrPartitionError
from local_kafka import Cluster

VARIABLE = "MUNIMENT_TEST_KAFKA"
WITHIN_S = 60.0
POLL_S = 0.2

T = TypeVar("T")


@contextmanager
def kafka_bootstrap(folder: Path) -> Iterator[str]:
    """Bootstrap servers of a cluster that stays whole; for tests that break none."""
    given = os.environ.get(VARIABLE)
    if given:
        yield given
    elif _has_container_engine():
        from testcontainers.community.kafka import KafkaContainer

        with KafkaContainer() as container:
            yield container.get_bootstrap_server()
    else:
        with cluster(folder) as started:
            yield started.bootstrap


@contextmanager
def cluster(folder: Path, brokers: int = 1, **options: Any) -> Iterator[Cluster]:
    """A cluster of the test's own, ready to be used; it may be broken. options: of Cluster."""
    made = Cluster(folder, brokers, **options)
    made.start()
    try:
        await_brokers(made.bootstrap, brokers)
        yield made
    finally:
        made.stop(at_once=True)


def _has_container_engine() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=2).ping()
    except DockerException:
        return False
    return True


def fresh_prefix() -> str:
    """A prefix of topics that nobody else uses."""
    return f"t{secrets.token_hex(6)}"


@contextmanager
def admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    """An admin client of a cluster without authentication."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), request_timeout_ms=10_000)
    try:
        yield client
    finally:
        client.close()


def set_topic_config(bootstrap: str, topic: str, name: str, value: str) -> None:
    """Change one setting of a topic."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
    with admin(bootstrap) as client:
        client.alter_configs([resource], incremental=True)


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic and wait until it is gone."""
    with admin(bootstrap) as client:
        client.delete_topics([topic])
        awaited(lambda: topic not in client.list_topics(), f"{topic} is still there")


def await_brokers(bootstrap: str, count: int) -> None:
    """Wait until so many brokers are members of the cluster."""

    def members() -> bool:
        with suppress(KafkaError), admin(bootstrap) as client:
            return len(client.describe_cluster()["brokers"]) >= count
        return False

    awaited(members, f"there are not {count} brokers")


def leader_of(bootstrap: str, topic: str, partition: int) -> int:
    """The node that leads a partition now; -1 when none does."""
    return int(_partition(bootstrap, topic, partition)["leader_id"])


def await_isr(bootstrap: str, topic: str, size: int) -> None:
    """Wait until every partition of a topic has so many replicas in sync."""

    def in_sync() -> bool:
        with suppress(KafkaError, KeyError), admin(bootstrap) as client:
            (found,) = client.describe_topics([topic])
            return all(len(p["isr_nodes"]) >= size for p in found["partitions"])
        return False

    awaited(in_sync, f"{topic} has not {size} replicas in sync")


def _partition(bootstrap: str, topic: str, partition: int) -> dict[str, Any]:
    with admin(bootstrap) as client:
        (found,) = client.describe_topics([topic])
    if found["error_code"]:
        raise UnknownTopicOrPartitionError(topic)
    return next(p for p in found["partitions"] if p["partition_index"] == partition)


def awaited(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Wait until a condition holds. Raises TimeoutError, which says what did not."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} after {within_s:g} s")
        time.sleep(POLL_S)
