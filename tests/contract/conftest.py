"""The implementations that each contract suite runs on, one factory for each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from harness.brokers import fresh_prefix, kafka_bootstrap, set_topic_config
from harness.memory_log import MemoryLog, Stored
from muniment_services.log.base import EventLog, topics
from muniment_services.log.embedded import EmbeddedLog
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers
from muniment_services.log.kafka_topics import MESSAGE_BYTES_MAX


class LogHome(Protocol):
    """Where one log is kept. Every `open` gives a fresh instance over what is stored there."""

    def open(self) -> EventLog:
        """A log that is not started yet. At most one is open at a time."""

    def break_writes(self) -> None:
        """From now on the storage takes nothing."""

    def mend_writes(self) -> None:
        """The storage works again. Harmless when it does."""


class MemoryHome:
    """A dict that outlives the log over it."""

    def __init__(self) -> None:
        self._stored: Stored = {}
        self._log = MemoryLog(stored=self._stored)

    def open(self) -> EventLog:
        self._log = MemoryLog(stored=self._stored)
        return self._log

    def break_writes(self) -> None:
        self._log.fail_next(1_000_000)

    def mend_writes(self) -> None:
        self._log.fail_next(0)


class EmbeddedHome:
    """A SQLite file; a foreign connection that holds its write lock is what breaks it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "data" / "log.sqlite"
        self._foreign: sqlite3.Connection | None = None

    def open(self) -> EventLog:
        return EmbeddedLog(self._path)

    def break_writes(self) -> None:
        self._foreign = sqlite3.connect(self._path, isolation_level=None)
        self._foreign.execute("BEGIN IMMEDIATE")

    def mend_writes(self) -> None:
        if self._foreign is not None:
            self._foreign.close()
            self._foreign = None


class KafkaHome:
    """Topics of their own on a real broker; it takes nothing while records may have no bytes."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._prefix = fresh_prefix()
        self._broken = False

    def open(self) -> EventLog:
        return KafkaLog(Brokers((self._bootstrap,)), prefix=self._prefix)

    def break_writes(self) -> None:
        self._broken = True
        self._allow_bytes("1")

    def mend_writes(self) -> None:
        if self._broken:
            self._broken = False
            self._allow_bytes(str(MESSAGE_BYTES_MAX))

    def _allow_bytes(self, count: str) -> None:
        for topic in topics():
            set_topic_config(self._bootstrap, f"{self._prefix}.{topic}", "max.message.bytes", count)


def memory_home(folder: Path, _: pytest.FixtureRequest) -> LogHome:
    return MemoryHome()


def embedded_home(folder: Path, _: pytest.FixtureRequest) -> LogHome:
    return EmbeddedHome(folder)


def kafka_home(_: Path, request: pytest.FixtureRequest) -> LogHome:
    return KafkaHome(request.getfixturevalue("kafka"))


LOG_HOMES = [
    pytest.param(memory_home, id="memory"),
    pytest.param(embedded_home, id="embedded"),
    pytest.param(kafka_home, id="kafka", marks=pytest.mark.slow),
]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real broker."""
    with kafka_bootstrap(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="module", params=LOG_HOMES)
def new_home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], LogHome]:
    """Makes as many empty homes as a test asks for."""
    make: Callable[[Path, pytest.FixtureRequest], LogHome] = request.param
    return lambda: make(tmp_path_factory.mktemp("log"), request)


@pytest.fixture
def home(new_home: Callable[[], LogHome]) -> Iterator[LogHome]:
    """One empty home, mended at the end."""
    made = new_home()
    yield made
    made.mend_writes()
