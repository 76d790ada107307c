"""Reads records back from Kafka: end offsets, and ranges of a partition.

A consumer of kafka-python belongs to one thread at a time. There is one for end offsets, a few idle
ones for `read`, and one in a thread of its own for each `follow` (kafka_follower). None of them
belongs to a group: each replica reads everything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    LogCorrupt,
    LogError,
    LogUnavailable,
    Record,
    TopicPartition,
)
from muniment_services.log.kafka_connection import Brokers, connected
from muniment_services.log.kafka_records import our_records

LOOK_UP_S_MAX = 4.0
"""End offsets that are not there by then are not to be had now."""

LOOK_UP_TRY_MS = 1_000
"""One try; a look-up that was sent to a broker which has died is not waited for longer."""

BEGINNINGS_S = 60.0
"""How often it is asked whether the log still has its beginning: nobody reads that by chance."""

READ_S_MAX = 30.0
"""`read` waits so long for records of which it knows that they exist."""

POLL_MS = 250
"""How often a follower looks whether it shall stop, when nothing comes."""

FETCH_BYTES_MAX = 32 * 1024 * 1024
PARTITION_BYTES_MAX = 8 * 1024 * 1024
POLL_RECORDS_MAX = 5_000
READERS_IDLE_MAX = 4
RETRY_S = 0.5

LOST = (OffsetOutOfRangeError, LogTruncationError)

_log = structlog.get_logger("muniment.log")


class Names:
    """Our topic-partitions and the cluster's."""

    def __init__(self, prefix: str, partitions: Mapping[str, int]) -> None:
        self.topics = {topic: f"{prefix}.{topic}" for topic in partitions}
        self.theirs = {
            TopicPartition(topic, number): KafkaPartition(self.topics[topic], number)
            for topic, count in partitions.items()
            for number in range(count)
        }
        self.ours = {theirs: ours for ours, theirs in self.theirs.items()}


class Consumers:
    """Makes consumers for one cluster."""

    def __init__(self, brokers: Brokers, names: Names) -> None:
        self.names = names
        self._brokers = brokers

    def make(self, within_s: float = 4.0) -> KafkaConsumer:
        """A consumer that has found the cluster; it gives our records. Raises LogUnavailable."""
        options = self._brokers.options()
        return connected(self._brokers, lambda: self._open(options), within_s)

    def _open(self, options: Mapping[str, Any]) -> KafkaConsumer:
        consumer = KafkaConsumer(
            **options,
            metrics_enabled=False,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            exclude_internal_topics=False,
            fetch_max_wait_ms=POLL_MS,
            fetch_max_bytes=FETCH_BYTES_MAX,
            max_partition_fetch_bytes=PARTITION_BYTES_MAX,
            max_poll_records=POLL_RECORDS_MAX,
        )
        consumer._fetcher.PartitionRecords = our_records(self.names.ours)
        return consumer


