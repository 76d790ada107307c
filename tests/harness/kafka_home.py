"""A cluster of brokers that a test breaks and mends, and the topics on it that are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from local_kafka import Cluster

from harness import brokers
from harness.replicas import Replica

StartTeam = Callable[..., AbstractContextManager[list[Replica]]]
"""team(home, count, environments=…, **settings): so many replicas on this test's topics."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a test's log is: the cluster, and what its topics' names begin with."""

    cluster: Cluster
    prefix: str

    @property
    def bootstrap(self) -> str:
        """Bootstrap servers."""
        return self.cluster.bootstrap

    @property
    def settings(self) -> Mapping[str, str]:
        """What a replica needs to know to keep its log here."""
        return {"log": "kafka", "kafka_bootstrap": self.bootstrap, "kafka_prefix": self.prefix}

    def leader(self, topic: str = "catalog", partition: int = 0) -> int:
        """The node that leads a partition of this test's topics."""
        return brokers.leader_of(self.bootstrap, f"{self.prefix}.{topic}", partition)

    def await_whole(self) -> None:
        """Wait until all replicas of the catalog and the runs are in sync."""
        for topic in ("catalog", "runs"):
            brokers.await_isr(self.bootstrap, f"{self.prefix}.{topic}", len(self.cluster.brokers))


def heal(cluster: Cluster) -> None:
    """Thaw and start whatever a test left frozen or dead, and wait until all are members."""
    for node, broker in cluster.brokers.items():
        if broker.is_running:
            broker.thaw()
        else:
            cluster.restart(node)
    brokers.await_brokers(cluster.bootstrap, len(cluster.brokers))
