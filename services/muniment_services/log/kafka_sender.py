"""Sends batches of records to the leaders of their partitions, each record once and in order.

It is made of kafka-python's lower layers: its connections, its view of the cluster, its batches and
requests. Its KafkaProducer took more of a server's time than all the rest of a small append: locks,
a future and a look at the clock for each record, a wake-up of its thread for each batch.

Everything but `put` and `close` runs in the one thread of kafka-python's network loop.

What always holds (KIP-98, idempotent producers):
- one request to a broker is under way at a time. What is put meanwhile goes with the next one: the
  slower the brokers answer, the larger the batches;
- hence one batch of a partition is under way at most. It keeps its producer id and sequence numbers
  however often it is sent, and the next one is not sent before it is acknowledged;
- a batch is sent again for as long as the failure may pass. The first other failure ends the
  sender, as does `close`: it sends nothing more, since it could not tell what was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from kafka import TopicPartition as KafkaPartition
from kafka.errors import (
    KafkaError,
    NoError,
    RetriableError,
    TopicAuthorizationFailedError,
    UnknownBrokerIdError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.record.default_records import DefaultRecordBatchBuilder

from muniment_services.log.base import NewRecord, TopicPartition
from muniment_services.log.kafka_connection import BOOTSTRAP_MS
from muniment_services.log.kafka_topics import MESSAGE_BYTES_MAX

BATCH_BYTES_MAX = 1024 * 1024
"""Records of one partition that are sent together; a larger record is sent alone."""

REQUEST_BYTES_MAX = MESSAGE_BYTES_MAX
"""Batches of several partitions that are sent together; a batch is never larger than this."""

RETRY_S = 0.1
"""After a failure that may pass."""

PRODUCE_VERSION_MAX = 9
"""Of the request; later ones tell new leaders, or name topics by their ids."""

INIT_VERSION_MAX = 4

_Topic = ProduceRequest.TopicProduceData
_Data = _Topic.PartitionProduceData


class Queued(Protocol):
    """What is put: a record, and whatever else its owner knows it by."""

    @property
    def record(self) -> NewRecord:
        """The record to append."""


T = TypeVar("T", bound=Queued)


@dataclass(slots=True, frozen=True)
class _Batch:
    queued: Sequence[Any]
    data: bytearray


@dataclass(slots=True, eq=False)
class _Partition:
    at: KafkaPartition
    queued: deque[Any] = field(default_factory=deque)
    batch: _Batch | None = None
    sequence: int = 0


class Sender(Generic[T]):
    """An idempotent producer with `acks=all`, that tells what became of what by two callbacks.

    Both are called in its own thread. acknowledged: batches of what was put, each with the offset
    of its first record; they follow one another without holes. failed: once, at its end.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        partitions: Mapping[TopicPartition, KafkaPartition],
        *,
        request_s_max: float,
        acknowledged: Callable[[Sequence[tuple[Sequence[T], int]]], None],
        failed: Callable[[KafkaError], None],
    ) -> None:
        """Connect, and wait for a producer id. Blocking. Raises KafkaError.

        options: of kafka-python's clients. partitions: ours, to those of the cluster.
        """
        self._acknowledged = acknowledged
        self._failed = failed
        self._request_ms = int(request_s_max * 1000)
        self._partitions = {ours: _Partition(at) for ours, at in partitions.items()}
        self._put: deque[Sequence[T]] = deque()
        self._looks = False
        self._waiting: dict[_Partition, None] = {}
        self._busy: set[int] = set()
        self._ended = False
        self._net = NetworkSelector(slow_task_threshold_secs=0)
        self._manager = KafkaConnectionManager(
            self._net, **{**options, "request_timeout_ms": self._request_ms}
        )
        self._cluster = self._manager.cluster
        self._cluster.config["allow_auto_create_topics"] = False
        self._net.start()
        try:
            self._manager.bootstrap(BOOTSTRAP_MS)
            self._producer = self._manager.run(self._begin)
        except BaseException:
            self.close()
            raise

    async def _begin(self) -> Any:
        topics = {partition.at.topic for partition in self._partitions.values()}
        await self._manager.wait_for(self._cluster.set_topics(topics), self._request_ms)
        if self._cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(self._cluster.unauthorized_topics)
        unknown = {topic for topic in topics if not self._cluster.partitions_for_topic(topic)}
        if unknown:
            raise UnknownTopicOrPartitionError(unknown)
        request = InitProducerIdRequest(
            transactional_id=None,
            transaction_timeout_ms=self._request_ms,
            producer_id=-1,
            producer_epoch=-1,
            max_version=INIT_VERSION_MAX,
        )
        answer = await self._manager.send(request)
        error = for_code(answer.error_code)
        if error is not NoError:
            raise error("a producer id")
        return answer

    def put(self, queued: Sequence[T]) -> None:
        """Send records, each after those of its partition that were put before. Never waits."""
        self._put.append(queued)
        # Whoever sets `_looks` sees to it that `_send` runs, and takes what was put until then.
        if not self._looks:
            self._looks = True
            self._net.call_soon_threadsafe(self._send)

    def close(self) -> None:
        """Send nothing more, and release everything. Blocking. Idempotent."""
        self._ended = True
        with suppress(KafkaError, RuntimeError, OSError):  # The network loop has ended before.
            self._net.run(self._manager.close)
        self._net.close()

    def _send(self) -> None:
        self._looks = False
        while self._put:
            for queued in self._put.popleft():
                partition = self._partitions[queued.record.at]
                partition.queued.append(queued)
                self._waiting[partition] = None
        if self._ended:
            return
        ready: dict[int, list[_Partition]] = {}
        is_led = True
        for partition in self._waiting:
            leader = self._cluster.leader_for_partition(partition.at)
            if leader is None or leader < 0:
                is_led = False
            elif leader not in self._busy:
                ready.setdefault(leader, []).append(partition)
        for leader, partitions in ready.items():
            self._request(leader, partitions)
        if not is_led:
            self._cluster.request_update()
            self._net.call_later(RETRY_S, self._send)
        # While every broker has a request, an answer comes before more could be sent.
        brokers = self._cluster.brokers()
        self._looks = bool(brokers) and all(broker.node_id in self._busy for broker in brokers)

    def _request(self, leader: int, partitions: Sequence[_Partition]) -> None:
        sent: list[tuple[_Partition, _Batch]] = []
        topics: dict[str, list[Any]] = {}
        size = 0
        for partition in partitions:
            batch = partition.batch or self._batch(partition)
            size += len(batch.data)
            if sent and size > REQUEST_BYTES_MAX:
                break
            sent.append((partition, batch))
            del self._waiting[partition]
            data = _Data(index=partition.at.partition, records=batch.data)
            topics.setdefault(partition.at.topic, []).append(data)
        request = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=self._request_ms,
            topic_data=[_Topic(name=name, partition_data=data) for name, data in topics.items()],
            max_version=PRODUCE_VERSION_MAX,
        )
        self._busy.add(leader)
        try:
            future = self._manager.send(request, leader)
        except KafkaError as error:  # A broker that left the cluster, or that refuses us.
            self._unanswered(leader, sent, error)
        else:
            future.add_callback(self._answered, leader, sent)
            future.add_errback(self._unanswered, leader, sent)

    def _batch(self, partition: _Partition) -> _Batch:
        builder = DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=False,
            producer_id=self._producer.producer_id,
            producer_epoch=self._producer.producer_epoch,
            base_sequence=partition.sequence,
            batch_size=BATCH_BYTES_MAX,
        )
        taken: list[Any] = []
        queued = partition.queued
        while queued:
            new: NewRecord = queued[0].record
            if not builder.append(len(taken), new.timestamp_ms, new.key, new.value, new.headers):
                break  # The batch is full.
            taken.append(queued.popleft())
        partition.sequence = (partition.sequence + len(taken)) % 2**31
        partition.batch = _Batch(taken, builder.build())
        return partition.batch

    def _answered(
        self, leader: int, sent: Sequence[tuple[_Partition, _Batch]], response: Any
    ) -> None:
        answers = {
            (topic.name, answer.index): answer
            for topic in response.responses
            for answer in topic.partition_responses
        }
        acknowledged: list[tuple[Sequence[T], int]] = []
        to_repeat = False
        for partition, batch in sent:
            answer = answers[partition.at]
            if answer.error_code == 0:
                acknowledged.append((batch.queued, answer.base_offset))
                partition.batch = None
                if partition.queued:
                    self._waiting[partition] = None
                continue
            error = for_code(answer.error_code)
            if not issubclass(error, RetriableError):
                self._fail(error(answer.error_message or str(partition.at)))
                break
            to_repeat = True
            self._waiting[partition] = None
        if acknowledged and not self._ended:
            self._acknowledged(acknowledged)
        if to_repeat:
            self._repeat_later(leader)
        else:
            self._free(leader)

    def _unanswered(
        self, leader: int, sent: Sequence[tuple[_Partition, _Batch]], error: KafkaError
    ) -> None:
        # UnknownBrokerIdError: another leads the partition by the next look at the cluster.
        if not isinstance(error, (RetriableError, UnknownBrokerIdError)):
            self._fail(error)
            return
        self._waiting = dict.fromkeys(partition for partition, _ in sent) | self._waiting
        self._repeat_later(leader)

    def _repeat_later(self, leader: int) -> None:
        self._cluster.request_update()
        self._net.call_later(RETRY_S, lambda: self._free(leader))

    def _free(self, leader: int) -> None:
        self._busy.discard(leader)
        self._send()

    def _fail(self, error: KafkaError) -> None:
        if not self._ended:
            self._ended = True
            self._failed(error)
