"""When a follower fetches: what others wrote, and not what its own process has just told it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from muniment_schemas.ids import Offset
from muniment_services.log import kafka_follower
from muniment_services.log.base import CATALOG, Record, TopicPartition, topics
from muniment_services.log.kafka_follower import Follower
from muniment_services.log.kafka_reader import Consumers, Names

AT = TopicPartition(CATALOG, 0)
NAMES = Names("t", topics())
COME_S_MAX = 20.0
OWN = 200


def record(offset: int) -> Record:
    return Record(AT, Offset(offset), b"k", b"v", (), 1)


class Cluster:
    """In the place of Consumers and of the one consumer that is made: a log of one partition."""

    def __init__(self) -> None:
        self.names = NAMES
        self.log: list[Record] = []
        self.polls = 0
        self.polled = threading.Event()
        self._position = 0

    def make(self) -> Cluster:
        return self

    def assign(self, _: object) -> None:
        return

    def seek(self, _: object, offset: int) -> None:
        self._position = offset

    def position(self, *_: object) -> int:
        return self._position

    def poll(self, _: int) -> Mapping[Any, Sequence[Record]]:
        self.polls += 1
        found = self.log[self._position :]
        self._position = len(self.log)
        self.polled.set()
        return {NAMES.theirs[AT]: found} if found else {}

    def close(self, **_: object) -> None:
        return


@pytest.fixture(autouse=True)
def unwanted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    # What comes at all comes because it was wanted.
    monkeypatch.setattr(kafka_follower, "UNWANTED_S", 1_000.0)


@contextmanager
def following(cluster: Cluster) -> Iterator[Follower]:
    follower = Follower(cast(Consumers, cluster), {AT: Offset(0)})
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


async def come_to(follower: Follower, count: int) -> list[Record]:
    found: list[Record] = []
    async with asyncio.timeout(COME_S_MAX):
        while len(found) < count:
            found += follower.take()
            await asyncio.sleep(0.001)
    return found


def test_a_lone_writers_records_are_not_fetched() -> None:
    async def run() -> None:
        cluster = Cluster()
        with following(cluster) as follower:
            for offset in range(OWN):
                cluster.log.append(record(offset))
                follower.offer([record(offset)])
                follower.want({AT: Offset(offset + 1)})
                await asyncio.sleep(0)
            assert await come_to(follower, OWN) == cluster.log
            await asyncio.sleep(0.05)
            assert cluster.polls == 0

    asyncio.run(run())


def test_what_another_wrote_before_ours_is_fetched_at_once() -> None:
    async def run() -> None:
        cluster = Cluster()
        with following(cluster) as follower:
            for _ in range(3):
                end = len(cluster.log)
                cluster.log += [record(end), record(end + 1), record(end + 2)]
                follower.offer([record(end + 2)])
                assert await come_to(follower, 3) == cluster.log[end:]

    asyncio.run(run())


def test_what_the_logs_end_tells_of_is_fetched_at_once() -> None:
    async def run() -> None:
        cluster = Cluster()
        with following(cluster) as follower:
            cluster.log += [record(0), record(1)]
            follower.want({AT: Offset(2)})
            assert await come_to(follower, 2) == cluster.log

    asyncio.run(run())


def test_what_comes_later_than_it_was_told_of_is_waited_for() -> None:
    async def run() -> None:
        cluster = Cluster()
        with following(cluster) as follower:
            follower.want({AT: Offset(2)})
            await asyncio.to_thread(cluster.polled.wait, COME_S_MAX)
            cluster.log += [record(0), record(1)]
            assert await come_to(follower, 2) == cluster.log

    asyncio.run(run())
