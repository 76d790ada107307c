"""What the sender sends, when, and what it does about each kind of answer."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaConnectionError, KafkaError, UnknownBrokerIdError
from kafka.future import Future
from kafka.protocol.producer import InitProducerIdRequest
from kafka.record.default_records import DefaultRecordBatch

from muniment_services.log import kafka_sender
from muniment_services.log.base import CATALOG, RUNS, NewRecord, TopicPartition, topics
from muniment_services.log.kafka_reader import Names
from muniment_services.log.kafka_records import records_of
from muniment_services.log.kafka_sender import Sender

NAMES = Names("t", topics())
CAT = TopicPartition(CATALOG, 0)
RUN = TopicPartition(RUNS, 4)
COME_S_MAX = 20.0
QUIET_S = 0.05

NOT_LEADER, NOT_ENOUGH_REPLICAS = 6, 19
OUT_OF_ORDER, DUPLICATE, NOT_AUTHORIZED = 45, 46, 29


@dataclass(frozen=True)
class Put:
    record: NewRecord


def put(at: TopicPartition, *values: str) -> list[Put]:
    return [Put(NewRecord(at, b"k", value.encode(), (("h", b"x"),), 1)) for value in values]


@dataclass
class Cluster:
    """What kafka-python knows of a cluster: who leads which partition."""

    leaders: dict[KafkaPartition, int] = field(default_factory=dict)
    nodes: Sequence[int] = (1,)
    config: dict[str, Any] = field(default_factory=dict)
    unauthorized_topics: frozenset[str] = frozenset()

    def set_topics(self, _: object) -> Future:
        return Future().success(self)

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0}

    def leader_for_partition(self, at: KafkaPartition) -> int | None:
        return self.leaders.get(at, self.nodes[0])

    def brokers(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(node_id=node) for node in self.nodes]

    def request_update(self) -> Future:
        return Future()


class Request:
    """A produce request that waits for its answer."""

    def __init__(self, net: Any, node: int, request: Any) -> None:
        self.node = node
        self.future = Future()
        self._net = net
        self.batches = {
            NAMES.ours[KafkaPartition(topic.name, data.index)]: bytes(data.records)
            for topic in request.topic_data
            for data in topic.partition_data
        }

    def values(self, at: TopicPartition) -> list[str]:
        found = records_of(at, DefaultRecordBatch(self.batches[at]))
        return [record.value.decode() for record in found]

    def sequence(self, at: TopicPartition) -> int:
        return int(DefaultRecordBatch(self.batches[at]).base_sequence)

    def answer(self, first: int = 0, errors: Mapping[TopicPartition, int] | None = None) -> None:
        """All are written, the first record at that offset, but for those with an error."""
        response = SimpleNamespace(
            responses=[
                SimpleNamespace(
                    name=NAMES.theirs[at].topic,
                    partition_responses=[
                        SimpleNamespace(
                            index=at.partition,
                            error_code=(errors or {}).get(at, 0),
                            error_message=None,
                            base_offset=first,
                        )
                    ],
                )
                for at in self.batches
            ]
        )
        self._net.call_soon_threadsafe(lambda: self.future.success(response) and None)

    def fail(self, error: KafkaError) -> None:
        self._net.call_soon_threadsafe(lambda: self.future.failure(error) and None)


class World:
    """A sender, and the cluster in the place of which the test stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = Cluster()
        self.acknowledged: queue.Queue[tuple[list[str], int]] = queue.Queue()
        self.failures: queue.Queue[KafkaError] = queue.Queue()
        self.refused: list[KafkaError] = []
        self._requests: queue.Queue[Request] = queue.Queue()
        monkeypatch.setattr(kafka_sender, "KafkaConnectionManager", self._manager)
        self.sender: Sender[Put] = Sender(
            {},
            NAMES.theirs,
            request_s_max=1.0,
            acknowledged=self._acknowledge,
            failed=self.failures.put,
        )

    def _manager(self, net: Any, **_: object) -> Any:
        async def wait_for(future: Future, _: float) -> Any:
            return await future

        def send(request: Any, node: int = -1) -> Future:
            if isinstance(request, InitProducerIdRequest):
                given = SimpleNamespace(error_code=0, producer_id=7, producer_epoch=0)
                return Future().success(given)
            if self.refused:
                raise self.refused.pop()
            sent = Request(net, node, request)
            self._requests.put(sent)
            return sent.future

        return SimpleNamespace(
            cluster=self.cluster,
            bootstrap=lambda _: None,
            run=net.run,
            wait_for=wait_for,
            send=send,
            close=lambda: None,
        )

    def _acknowledge(self, batches: Sequence[tuple[Sequence[Put], int]]) -> None:
        for batch, first in batches:
            self.acknowledged.put(([each.record.value.decode() for each in batch], first))

    def request(self) -> Request:
        return self._requests.get(timeout=COME_S_MAX)

    def sends_nothing(self) -> bool:
        try:
            self._requests.get(timeout=QUIET_S)
        except queue.Empty:
            return True
        return False

    def told(self) -> tuple[list[str], int]:
        return self.acknowledged.get(timeout=COME_S_MAX)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(monkeypatch)
    yield made
    made.sender.close()


