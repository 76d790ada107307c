"""Appends records to Kafka by a sender that is thrown away rather than mended.

A sender that failed, or from which nothing was heard for too long, could not tell what was written
of what it holds. So the first record that fails ends it: all that it holds fails at once, and
another is made, with a producer id of its own. What is appended meanwhile waits for that; when no
broker answers it fails too, and appends are refused until one does.

What always holds: a future of a record is done within APPEND_S_MAX + WATCH_S of its append; it has
a result only if all in-sync replicas have the record; a record that failed is never sent again
(one that was under way may still arrive: "not acknowledged" is not "not written").
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import TopicPartition as KafkaPartition

from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_RECORDS_MAX,
    RECORD_BYTES_MAX,
    LogBackpressure,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
    TopicPartition,
)
from muniment_services.log.kafka_connection import Brokers, connected
from muniment_services.log.kafka_sender import Sender
from muniment_services.log.kafka_topics import MESSAGE_BYTES_MAX

APPEND_S_MAX = 10.0
"""A record that is not acknowledged by then has failed, and its caller hears 503."""

REQUEST_S_MAX = 4.0
"""A broker that has not answered a produce request by then is given up, and asked again."""

WATCH_S = 1.0
"""How often the oldest record in flight is looked at, and brokers are tried that did not answer."""

CLOSE_S_MAX = 10.0

FRAME_BYTES_MAX = 1024
"""What stands around a record's value, key and headers in a batch of one, and more."""

_log = structlog.get_logger("muniment.log")


@dataclass(slots=True, eq=False)
class _InFlight:
    record: NewRecord
    future: asyncio.Future[Record]
    size: int
    queued_s: float


class Producer:
    """Lives on one event loop; its sender's thread tells it what became of what."""

    def __init__(
        self,
        brokers: Brokers,
        partitions: Mapping[TopicPartition, KafkaPartition],
        durable: Callable[[Sequence[Record]], None],
    ) -> None:
        """partitions: ours, to those of the cluster. durable: shown what was acknowledged."""
        self._durable = durable
        self._brokers = brokers
        self._partitions = partitions
        self._loop: asyncio.AbstractEventLoop
        self._sender: Sender[_InFlight] | None = None
        self._flying: dict[_InFlight, None] = {}
        self._queued: list[_InFlight] = []
        self._bytes = 0
        self._watcher: asyncio.Task[None] | None = None
        self._maker: asyncio.Task[None] | None = None
        self._refusing = True
        self._reason = "it is not open"
        self._closing = False
        self._landed = asyncio.Event()
        self.restarts = 0
        """Senders that were given up since the start."""

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
        self._sender = await asyncio.to_thread(self._make)
        self._refusing = False
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Wait until what was appended is acknowledged or has failed; then take nothing more."""
        self._closing = self._refusing = True
        self._reason = "it is closed"
        if self._flying:
            self._landed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._landed.wait(), CLOSE_S_MAX)
        self._fail_all(LogUnavailable("it was closed before the record was acknowledged"))
        sender, self._sender = self._sender, None
        if sender is not None:
            await asyncio.to_thread(sender.close)
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
        if size + FRAME_BYTES_MAX > MESSAGE_BYTES_MAX:
            raise RecordTooLarge(size, MESSAGE_BYTES_MAX - FRAME_BYTES_MAX)
        if len(self._flying) >= IN_FLIGHT_RECORDS_MAX or self._bytes + size > IN_FLIGHT_BYTES_MAX:
            raise LogBackpressure(
                f"{len(self._flying)} records ({self._bytes} bytes) are in flight."
            )
        flying = _InFlight(record, self._loop.create_future(), size, self._loop.time())
        self._flying[flying] = None
        self._bytes += size
        if not self._queued:  # What else is appended in this turn of the loop goes with it.
            self._loop.call_soon(self._hand_over)
        self._queued.append(flying)
        return flying.future

    def _hand_over(self) -> None:
        if self._sender is not None and self._queued:
            queued, self._queued = self._queued, []
            self._sender.put(queued)

    def _settle(self, acknowledged: Sequence[tuple[Sequence[_InFlight], int]]) -> None:
        durable: list[Record] = []
        for batch, first in acknowledged:
            for offset, flying in enumerate(batch, first):
                if flying in self._flying:  # It may have failed before: its sender was given up.
                    durable.append(self._acknowledge(flying, Offset(offset)))
        if durable:
            self._durable(durable)
        if not self._flying:
            self._landed.set()

    def _acknowledge(self, flying: _InFlight, offset: Offset) -> Record:
        del self._flying[flying]
        self._bytes -= flying.size
        new = flying.record
        record = Record(new.at, offset, new.key, new.value, new.headers, new.timestamp_ms)
        if not flying.future.done():  # Its waiter may have cancelled it; it is durable anyway.
            flying.future.set_result(record)
        return record

    def _give_up(self, sender: Sender[_InFlight] | None, reason: str) -> None:
        if sender is None or sender is not self._sender:
            return
        self._sender = None
        self._reason = f"the brokers do not take events: {reason}"
        self.restarts += 1
        _log.error("events cannot be appended; a new producer is made", reason=reason)
        # Off the loop: closing waits for the sender's thread.
        threading.Thread(target=sender.close, daemon=True).start()
        self._fail_all(LogUnavailable(self._reason))
        if not self._closing:
            self._maker = asyncio.create_task(self._make_again())

    def _fail_all(self, error: LogUnavailable) -> None:
        flying, self._flying, self._queued, self._bytes = self._flying, {}, [], 0
        for each in flying:
            if not each.future.done():
                each.future.set_exception(error)
        self._landed.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            oldest = next(iter(self._flying), None)
            if oldest is None or oldest.queued_s > self._loop.time() - APPEND_S_MAX:
                continue
            if self._sender is not None:
                self._give_up(self._sender, f"no word of a record for {APPEND_S_MAX:g} s")
            else:  # They wait for a sender that is still being made.
                self._fail_all(LogUnavailable(self._reason))

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
                await asyncio.to_thread(made.close)
                return
            self._sender, self._refusing = made, False
            _log.info("events are appended again", restarts=self.restarts)
            self._hand_over()
            return

    def _make(self, within_s: float = 10.0) -> Sender[_InFlight]:
        options = self._brokers.options()
        return connected(self._brokers, lambda: self._open(options), within_s)

    def _open(self, options: Mapping[str, Any]) -> Sender[_InFlight]:
        sender: Sender[_InFlight] = Sender(
            options,
            self._partitions,
            request_s_max=REQUEST_S_MAX,
            acknowledged=lambda batches: self._tell(self._settle, batches),
            failed=lambda error: self._tell(self._give_up, sender, _words(error)),
        )
        return sender

    def _tell(self, function: Callable[..., None], *values: Any) -> None:
        with suppress(RuntimeError):  # The loop has gone: so have all who waited.
            self._loop.call_soon_threadsafe(function, *values)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