class EndOffsets:
    """Asks for all end offsets; who asks while a look-up is under way shares the next one."""

    def __init__(self, consumers: Consumers, check: Callable[[], None]) -> None:
        """check: called after a look-up that failed; raises LogCorrupt when the log is lost."""
        self._consumers = consumers
        self._check = check
        self._lost: LogCorrupt | None = None
        self._beginnings_due_s = time.monotonic() + BEGINNINGS_S
        self._consumer: KafkaConsumer | None = None
        self._thread = ThreadPoolExecutor(1, "log-ends")
        self._next: asyncio.Future[Mapping[TopicPartition, Offset]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def look_up(self) -> Mapping[TopicPartition, Offset]:
        """End offsets as they were at some moment after this call. Raises LogUnavailable."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        wanted = self._next
        if self._task is None:
            self._task = asyncio.create_task(self._serve())
        return await asyncio.shield(wanted)

    async def close(self) -> None:
        """Release the consumer. Idempotent."""
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await asyncio.to_thread(close_consumer, consumer)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next is not None:
            waiting, self._next = self._next, None
            try:
                found = await loop.run_in_executor(self._thread, self._ask)
            except LogError as error:
                waiting.set_exception(error)
                waiting.exception()  # Whoever asked may have gone; that is no unseen error.
                # Who waited has an answer; why there is none may take longer to find out.
                await loop.run_in_executor(self._thread, self._look_for_loss)
            else:
                waiting.set_result(found)
        self._task = None

    def _look_for_loss(self) -> None:
        try:
            self._check()
        except LogCorrupt as error:
            self._lost = error

    def _ask(self) -> Mapping[TopicPartition, Offset]:
        if self._lost is not None:
            raise self._lost
        deadline = time.monotonic() + LOOK_UP_S_MAX
        theirs = list(self._consumers.names.theirs.values())
        while True:
            try:
                if self._consumer is None:
                    self._consumer = self._consumers.make(LOOK_UP_S_MAX)
                found = self._consumer.end_offsets(theirs, LOOK_UP_TRY_MS)
                self._refuse_cut(self._consumer)
            # KeyError: kafka-python leaves out partitions that have no leader at the moment.
            except (KafkaError, KeyError) as error:
                if isinstance(error, TopicAuthorizationFailedError):
                    raise LogUnavailable(f"our principal may not read {error}") from error
                if time.monotonic() >= deadline:
                    self._drop()
                    what = error if isinstance(error, KafkaError) else "a partition has no leader"
                    raise LogUnavailable(f"the brokers do not tell end offsets: {what}") from error
                time.sleep(RETRY_S / 5)
            else:
                return {self._consumers.names.ours[at]: Offset(end) for at, end in found.items()}

    def _refuse_cut(self, consumer: KafkaConsumer) -> None:
        """Raise LogCorrupt, now and for ever, when records were removed since the start."""
        if time.monotonic() < self._beginnings_due_s:
            return
        self._beginnings_due_s = time.monotonic() + BEGINNINGS_S
        theirs = list(self._consumers.names.theirs.values())
        try:
            begin = consumer.beginning_offsets(theirs, LOOK_UP_TRY_MS)
        except (KafkaError, KeyError):
            return  # Whoever waits wants the ends, which are known; this is for the next minute.
        for at, first in begin.items():
            if first > 0:
                self._lost = LogCorrupt(removed(first, at))
                raise self._lost

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            threading.Thread(target=close_consumer, args=(consumer,), daemon=True).start()


class Readers:
    """Reads ranges of records, in any thread; keeps a few consumers that are where they were."""

    def __init__(self, consumers: Consumers) -> None:
        self._consumers = consumers
        self._idle: deque[_Reader] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def read(
        self, at: TopicPartition, start: Offset, records_max: int, bytes_max: int
    ) -> list[Record]:
        """Records from `start` on; see EventLog.read. Raises LogUnavailable, LogCorrupt."""
        reader = self._take(at, start)
        try:
            found = reader.read(at, start, records_max, bytes_max)
        except KafkaError as error:
            reader.close()
            if isinstance(error, LOST):
                raise LogCorrupt(f"the log has no record {at}@{start}: {error}") from error
            raise LogUnavailable(f"{at} cannot be read: {error}") from error
        except BaseException:
            reader.close()
            raise
        self._give_back(reader)
        return found

    def close(self) -> None:
        """Release idle consumers, and from now on each after its use."""
        with self._lock:
            self._closed = True
            idle = tuple(self._idle)
            self._idle.clear()
        for reader in idle:
            reader.close()

    def _take(self, at: TopicPartition, start: Offset) -> _Reader:
        with self._lock:
            for reader in self._idle:
                if reader.is_at(at, start):
                    self._idle.remove(reader)
                    return reader
            if len(self._idle) >= READERS_IDLE_MAX:
                return self._idle.popleft()
        return _Reader(self._consumers.make(), self._consumers.names)

    def _give_back(self, reader: _Reader) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < READERS_IDLE_MAX:
                self._idle.append(reader)
                return
        reader.close()


class _Reader:
    """A consumer at one place of one partition, and what it has fetched beyond what was asked."""

    def __init__(self, consumer: KafkaConsumer, names: Names) -> None:
        self._consumer = consumer
        self._names = names
        self._at: TopicPartition | None = None
        self._due = Offset(0)
        self._end = Offset(0)
        self._fetched: deque[Record] = deque()

    def is_at(self, at: TopicPartition, start: Offset) -> bool:
        """Whether the next record that is read is this one, without a new fetch from elsewhere."""
        return self._at == at and self._due == start

    def read(
        self, at: TopicPartition, start: Offset, records_max: int, bytes_max: int
    ) -> list[Record]:
        """See EventLog.read. Raises KafkaError."""
        if not self.is_at(at, start):
            self._go(at, start)
        if self._due >= self._end:
            self._end = self._ask_end(at)
        found: list[Record] = []
        size = 0
        stop = min(self._end, start + records_max)
        deadline = time.monotonic() + READ_S_MAX
        while self._due < stop and size < bytes_max:
            if not self._fetched:
                self._fetch(at, deadline)
                continue
            record = self._fetched.popleft()
            if record.offset != self._due:
                raise LogCorrupt(no_record(at, self._due))
            found.append(record)
            self._due = Offset(self._due + 1)
            size += len(record.value) + len(record.key)
        return found

    def close(self) -> None:
        """Release the consumer."""
        close_consumer(self._consumer)

    def _go(self, at: TopicPartition, start: Offset) -> None:
        theirs = self._names.theirs[at]
        if self._at != at:
            self._consumer.assign([theirs])
            self._end = Offset(0)
        self._consumer.seek(theirs, start)
        self._at, self._due = at, start
        self._fetched.clear()

    def _ask_end(self, at: TopicPartition) -> Offset:
        theirs = self._names.theirs[at]
        try:
            found = self._consumer.end_offsets([theirs], int(LOOK_UP_S_MAX * 1000))
        except KeyError as error:
            raise KafkaError(f"{theirs} has no leader") from error
        return Offset(found[theirs])

    def _fetch(self, at: TopicPartition, deadline: float) -> None:
        polled = self._consumer.poll(POLL_MS)
        for batch in polled.values():
            self._fetched.extend(batch)
        if polled:
            return
        refuse_hole(self._consumer, self._names.theirs[at], at, self._due)
        if time.monotonic() > deadline:
            raise KafkaError(f"no record came within {READ_S_MAX:g} s")


def refuse_hole(
    consumer: KafkaConsumer, theirs: KafkaPartition, at: TopicPartition, due: Offset
) -> None:
    """Raise LogCorrupt when a consumer that fetched nothing has gone past the record that is due.

    Kafka keeps an offset for what it gives to nobody: a marker that ends a transaction, a record
    that compaction has removed. Muniment writes neither.
    """
    if consumer.position(theirs, POLL_MS) > due:
        raise LogCorrupt(no_record(at, due))


def no_record(at: TopicPartition, offset: Offset) -> str:
    """What is said of a hole in a partition."""
    return (
        f"the log has no record {at}@{offset}: it was removed, or is the marker of a transaction, "
        "which only a foreign producer writes. Grant Write on the topics to Muniment alone"
    )


def removed(first: int, at: KafkaPartition) -> str:
    """What is said of a partition that does not have its first records any more."""
    return (
        f"the first {first} records of {at.topic}, partition {at.partition}, were removed (by "
        "kafka-delete-records.sh, or by a retention that was set for a time). Restore them from a "
        "copy of the log: `muniment log copy --help`"
    )


def close_consumer(consumer: KafkaConsumer) -> None:
    """Release a consumer, and wait no longer for brokers that do not answer."""
    with suppress(KafkaError):
        consumer.close(autocommit=False, timeout_ms=1_000)
