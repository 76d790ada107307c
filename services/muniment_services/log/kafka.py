"""The event log on Apache Kafka: topics `<prefix>.<topic>`, any number of writers and readers.

The life of one append:
1. `append` (event loop) checks the limits; all that was appended in one turn of the loop is handed
   to the sender, an idempotent producer with `acks=all`.
2. Its thread batches what is queued for a partition; one request to a broker is under way at a
   time, so that offsets follow the calls, and what comes meanwhile shares the next request.
3. When all in-sync replicas have the batch, its futures are completed on the loop.
4. This process's followers get the record at once if it is the next one for them; every other
   record, and other processes' followers, by a fetch.

What always holds: no transactions and no compaction, hence offsets without holes; `end_offsets` is
not below what anyone was acknowledged before it was asked (the leader's high watermark, which a new
leader does not tell before it has reached the old one's: KIP-207).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    READ_BYTES_MAX,
    READ_RECORDS_MAX,
    RUNS_PARTITIONS_DEFAULT,
    LogCorrupt,
    LogError,
    LogUnavailable,
    NewRecord,
    Record,
    TopicPartition,
    topics,
)
from muniment_services.log.kafka_connection import Brokers, connected
from muniment_services.log.kafka_follower import Follower
from muniment_services.log.kafka_producer import Producer
from muniment_services.log.kafka_reader import Consumers, EndOffsets, Names, Readers
from muniment_services.log.kafka_topics import Topic, described, prepared

LOSS_LOOKS = 3
LOSS_PAUSE_S = 1.0
"""A topic is called lost when brokers did not know it so often, so far apart."""

LAST_RECORDS_S_MAX = 5.0
"""After `close`, followers get so long to fetch what was acknowledged before it."""


class KafkaLog:
    """EventLog on a Kafka cluster. Durable means: all in-sync replicas have it."""

    def __init__(
        self,
        brokers: Brokers,
        *,
        prefix: str = "muniment",
        runs_partitions: int = RUNS_PARTITIONS_DEFAULT,
        replication: int | None = None,
        read_only: bool = False,
    ) -> None:
        """prefix: what the topics' names begin with. replication: see kafka_topics.prepared.

        A read-only log makes no topics and takes no records.
        """
        self.partitions: Mapping[str, int] = topics(runs_partitions)
        self.log_id = ""
        self._brokers = brokers
        self._replication = replication
        self._read_only = read_only
        self._names = Names(prefix, self.partitions)
        consumers = Consumers(brokers, self._names)
        self._consumers = consumers
        self._producer = Producer(brokers, self._names.theirs, self._offer)
        self._ends = EndOffsets(consumers, self._refuse_loss)
        self._readers = Readers(consumers)
        self._made: list[Topic] = []
        self._followers: set[Follower] = set()
        self._accepting = False
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._last: Mapping[TopicPartition, Offset] = {}

    async def start(self) -> None:
        """Find the cluster, make and check the topics, connect the producer.

        Raises LogUnavailable (with what to do about it: address, password, certificate), LogCorrupt
        for topics that could lose events.
        """
        self._made = await asyncio.to_thread(self._prepare)
        ids = "\n".join(topic.topic_id for topic in self._made)
        self.log_id = hashlib.sha256(ids.encode()).hexdigest()[:32]
        if not self._read_only:
            await self._producer.start()
            self._accepting = True

    def _prepare(self) -> list[Topic]:
        wanted = {self._names.topics[name]: n for name, n in self.partitions.items()}
        bootstrap = ",".join(self._brokers.bootstrap)
        with self._admin() as admin:
            return prepared(admin, wanted, self._replication, not self._read_only, bootstrap)

    @contextmanager
    def _admin(self, **limits: float) -> Iterator[KafkaAdminClient]:
        options = self._brokers.options()
        admin = connected(self._brokers, lambda: KafkaAdminClient(**options), **limits)
        try:
            yield admin
        finally:
            admin.close()

    def _refuse_loss(self) -> None:
        """Raise LogCorrupt when the brokers, being there, do not know our topics. Blocking.

        A broker that has just started may not know all yet: it is asked LOSS_LOOKS times.
        """
        for look in range(LOSS_LOOKS):
            if look:
                time.sleep(LOSS_PAUSE_S)
            try:
                lost = self._lost_topics()
            except (LogUnavailable, KafkaError):
                return  # Nobody answers: that says nothing of the topics.
            if not lost:
                return
        raise LogCorrupt(
            f"the log is lost: {', '.join(lost)} at {','.join(self._brokers.bootstrap)} was "
            "deleted or made anew. Restore the topics as they were"
        )

    def _lost_topics(self) -> list[str]:
        with self._admin(within_s=0.0) as admin:
            found = described(admin, [topic.name for topic in self._made])
        return [
            topic.name
            for topic in self._made
            if topic.name not in found or found[topic.name].topic_id != topic.topic_id
        ]

    async def close(self) -> None:
        """Wait for what is in flight, tell followers the end, release everything. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._accepting:
            self._accepting = False
            await self._producer.close()
        try:
            self._last = await self._ends.look_up() if self.log_id else {}
        except LogError:
            self._last = {}  # No broker answers: what followers have by now is all that they get.
        self._closed = True
        for follower in self._followers:
            follower.want(self._last)
            follower.woken.set()
        await asyncio.to_thread(self._readers.close)
        await self._ends.close()

    def _offer(self, records: Sequence[Record]) -> None:
        for follower in self._followers:
            follower.offer(records)

    @property
    def producer(self) -> Producer:
        """What is in flight, and how often the producer had to be replaced."""
        return self._producer

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were appended and are not acknowledged."""
        return self._producer.in_flight_bytes

    @property
    def in_flight_records(self) -> int:
        """Records that were appended and are not acknowledged."""
        return self._producer.in_flight_records

    @property
    def producer_restarts(self) -> int:
        """Producers that were given up since the start."""
        return self._producer.restarts

    def append(self, record: NewRecord) -> asyncio.Future[Record]:
        """Send a record; the future is done once all in-sync replicas have it. See EventLog."""
        if not self._accepting:
            raise LogUnavailable("it is open to read only" if self._read_only else "it is closed")
        return self._producer.append(record)

    async def end_offsets(self) -> Mapping[TopicPartition, Offset]:
        """For every topic-partition the offset that its next record will get."""
        ends = await self._ends.look_up()
        for follower in self._followers:
            follower.want(ends)
        return ends

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Sequence[Record]:
        """Records from `start` on, see EventLog.read. LogUnavailable; LogCorrupt at a hole."""
        if self._closed:
            raise LogUnavailable("it is closed")
        return self._readers.read(at, start, records_max, bytes_max)

    async def follow(
        self, start: Mapping[TopicPartition, Offset]
    ) -> AsyncIterator[Sequence[Record]]:
        """Every record from `start` on, as it becomes durable. Raises LogCorrupt when some lack."""
        follower = Follower(self._consumers, start)
        self._followers.add(follower)
        follower.start()
        deadline: float | None = None
        loop = asyncio.get_running_loop()
        try:
            while True:
                if taken := follower.take():
                    yield taken
                    continue
                if follower.failure is not None:
                    raise follower.failure
                if self._closed:
                    deadline = deadline or loop.time() + LAST_RECORDS_S_MAX
                    if follower.has_come_to(self._last) or loop.time() > deadline:
                        return
                follower.woken.clear()
                timeout = None if deadline is None else deadline - loop.time()
                await _woken(follower, timeout)
        finally:
            follower.stop()
            self._followers.discard(follower)


async def _woken(follower: Follower, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await follower.woken.wait()
    except TimeoutError:
        return
