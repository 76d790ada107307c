"""Appends records to Kafka by a producer that is thrown away rather than mended.

An idempotent producer of kafka-python that gave up a batch which it had sent never sends again, and
says nothing (its transaction manager stays READY without a producer id); one whose batch the broker
refused fails everything after it. So the first record that fails ends the producer: all that it
holds fails at once, and another is made. What is appended meanwhile waits for that; when no broker
answers it fails too, and appends are refused until one does.

What always holds: a future of a record is done within APPEND_S_MAX + WATCH_S of its append; it has
a result only if all in-sync replicas have the record; a record that failed is never sent again
(one that was under way may still arrive: "not acknowledged" is not "not written").
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_RECORDS_MAX,
    RECORD_BYTES_MAX,
    LogBackpressure,
    LogError,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
)
from muniment_services.log.kafka_connection import Brokers, connected
from muniment_services.log.kafka_topics import MESSAGE_BYTES_MAX

APPEND_S_MAX = 10.0
"""A record that is not acknowledged by then has failed, and its caller hears 503."""

REQUEST_S_MAX = 4.0
"""A broker that has not answered a produce request by then is given up, and asked again."""

WATCH_S = 1.0
"""How often the oldest record in flight is looked at, and brokers are tried that did not answer."""

METADATA_MS_MAX = 200
"""A topic that a running producer does not know any more holds up the event loop so long, once."""

CLOSE_S_MAX = 10.0
BATCH_BYTES_MAX = 1024 * 1024
IN_FLIGHT_REQUESTS_MAX = 5

_log = structlog.get_logger("muniment.log")


@dataclass(slots=True)
class _InFlight:
    record: NewRecord
    future: asyncio.Future[Record]
    size: int
    queued_s: float


class Producer:
    """Lives on one event loop; the sender's thread of kafka-python tells it what became of what."""

    def __init__(
        self,
        brokers: Brokers,
        names: Mapping[str, str],
        durable: Callable[[Sequence[Record]], None],
    ) -> None:
        """names: our topics to those of the cluster. durable: shown what was acknowledged."""
        self._durable = durable
        self._brokers = brokers
        self._names = names
        self._loop: asyncio.AbstractEventLoop
        self._producer: KafkaProducer | None = None
        self._flying: dict[int, _InFlight] = {}
        self._number = 0
        self._bytes = 0
        self._done: deque[tuple[int, Any]] = deque()
        self._told = threading.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._maker: asyncio.Task[None] | None = None
        self._waiting: list[int] = []
        self._refusing = True
        self._reason = "it is not open"
        self._closing = False
        self.restarts = 0
        """Producers that were given up since the start."""

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that were appended and are not acknowledged."""
        return self._bytes

    @property
    def in_flight_records(self) -> int:
        """Records that were appended and are not acknowledged."""
        return len(self._flying)

    async def start(self) -> None:
        """Connect. Raises LogUnavailable."""
        self._loop = asyncio.get_running_loop()
        self._producer = await asyncio.to_thread(self._make)
        self._refusing = False
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Wait until what was appended is acknowledged or has failed; then take nothing more."""
        self._closing = self._refusing = True
        self._reason = "it is closed"
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):
                await asyncio.to_thread(producer.close, CLOSE_S_MAX)
            await asyncio.sleep(0)  # What the sender told last waits on the loop.
            self._settle()
        self._fail_all(LogUnavailable("it was closed before the record was acknowledged"))
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self._maker is not None:
            await self._maker

    def append(self, record: NewRecord) -> asyncio.Future[Record]:
        """Send a record; see EventLog.append."""
        size = len(record.value)
        if size > RECORD_BYTES_MAX:
            raise RecordTooLarge(size)
        if self._refusing:
            raise LogUnavailable(self._reason)
        size += len(record.key) + sum(len(name) + len(value) for name, value in record.headers)
        if len(self._flying) >= IN_FLIGHT_RECORDS_MAX or self._bytes + size > IN_FLIGHT_BYTES_MAX:
            raise LogBackpressure(
                f"{len(self._flying)} records ({self._bytes} bytes) are in flight."
            )
        future: asyncio.Future[Record] = self._loop.create_future()
        number = self._number = self._number + 1
        self._flying[number] = _InFlight(record, future, size, self._loop.time())
        self._bytes += size
        if self._producer is None:
            self._waiting.append(number)
        else:
            self._send(self._producer, number, record)
        return future

    def _send(self, producer: KafkaProducer, number: int, record: NewRecord) -> None:
        try:
            sent = producer.send(
                self._names[record.at.topic],
                record.value,
                record.key,
                list(record.headers),
                record.at.partition,
                record.timestamp_ms,
            )
        except MessageSizeTooLargeError:
            self._settle_one(number, RecordTooLarge(len(record.value), MESSAGE_BYTES_MAX))
        except KafkaError as error:
            self._give_up(f"{record.at.topic} cannot be written: {_words(error)}")
        else:
            # The sender's thread calls these, for each record of a batch in turn.
            sent.add_callback(self._tell, number)
            sent.add_errback(self._tell, number)

    def _tell(self, number: int, outcome: Any) -> None:
        # Many records end together; the loop is woken once for all that have ended by then.
        self._done.append((number, outcome))
        if not self._told.is_set():
            self._told.set()
            with suppress(RuntimeError):  # The loop has gone: so have all who waited.
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._told.clear()
        durable: list[Record] = []
        while self._done:
            number, outcome = self._done.popleft()
            if number not in self._flying:
                continue  # It failed before: its producer was given up.
            if not isinstance(outcome, BaseException):
                durable.append(self._acknowledge(number, Offset(outcome.offset)))
                continue
            self._settle_one(number, LogUnavailable(_words(outcome)))
            self._give_up(_words(outcome))
        if durable:
            self._durable(durable)

    def _acknowledge(self, number: int, offset: Offset) -> Record:
        flying = self._flying.pop(number)
        self._bytes -= flying.size
        new = flying.record
        record = Record(new.at, offset, new.key, new.value, new.headers, new.timestamp_ms)
        if not flying.future.done():  # Its waiter may have cancelled it; it is durable anyway.
            flying.future.set_result(record)
        return record

    def _settle_one(self, number: int, outcome: LogError) -> None:
        flying = self._flying.pop(number)
        self._bytes -= flying.size
        if not flying.future.done():
            flying.future.set_exception(outcome)

    def _give_up(self, reason: str) -> None:
        producer, self._producer = self._producer, None
        if producer is None or self._closing:
            return
        self._reason = f"the brokers do not take events: {reason}"
        self.restarts += 1
        _log.error("events cannot be appended; a new producer is made", reason=reason)
        # Off the loop: closing waits for locks of the sender's thread.
        threading.Thread(target=_abandon, args=(producer,), daemon=True).start()
        self._fail_all(LogUnavailable(self._reason))
        self._maker = asyncio.create_task(self._make_again())

    def _fail_all(self, error: LogUnavailable) -> None:
        flying, self._flying, self._bytes, self._waiting = self._flying, {}, 0, []
        for each in flying.values():
            if not each.future.done():
                each.future.set_exception(error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            longest = self._loop.time() - APPEND_S_MAX - WATCH_S
            overdue = [n for n, flying in self._flying.items() if flying.queued_s < longest]
            if overdue and self._producer is not None:
                self._give_up(f"no word of a record for {APPEND_S_MAX:g} s")
            else:
                for number in overdue:  # They wait for a producer that is still being made.
                    self._settle_one(number, LogUnavailable(self._reason))

    async def _make_again(self) -> None:
        while not self._closing:
            try:
                made = await asyncio.to_thread(self._make, 0.0)
            except LogUnavailable as error:
                self._refusing, self._reason = True, error.reason
                self._fail_all(LogUnavailable(self._reason))
                await asyncio.sleep(WATCH_S)
                continue
            if self._closing:
                await asyncio.to_thread(_abandon, made)
                return
            self._producer, self._refusing = made, False
            _log.info("events are appended again", restarts=self.restarts)
            waiting, self._waiting = self._waiting, []
            for number in waiting:
                if number in self._flying and self._producer is made:
                    self._send(made, number, self._flying[number].record)
            return

    def _make(self, within_s: float = 10.0) -> KafkaProducer:
        options = self._brokers.options()
        return connected(self._brokers, lambda: self._open(options), within_s)

    def _open(self, options: Mapping[str, Any]) -> KafkaProducer:
        producer = KafkaProducer(
            **{
                **options,
                "metrics_enabled": False,
                "acks": "all",
                "enable_idempotence": True,
                "max_in_flight_requests_per_connection": IN_FLIGHT_REQUESTS_MAX,
                "delivery_timeout_ms": int(APPEND_S_MAX * 1000),
                "request_timeout_ms": int(REQUEST_S_MAX * 1000),
                "max_request_size": MESSAGE_BYTES_MAX,
                "batch_size": BATCH_BYTES_MAX,
                "linger_ms": 0,
                "allow_auto_create_topics": False,
                "max_block_ms": int(REQUEST_S_MAX * 1000),
            }
        )
        try:
            for name in self._names.values():
                producer.partitions_for(name)
        except BaseException:
            _abandon(producer)
            raise
        producer.config["max_block_ms"] = METADATA_MS_MAX
        return producer


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _abandon(producer: KafkaProducer) -> None:
    with suppress(KafkaError):
        producer.close(0)
    # `close` gives up before it has stopped the sender when a batch is under way; the sender would
    # go on to send what has failed. There is no other way to stop it.
    producer._sender.force_close()
    producer._closed = True
