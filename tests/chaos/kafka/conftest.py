"""A cluster of three brokers for the whole folder, whole again before each test, and replicas.

Each test has topics of its own on it. When a test fails, the end of what its replicas and brokers
printed is shown with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_kafka import Cluster

from harness import brokers
from harness.kafka_home import Home, StartTeam, heal
from harness.replicas import Replica, running_replicas

BROKERS = 3

_cluster = pytest.StashKey[Cluster]()
_team = pytest.StashKey[list[Replica]]()


@pytest.fixture(scope="session")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers."""
    with brokers.cluster(tmp_path_factory.mktemp("kafka"), BROKERS) as started:
        yield started


@pytest.fixture
def home(three_brokers: Cluster, request: pytest.FixtureRequest) -> Home:
    """The cluster of three, whole, and a prefix of this test's own."""
    heal(three_brokers)
    request.node.stash[_cluster] = three_brokers
    return Home(three_brokers, brokers.fresh_prefix())


@pytest.fixture
def lone_home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """One broker of the test's own."""
    with brokers.cluster(tmp_path / "kafka") as started:
        request.node.stash[_cluster] = started
        yield Home(started, brokers.fresh_prefix())


@pytest.fixture
def team(tmp_path: Path, request: pytest.FixtureRequest) -> StartTeam:
    """Starts replicas, and remembers them for the report of a failure."""

    @contextmanager
    def start(
        home: Home, count: int, *, environments: Sequence[Mapping[str, str]] = (), **settings: str
    ) -> Iterator[list[Replica]]:
        every = {**home.settings, **settings}
        with running_replicas(tmp_path, count, every, environments=environments) as replicas:
            request.node.stash[_team] = replicas
            yield replicas

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the logs of replicas and brokers to the report of a test that failed."""
    report = yield
    assert isinstance(report, pytest.TestReport)
    if report.failed:
        for replica in item.stash.get(_team, []):
            report.sections.append((f"log of {replica.name}", replica.log))
        if _cluster in item.stash:
            for node, broker in item.stash[_cluster].brokers.items():
                report.sections.append((f"log of broker {node}", broker.log[-2_000:]))
    return report
