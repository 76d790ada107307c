"""Folds the log as it grows: state first, then whoever waits for a record, then the projections.

One task follows the log. A write waits here until its own record has been folded and learns whether
it applied. Events that this process wrote are not decoded again. Another task asks the log now and
then where it ends: so a log that cannot be reached, or that has lost events, is noticed unasked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import duckdb
import structlog

from muniment_projections.base import Folded
from muniment_projections.runner import PENDING_EVENTS_MAX, ProjectionsUnavailable, Runner
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, State
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.domain.errors import Quarantined, Void
from muniment_services.log.base import (
    ACCESS,
    CATALOG,
    IN_FLIGHT_RECORDS_MAX,
    RUNS,
    EventLog,
    LogCorrupt,
    LogError,
    LogUnavailable,
    NewRecord,
    Record,
    TopicPartition,
)
from muniment_services.metrics import Metrics
from muniment_services.state import CurrentState
from muniment_services.unreadable import event_of

STATE_TOPICS = (CATALOG, RUNS)
"""Topics whose events change state: what every reader and writer waits for."""

FOLDED_TOPICS = (*STATE_TOPICS, ACCESS)
"""Topics whose events projections hold. The others are written for readers of the log."""

CATCH_UP_S_MAX = 10.0
"""A reader waits at most so long until what was in the log when it came has been folded."""

WRITE_S_MAX = 20.0
"""A write waits at most so long, from its append, until its record has been folded."""

WATCH_S = 1.0
"""How often the log is asked where it ends when nobody else asks."""

LOOK_UP_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between tries to read the catalog for a schema; each waits for the brokers as well."""

AHEAD_EVENTS_MAX = PENDING_EVENTS_MAX + IN_FLIGHT_RECORDS_MAX
"""Nothing more is folded while so much waits for the projections: other replicas write on while
this one's disk is full. More than this one itself can have under way when it refuses writes."""

AHEAD_POLL_S = 0.25

LOADED_AT_ONCE_MAX = 500
"""Aggregates that one read of the projections brings into memory at most."""

UNUSED_ID = "-"
"""What no id begins with."""

Knows = Callable[[CurrentState, str, str], bool]
"""(state, kind, id) to whether somebody may know that there is such an aggregate."""

Load = Callable[[Sequence[AggregateKey]], Awaitable[Mapping[AggregateKey, State]]]
_log = structlog.get_logger("muniment.fold")


@dataclass(frozen=True, slots=True)
class _Own:
    """An event of this process on its way. is_new: it was decided on an aggregate that was not.

    waiter: who waits until it is folded; None where its being durable is enough.
    """

    event: Event
    waiter: asyncio.Future[Folded] | None
    is_new: bool
    appended_s: float