def test_what_is_put_while_a_request_is_under_way_shares_the_next(world: World) -> None:
    world.sender.put(put(RUN, "a"))
    first = world.request()
    for value in "bcd":
        world.sender.put([*put(RUN, value), *put(CAT, value.upper())])
    assert world.sends_nothing()
    first.answer(10)
    second = world.request()
    assert (second.values(RUN), second.values(CAT)) == (["b", "c", "d"], ["B", "C", "D"])
    assert (first.sequence(RUN), second.sequence(RUN), second.sequence(CAT)) == (0, 1, 0)
    second.answer(11)
    assert sorted(world.told() for _ in range(3)) == [
        (["B", "C", "D"], 11),
        (["a"], 10),
        (["b", "c", "d"], 11),
    ]
    world.sender.put(put(RUN, "e"))
    assert world.request().sequence(RUN) == 4


@pytest.mark.parametrize(
    "failure",
    [
        lambda request: request.answer(errors={RUN: NOT_LEADER}),
        lambda request: request.answer(errors={RUN: NOT_ENOUGH_REPLICAS}),
        lambda request: request.fail(KafkaConnectionError("gone")),
        lambda request: request.fail(UnknownBrokerIdError(1)),
    ],
    ids=["another leads", "too few replicas", "no connection", "no such broker"],
)
def test_what_may_pass_is_sent_again_as_it_was_and_before_all_else(
    world: World, failure: Callable[[Request], None]
) -> None:
    world.sender.put(put(RUN, "a"))
    first = world.request()
    world.sender.put(put(RUN, "b"))
    failure(first)
    again = world.request()
    assert again.batches == first.batches
    again.answer(5)
    assert world.told() == (["a"], 5)
    assert world.request().values(RUN) == ["b"]
    assert world.failures.empty()


def test_a_request_that_cannot_even_begin_is_tried_again(world: World) -> None:
    world.refused.append(UnknownBrokerIdError(1))
    world.sender.put(put(RUN, "a"))
    assert world.request().values(RUN) == ["a"]


def test_one_partition_fails_and_the_others_of_its_request_are_acknowledged(world: World) -> None:
    world.sender.put([*put(RUN, "a"), *put(CAT, "b")])
    first = world.request()
    first.answer(3, errors={RUN: NOT_LEADER})
    assert world.told() == (["b"], 3)
    assert world.request().batches == {RUN: first.batches[RUN]}


# Of a duplicate too old to be known the broker does not tell the offset.
@pytest.mark.parametrize("code", [OUT_OF_ORDER, DUPLICATE, NOT_AUTHORIZED])
def test_what_does_not_pass_ends_the_sender(world: World, code: int) -> None:
    world.sender.put(put(RUN, "a"))
    first = world.request()
    world.sender.put(put(RUN, "b"))
    first.answer(errors={RUN: code})
    assert isinstance(world.failures.get(timeout=COME_S_MAX), KafkaError)
    world.sender.put(put(CAT, "c"))
    assert world.sends_nothing()
    assert world.acknowledged.empty()
    assert world.failures.empty()


def test_a_partition_without_a_leader_holds_up_no_other(world: World) -> None:
    world.cluster.leaders[NAMES.theirs[RUN]] = -1
    world.sender.put([*put(RUN, "a"), *put(CAT, "b")])
    only = world.request()
    assert set(only.batches) == {CAT}
    only.answer()
    assert world.told() == (["b"], 0)
    world.cluster.leaders[NAMES.theirs[RUN]] = 1
    assert world.request().values(RUN) == ["a"]


def test_a_broker_that_does_not_answer_holds_up_no_other(world: World) -> None:
    world.cluster.nodes = (1, 2)
    world.cluster.leaders[NAMES.theirs[CAT]] = 2
    world.sender.put(put(RUN, "a"))
    assert world.request().node == 1
    world.sender.put(put(CAT, "b"))
    second = world.request()
    assert (second.node, second.values(CAT)) == (2, ["b"])


def test_batches_and_requests_have_a_largest_size(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sender, "BATCH_BYTES_MAX", 200)
    monkeypatch.setattr(kafka_sender, "REQUEST_BYTES_MAX", 300)
    large = "v" * 400
    world.sender.put([*put(RUN, *"abcdefghijkl"), *put(CAT, large, "x")])
    seen: dict[TopicPartition, list[str]] = {RUN: [], CAT: []}
    while len(seen[RUN]) < 12 or len(seen[CAT]) < 2:
        request = world.request()
        assert len(request.batches) == 1 or sum(map(len, request.batches.values())) <= 300
        for at in request.batches:
            assert request.sequence(at) == len(seen[at])
            assert len(request.batches[at]) <= 200 or request.values(at) == [large]
            seen[at] += request.values(at)
        request.answer()
    assert seen == {RUN: list("abcdefghijkl"), CAT: [large, "x"]}


def test_sequence_numbers_begin_again_after_the_last(world: World) -> None:
    world.sender._partitions[RUN].sequence = 2**31 - 2
    for value, sequence in zip("abc", (2**31 - 2, 2**31 - 1, 0), strict=True):
        world.sender.put(put(RUN, value))
        request = world.request()
        assert request.sequence(RUN) == sequence
        request.answer()
        world.told()


def test_nothing_is_sent_after_the_end(world: World) -> None:
    world.sender.put(put(RUN, "a"))
    first = world.request()
    world.sender.put(put(RUN, "b"))
    world.sender._ended = True
    first.answer()
    assert world.sends_nothing()
    assert world.acknowledged.empty()
