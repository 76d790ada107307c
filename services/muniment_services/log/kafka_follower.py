"""Fetches what is new in Kafka and hands it to the event loop, for `KafkaLog.follow`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaConsumer
from kafka.consumer.fetcher import RecordTooLargeError
from kafka.errors import KafkaError

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    LogCorrupt,
    LogError,
    LogUnavailable,
    Record,
    TopicPartition,
)
from muniment_services.log.kafka_reader import (
    LOST,
    POLL_MS,
    POLL_RECORDS_MAX,
    RETRY_S,
    Consumers,
    close_consumer,
    no_record,
    refuse_hole,
)

FOLLOW_RECORDS_MAX = 20_000
"""Records that wait for one follower, at most, before its thread stops fetching."""

FOLLOW_BYTES_MAX = 64 * 1024 * 1024
FETCH_PAUSE_S = 0.003
"""Between fetches at least, when records are wanted: each costs as much as a hundred records."""

UNWANTED_S = 0.1
"""Between fetches when nobody wants records that are not here. A lone writer's are offered as they
are acknowledged, and then a fetch brings only what is known: it took a fifth of the server's time,
and as much of the broker's."""

_log = structlog.get_logger("muniment.log")


class Follower:
    """Fetches what is new in a thread of its own and hands it to the event loop.

    `due` is, per topic-partition, the offset that comes next. What this process itself appends is
    offered as it is acknowledged, and taken where it is due: a lone writer need not wait for a
    fetch, and the thread goes on behind what was taken. What is known to be in the log beyond `due`
    (offered by a writer that was not alone, or told by the log's end) is fetched at once; without a
    sign of it the thread looks every UNWANTED_S. It waits while FOLLOW_RECORDS_MAX records or
    FOLLOW_BYTES_MAX bytes wait to be taken.
    """

    def __init__(self, consumers: Consumers, start: Mapping[TopicPartition, Offset]) -> None:
        """Nothing is fetched before `start`."""
        self.due = dict(start)
        self.failure: LogError | None = None
        self.woken = asyncio.Event()
        self._consumers = consumers
        self._pending: list[Record] = []
        self._bytes = 0
        self._room = threading.Event()
        self._room.set()
        self._wanted: dict[TopicPartition, Offset] = {}
        self._called = threading.Event()
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="log-follow", daemon=True)

    def start(self) -> None:
        """Begin to fetch."""
        self._thread.start()

    def stop(self) -> None:
        """Fetch nothing more; the thread ends soon."""
        self._stopping.set()
        self._room.set()
        self._called.set()

    def want(self, ends: Mapping[TopicPartition, Offset]) -> None:
        """Fetch what is missing to `ends`, where the log is known to have come to."""
        for at, due in self.due.items():
            end = ends.get(at, Offset(0))
            if end > due:
                self._wanted[at] = max(end, self._wanted.get(at, end))
                self._called.set()

    def take(self) -> Sequence[Record]:
        """What has come since the last call."""
        taken, self._pending, self._bytes = self._pending, [], 0
        self._room.set()
        return taken

    def has_come_to(self, ends: Mapping[TopicPartition, Offset]) -> bool:
        """Whether everything before `ends` was taken or waits to be."""
        return all(due >= ends.get(at, 0) for at, due in self.due.items())

    def offer(self, records: Sequence[Record]) -> None:
        """Take those of some durable records that are due, each in its topic-partition's order."""
        for record in records:
            due = self.due.get(record.at, record.offset + 1)
            if due == record.offset:
                self.due[record.at] = Offset(record.offset + 1)
                self._pending.append(record)
                self._bytes += len(record.value) + len(record.key)
            elif due < record.offset:
                # Another has written what lies between.
                self.want({record.at: Offset(record.offset + 1)})
        if self._is_full():
            self._room.clear()
        self.woken.set()

    def _is_full(self) -> bool:
        return len(self._pending) >= FOLLOW_RECORDS_MAX or self._bytes >= FOLLOW_BYTES_MAX

    def _fail(self, error: LogError) -> None:
        self.failure = error
        self.woken.set()

    def _run(self) -> None:
        # A place of our own: what the loop has not taken yet must not be fetched again.
        place = dict(self.due)
        while not self._stopping.is_set():
            try:
                self._fetch(place)
            except LogCorrupt as error:
                self._tell(self._fail, error)
                return
            except (KafkaError, RecordTooLargeError, LogUnavailable, OSError) as error:
                _log.warning("events cannot be fetched; trying again", reason=str(error))
                self._stopping.wait(RETRY_S)

    def _fetch(self, place: dict[TopicPartition, Offset]) -> None:
        names = self._consumers.names
        consumer = self._consumers.make()
        try:
            consumer.assign([names.theirs[at] for at in place])
            for at, offset in place.items():
                consumer.seek(names.theirs[at], offset)
            is_full = False
            while not self._stopping.wait(FETCH_PAUSE_S):
                self._pass_over_taken(consumer, place)
                if not is_full and self._has_all_wanted(place):
                    self._called.wait(UNWANTED_S)
                    self._called.clear()
                    self._pass_over_taken(consumer, place)
                try:
                    polled = consumer.poll(POLL_MS)
                    if not polled:
                        for at, due in place.items():
                            refuse_hole(consumer, names.theirs[at], at, due)
                except LOST as error:
                    raise LogCorrupt(f"the log has lost events: {error}") from error
                is_full = sum(map(len, polled.values())) >= POLL_RECORDS_MAX
                if polled:
                    self._hand_over(polled, place)
        finally:
            close_consumer(consumer)

    def _has_all_wanted(self, place: Mapping[TopicPartition, Offset]) -> bool:
        return all(place[at] >= end for at, end in tuple(self._wanted.items()))

    def _pass_over_taken(
        self, consumer: KafkaConsumer, place: dict[TopicPartition, Offset]
    ) -> None:
        for at, due in tuple(self.due.items()):
            if due > place[at]:
                consumer.seek(self._consumers.names.theirs[at], due)
                place[at] = due

    def _hand_over(
        self, polled: Mapping[Any, Sequence[Any]], place: dict[TopicPartition, Offset]
    ) -> None:
        records: list[Record] = []
        for theirs, batch in polled.items():
            at = self._consumers.names.ours[theirs]
            for record in batch:
                if record.offset != place[at]:
                    raise LogCorrupt(no_record(at, place[at]))
                place[at] = Offset(record.offset + 1)
                records.append(record)
        self._tell(self.offer, records)
        while not self._room.wait(POLL_MS / 1000) and not self._stopping.is_set():
            pass

    def _tell(self, function: Callable[..., None], *values: Any) -> None:
        with suppress(RuntimeError):  # The loop has gone, and all who would listen with it.
            self._loop.call_soon_threadsafe(function, *values)