class Fold:
    """Follows one log into one CurrentState and one Runner. Lives on one event loop."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        state: CurrentState,
        runner: Runner,
        load: Load,
        now_ms: Callable[[], int],
        metrics: Metrics | None = None,
    ) -> None:
        self.state = state
        self.log = log
        self.codec = codec
        self._runner = runner
        self._load = load
        self._loading: dict[AggregateKey, asyncio.Future[None]] = {}
        self._wanted: list[AggregateKey] = []
        self._loader: asyncio.Task[None] | None = None
        self._own: dict[bytes, _Own] = {}
        self._behind: list[tuple[Mapping[TopicPartition, Offset], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._stopping = False
        self._now_ms = now_ms
        self._metrics = metrics or Metrics()
        self.failure: str | None = None
        """Why nothing is folded any more; only a new start, on a log that is whole, mends it."""
        self.stale_since_ms: int | None = None
        """Since when the log cannot be asked what is new; None while it can."""
        self.ends: Mapping[TopicPartition, Offset] = {}
        """Where the log ended when it was last asked."""

    def start(self) -> None:
        """Follow the log from where the state stands."""
        self._task = asyncio.create_task(self._run())
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Wait for the fold to end, which it does when the log has been closed and is folded."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self._task is not None:
            await self._task

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Fold nothing meanwhile; what is folded so far can be exchanged for the same."""
        async with self._turn:
            yield

    def exchange(self, state: CurrentState) -> None:
        """Go on from another state of the same place in the log. Only while `paused`."""
        assert state.next_offsets == self.state.next_offsets, "the states are not level"
        state.folded = self.state.folded
        self.state = state

    async def append(self, record: NewRecord, event: Event) -> Folded:
        """Append an event's record and wait until it is durable and folded.

        Raises Void when the event did not apply, Quarantined when an earlier one of its history
        cannot be folded, LogUnavailable or LogBackpressure when it was not (or perhaps not) written
        or not folded in time.
        """
        if self.failure is not None:
            raise LogUnavailable(self.failure)
        waiter: asyncio.Future[Folded] = asyncio.get_running_loop().create_future()
        self._append(record, event, waiter)
        folded = await waiter
        if folded.quarantine is not None:
            raise Quarantined(event.AGGREGATE, event.envelope.aggregate_id)
        if folded.void is not None:
            raise Void(folded.void)
        return folded

    async def note(self, record: NewRecord, event: Event) -> None:
        """Append the record of an event that no state follows from; wait until it is durable.

        Raises LogUnavailable or LogBackpressure when it was not (or perhaps not) written in time.
        """
        if self.failure is not None:
            raise LogUnavailable(self.failure)
        appended = self._append(record, event, None)
        # Nobody's patience decides whether the record is written: `wait` does not cancel it.
        done, _ = await asyncio.wait((appended,), timeout=WRITE_S_MAX)
        if not done:
            raise LogUnavailable(f"the event was not written within {WRITE_S_MAX:g} s")
        appended.result()

    def _append(
        self, record: NewRecord, event: Event, waiter: asyncio.Future[Folded] | None
    ) -> asyncio.Future[Record]:
        event_id = event.envelope.event_id.encode()
        is_new = waiter is None or self.state.get(*_key(event)) is None
        began_s = time.perf_counter()  # The loop's own clock has steps of a millisecond.
        try:
            appended = self.log.append(record)
        except LogError as error:
            self._metrics.append_failed(error)
            raise
        now = asyncio.get_running_loop().time()
        self._own[event_id] = _Own(event, waiter, is_new, now)
        appended.add_done_callback(lambda done: self._appended(done, event_id, began_s))
        return appended

    async def ensure_loaded(self, keys: Sequence[AggregateKey]) -> Sequence[AggregateKey]:
        """Bring aggregates into memory, those that exist. Returns those that had to be looked for.

        Each is read once however many callers want it, and what is wanted while a read is under way
        is read together. Raises what the read raised.
        """
        missing = self.state.missing(keys)
        if not missing:
            return missing
        for key in missing:
            if key not in self._loading:
                self._loading[key] = asyncio.get_running_loop().create_future()
                self._wanted.append(key)
        loads = [self._loading[key] for key in missing]
        if self._loader is None:
            self._loader = asyncio.create_task(self._load_wanted())
        await asyncio.gather(*loads)
        return missing

    async def level(
        self, keys: Sequence[AggregateKey], looked_for: Sequence[AggregateKey], knows: Knows
    ) -> None:
        """Take as long over what is hidden from a caller as over what is not there.

        keys: what a request named; looked_for: what `ensure_loaded` returned for them. What is not
        there is looked for in the projections whenever it is named, and what is in memory is not:
        so for each key that is in memory and hidden, an id that nothing has is looked for.
        """
        hidden = [
            (kind, UNUSED_ID + aggregate_id)
            for kind, aggregate_id in dict.fromkeys(keys)
            if (kind, aggregate_id) not in looked_for and not knows(self.state, kind, aggregate_id)
        ]
        await self.ensure_loaded(hidden)

    async def look_up(self, keys: Sequence[AggregateKey], knows: Knows) -> None:
        """Bring aggregates into memory, and take as long over those that are hidden as over none.

        knows: whether the caller may know of one (`Authority.knows`).
        """
        await self.level(keys, await self.ensure_loaded(keys), knows)

    async def caught_up(self, topics: Collection[str] = STATE_TOPICS) -> None:
        """Wait until everything that is in the log's topics now has been folded.

        Raises LogUnavailable when the log cannot be asked, when that takes longer than
        CATCH_UP_S_MAX, or when the fold has stopped.
        """
        ends = {
            at: end
            for at, end in (await self._ask()).items()
            if at.topic in topics and self._is_behind(at, end)
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

    async def _ask(self) -> Mapping[TopicPartition, Offset]:
        folded = dict(self.state.next_offsets)
        try:
            ends = await self.log.end_offsets()
        except LogCorrupt as error:
            self._end(str(error))
            raise LogUnavailable(str(error)) from error
        except LogUnavailable as error:
            if self.stale_since_ms is None:
                self.stale_since_ms = self._now_ms()
                _log.error("the log cannot be asked what is new", reason=error.reason)
            raise
        if self.stale_since_ms is not None:
            self.stale_since_ms = None
            _log.info("the log can be asked again")
        self.ends = ends
        self._refuse_loss(folded, ends)
        return ends

    def _refuse_loss(
        self, folded: Mapping[TopicPartition, Offset], ends: Mapping[TopicPartition, Offset]
    ) -> None:
        # What this process had folded before it asked was in the log then, so it must be still.
        lost = [
            f"{at} ends at {ends.get(at, 0)}, {due} records were folded"
            for at, due in folded.items()
            if ends.get(at, 0) < due
        ]
        if lost:
            self._end(f"the log has lost events: {'; '.join(lost)}")
            raise LogUnavailable(self.failure or "")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self._give_up_waiting()
            if self.failure is None:
                with suppress(LogError):  # It is noted where all see it: failure, stale_since_ms.
                    ends = await self._ask()
                    if not any(self._is_behind(at, end) for at, end in ends.items()):
                        self._metrics.level(self._now_ms(), self._runner.written)

    def _give_up_waiting(self) -> None:
        longest = asyncio.get_running_loop().time() - WRITE_S_MAX
        for own in self._own.values():
            if own.appended_s > longest:
                return  # In the order of their appends: the others are younger.
            if own.waiter is not None and not own.waiter.done():
                own.waiter.set_exception(
                    LogUnavailable(f"the event was not folded within {WRITE_S_MAX:g} s")
                )

    def _end(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            _log.critical("nothing is folded any more", reason=reason)
            self._fail_waiters(LogUnavailable(reason))

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

    def _appended(self, done: asyncio.Future[Record], event_id: bytes, began_s: float) -> None:
        if not done.cancelled() and done.exception() is None:
            self._metrics.appended(time.perf_counter() - began_s)
        else:
            self._metrics.append_failed(None if done.cancelled() else done.exception())
            waiter = self._own.pop(event_id).waiter
            if waiter is not None and not waiter.done():
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
                # Seldom, and then for seconds: no need to be woken.
                while self._runner.backlog > AHEAD_EVENTS_MAX and not self._stopping:  # noqa: ASYNC110
                    await asyncio.sleep(AHEAD_POLL_S)
                async with self._turn:
                    await self._fold(records)
        except Exception as error:  # noqa: BLE001
            # The edge of this task: an event that cannot be folded is our fault. Stop, do not skip.
            _log.critical("the fold stopped", error=str(error), exc_info=True)
            self._end(f"the fold stopped: {error}")
            return
        self._fail_waiters(LogUnavailable("the server is shutting down"))

    async def _fold(self, records: Sequence[Record]) -> None:
        events = [
            await self._looked_up(record) if self._needs_log(record) else self._event(record)
            for record in records
        ]
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
        recorded_ms = max(record.timestamp_ms for record in records)
        self._metrics.folded(folded, recorded_ms, self._runner.written)
        for record, item in zip(records, folded, strict=True):
            own = self._own.pop(record.event_id, None)
            if own is not None and own.waiter is not None and not own.waiter.done():
                own.waiter.set_result(item)
        self._release()
        self.state.trim(self._runner.written)

    def _event(self, record: Record) -> Event:
        own = self._own.get(record.event_id)
        return own.event if own is not None else event_of(self.codec, record)

    def _needs_log(self, record: Record) -> bool:
        return record.event_id not in self._own and self.codec.needs_log(record.value)

    async def _looked_up(self, record: Record) -> Event:
        # What a registry's id means stands in the catalog, which may not have come to us yet.
        for pause_s in LOOK_UP_PAUSES_S:
            try:
                return await asyncio.to_thread(event_of, self.codec, record)
            except LogUnavailable as error:
                _log.warning("the schema of a record cannot be looked up", reason=str(error))
                await asyncio.sleep(pause_s)
        return await asyncio.to_thread(event_of, self.codec, record)

    def _is_own_creation(self, record: Record) -> bool:
        # What this process has just given a new id cannot be in the projections. All else is read
        # back if it is not in memory (any more): what a record leads to must not depend on that.
        own = self._own.get(record.event_id)
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
            if own.waiter is not None and not own.waiter.done():
                own.waiter.set_exception(error)
        for _, folded in self._behind:
            if not folded.done():
                folded.set_exception(error)
        self._own.clear()
        self._behind.clear()


def _key(event: Event) -> AggregateKey:
    return event.envelope.aggregate_kind, event.envelope.aggregate_id
