"""Folds the log as it grows: state first, then whoever waits for a record, then the projections.

One task follows the log. A write waits here until its own record has been folded and learns whether
it applied. Events that this process wrote are not decoded again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import structlog

from muniment_projections.base import Folded
from muniment_projections.runner import ProjectionsUnavailable, Runner
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, State
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.domain.errors import Void
from muniment_services.log.base import EventLog, LogUnavailable, NewRecord, Record, TopicPartition
from muniment_services.state import CurrentState

FOLDED_TOPICS = ("catalog", "runs")
"""Topics whose events change state. The others are written for readers of the log."""

CATCH_UP_S_MAX = 10.0
"""A reader waits at most so long until what was in the log when it came has been folded."""

LOADED_AT_ONCE_MAX = 500
"""Aggregates that one read of the projections brings into memory at most."""

Load = Callable[[Sequence[AggregateKey]], Awaitable[Mapping[AggregateKey, State]]]
_log = structlog.get_logger("muniment.fold")


@dataclass(frozen=True, slots=True)
class _Own:
    """An event of this process on its way. is_new: it was decided on an aggregate that was not."""

    event: Event
    waiter: asyncio.Future[Folded]
    is_new: bool


class Fold:
    """Follows one log into one CurrentState and one Runner. Lives on one event loop."""

    def __init__(
        self, log: EventLog, codec: Codec, state: CurrentState, runner: Runner, load: Load
    ) -> None:
        self.state = state
        self.log = log
        self._codec = codec
        self._runner = runner
        self._load = load
        self._loading: dict[AggregateKey, asyncio.Future[None]] = {}
        self._wanted: list[AggregateKey] = []
        self._loader: asyncio.Task[None] | None = None
        self._own: dict[bytes, _Own] = {}
        self._behind: list[tuple[Mapping[TopicPartition, Offset], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.failure: str | None = None

    def start(self) -> None:
        """Follow the log from where the state stands."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Wait for the fold to end, which it does when the log has been closed and is folded."""
        if self._task is not None:
            await self._task

    async def append(self, record: NewRecord, event: Event) -> Folded:
        """Append an event's record and wait until it is durable and folded.

        Raises Void when the event did not apply, LogUnavailable or LogBackpressure when it was not
        (or perhaps not) written.
        """
        if self.failure is not None:
            raise LogUnavailable(self.failure)
        waiter: asyncio.Future[Folded] = asyncio.get_running_loop().create_future()
        event_id = event.envelope.event_id.encode()
        is_new = self.state.get(*_key(event)) is None
        appended = self.log.append(record)
        self._own[event_id] = _Own(event, waiter, is_new)
        appended.add_done_callback(lambda done: self._appended(done, event_id))
        folded = await waiter
        if folded.void is not None:
            raise Void(folded.void)
        return folded

    async def ensure_loaded(self, keys: Sequence[AggregateKey]) -> None:
        """Bring aggregates into memory, those that exist.

        Each is read once however many callers want it, and what is wanted while a read is under way
        is read together. Raises what the read raised.
        """
        missing = self.state.missing(keys)
        if not missing:
            return
        for key in missing:
            if key not in self._loading:
                self._loading[key] = asyncio.get_running_loop().create_future()
                self._wanted.append(key)
        loads = [self._loading[key] for key in missing]
        if self._loader is None:
            self._loader = asyncio.create_task(self._load_wanted())
        await asyncio.gather(*loads)

    async def caught_up(self) -> None:
        """Wait until everything that is in the log now has been folded.

        Raises LogUnavailable when that takes longer than CATCH_UP_S_MAX, or the fold has stopped.
        """
        ends = {
            at: end
            for at, end in (await self.log.end_offsets()).items()
            if self._is_behind(at, end)
        }
        if not ends:
            return
        if self.failure is not None:
            raise LogUnavailable(self.failure)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind.append((ends, waiter))
        try:
            await asyncio.wait_for(waiter, CATCH_UP_S_MAX)
        except TimeoutError:
            raise LogUnavailable("the fold is behind the log; try again") from None

    def _is_behind(self, at: TopicPartition, end: Offset) -> bool:
        return at.topic in FOLDED_TOPICS and self.state.next_offsets.get(at, 0) < end

    async def _load_wanted(self) -> None:
        while self._wanted:
            keys, self._wanted = (
                self._wanted[:LOADED_AT_ONCE_MAX],
                self._wanted[LOADED_AT_ONCE_MAX:],
            )
            try:
                self.state.admit(await self._load(keys))
                failure = None
            except (duckdb.Error, ProjectionsUnavailable) as error:
                failure = LogUnavailable(f"the projections cannot be read: {error}")
            for key in keys:
                load = self._loading.pop(key)
                if not load.done():
                    load.set_exception(failure) if failure else load.set_result(None)
        self._loader = None

    def _appended(self, done: asyncio.Future[Record], event_id: bytes) -> None:
        if done.cancelled() or done.exception() is not None:
            waiter = self._own.pop(event_id).waiter
            if not waiter.done():
                waiter.set_exception(done.exception() or LogUnavailable("the append was cancelled"))

    async def _run(self) -> None:
        start = {
            TopicPartition(topic, partition): self.state.next_offsets.get(
                TopicPartition(topic, partition), Offset(0)
            )
            for topic in FOLDED_TOPICS
            for partition in range(self.log.partitions[topic])
        }
        try:
            async for records in self.log.follow(start):
                await self._fold(records)
        except Exception as error:  # noqa: BLE001
            # The edge of this task: an event that cannot be folded is our fault. Stop, do not skip.
            self.failure = f"the fold stopped: {error}"
            _log.critical("the fold stopped", error=str(error), exc_info=True)
            self._fail_waiters(LogUnavailable(self.failure))
            return
        self._fail_waiters(LogUnavailable("the server is shutting down"))

    async def _fold(self, records: Sequence[Record]) -> None:
        events = [self._event(record) for record in records]
        needed = [
            _key(event)
            for record, event in zip(records, events, strict=True)
            if event.AGGREGATE in EVOLVERS and not self._is_own_creation(record)
        ]
        if self.state.missing(needed):
            await self.ensure_loaded(needed)
        folded = [
            self.state.fold(record, event) for record, event in zip(records, events, strict=True)
        ]
        self._runner.add(folded, {(r.at.topic, r.at.partition): r.offset + 1 for r in records})
        for record, item in zip(records, folded, strict=True):
            own = self._own.pop(record.headers[0][1], None)
            if own is not None and not own.waiter.done():
                own.waiter.set_result(item)
        self._release()
        self.state.trim(self._runner.written)

    def _event(self, record: Record) -> Event:
        own = self._own.get(record.headers[0][1])
        return own.event if own is not None else self._codec.decode(record.value)

    def _is_own_creation(self, record: Record) -> bool:
        # What this process has just given a new id cannot be in the projections. All else is read
        # back if it is not in memory (any more): what a record leads to must not depend on that.
        own = self._own.get(record.headers[0][1])
        return own is not None and own.is_new

    def _release(self) -> None:
        if not self._behind:
            return
        still = []
        for ends, waiter in self._behind:
            if any(self._is_behind(at, end) for at, end in ends.items()):
                still.append((ends, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._behind = still

    def _fail_waiters(self, error: LogUnavailable) -> None:
        for own in self._own.values():
            if not own.waiter.done():
                own.waiter.set_exception(error)
        for _, folded in self._behind:
            if not folded.done():
                folded.set_exception(error)
        self._own.clear()
        self._behind.clear()


def _key(event: Event) -> AggregateKey:
    return event.envelope.aggregate_kind, event.envelope.aggregate_id
