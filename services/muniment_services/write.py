"""The write path: current state, decision, append, fold, answer.

**Accepted means**: `submit` returns after the command's one record is durable in the log and has
been folded. What it returns is then true on this server and will be on every other. A command that
loses a race (its event was void) is decided again on the new state, so that the loser hears what
MLflow would have said.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec

from muniment_projections.runner import PENDING_EVENTS_MAX, Runner
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor, Event, Idempotency
from muniment_services import conditions
from muniment_services.approvers import gives, rights_of
from muniment_services.authority import Authority, Denied
from muniment_services.domain.commands import AggregateKey, Command, Context, State
from muniment_services.domain.deciders import DECIDERS
from muniment_services.domain.errors import DomainError, KeyReused, Quarantined, Void
from muniment_services.fold import Fold
from muniment_services.log.base import (
    EventLog,
    LogBackpressure,
    LogError,
    NewRecord,
    TopicPartition,
    partition_of,
)
from muniment_services.state import CurrentState
from muniment_services.targets import needs_of

VOID_RETRIES_MAX = 30
"""Times a command is decided again after losing a race, before the caller is told to retry."""

UNKNOWN = Denied("something that the request names is not known to this principal")

SOURCE = b"/muniment"
"""CloudEvents `source` of every record."""

Render = Callable[["Outcome"], bytes]

Redact = Callable[[Command, bytes], tuple[Command, bytes]]
"""Takes out of a command, and of the request that it came by, what must not come into the log."""


class Contended(LogError):
    """The command lost VOID_RETRIES_MAX races in a row. Nothing was changed; try again."""

    retry_after_s = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command led to: the event that was recorded (None: nothing to do), its aggregate."""

    event: Event | None
    after: State | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, by which request. `idempotency_key` and `request` (route and body) go together.

    groups, claims: what is verified of the actor; issuer, bare_groups: as a Context has them.
    authority: what the caller may do; None for the server itself.
    """

    actor: Actor
    request_id: str
    workspace: str
    traceparent: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    idempotency_key: str | None = None
    request: bytes = b""
    groups: frozenset[str] = frozenset()
    issuer: str = ""
    bare_groups: bool = True
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    authority: Authority | None = None

    @property
    def key_sha256(self) -> bytes | None:
        """What the key is remembered by: it belongs to a principal and a key, not to a body."""
        if self.idempotency_key is None:
            return None
        text = f"{self.actor.principal_id}\n{self.idempotency_key}"
        return hashlib.sha256(text.encode()).digest()


class Writer:
    """Decides commands and appends their events. Lives on one event loop."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        fold: Fold,
        runner: Runner,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        redact: Redact = lambda command, request: (command, request),
    ) -> None:
        self._redact = redact
        self._log = log
        self._codec = codec
        self._fold = fold
        self._runner = runner
        self._now_ms = now_ms
        self._random = random
        self._latest_ms = 0
        self._locks: dict[AggregateKey, tuple[asyncio.Lock, int]] = {}

    async def submit(self, caller: Caller, command: Command, render: Render) -> bytes:
        """Decide a command, record its event, and return the rendered answer (JSON).

        Raises Denied when the caller may not do it, DomainError when the command is refused
        (nothing changed), LogUnavailable, LogBackpressure or Contended when it could not be
        recorded now.
        """
        if self._runner.backlog > PENDING_EVENTS_MAX:
            raise LogBackpressure("The projections are too far behind; try again.")
        command, request = self._redact(command, caller.request)
        caller = caller if request is caller.request else replace(caller, request=request)
        key = caller.key_sha256
        serial = command.serial()
        if key is None and serial is None:
            return await self._submit(caller, command, render, None)
        async with self._locked(("idempotency", key.hex()) if key else None), self._locked(serial):
            return await self._submit(caller, command, render, key)

    async def _submit(
        self, caller: Caller, command: Command, render: Render, key: bytes | None
    ) -> bytes:
        for _ in range(VOID_RETRIES_MAX):
            if key is not None and (answer := await self._first_answer(caller, key)) is not None:
                await self._authorise(caller, command)
                return answer
            event = await self._decide(caller, command, key)
            if event is None:
                return render(Outcome(None, None))
            try:
                if key is not None:
                    event = self._with_answer(event, caller, render, key)
                folded = await self._fold.append(self._record(event), event)
            except Void:
                continue
            if caller.authority is not None:
                caller.authority.recorded = True
            assert folded.after is None or isinstance(folded.after, State)
            return render(Outcome(event, folded.after))
        raise Contended("Too many others write to the same thing at once; try again.")

    async def _decide(self, caller: Caller, command: Command, key: bytes | None) -> Event | None:
        """What the command leads to; None: nothing. Raises DomainError, Quarantined.

        A refusal, and "there is nothing to do", are said of a state that has all that is in the
        log: another server may have taken what this one has not folded yet.
        """
        if command.FRESH:
            await self._fold.caught_up()
            return await self._decided(caller, command, key)
        try:
            event = await self._decided(caller, command, key)
        except (DomainError, Denied):
            event = None
        if event is not None:
            return event
        await self._fold.caught_up()
        return await self._decided(caller, command, key)

    async def _decided(self, caller: Caller, command: Command, key: bytes | None) -> Event | None:
        keys = command.needs()
        looked_for = await self._fold.ensure_loaded(keys)
        if further := command.further_needs(self._fold.state):
            await self._fold.ensure_loaded(further)
        state = self._fold.state
        context = self._context(caller, key)
        authority = caller.authority
        if authority is None:
            event = DECIDERS[type(command)](state, command, context)
        else:
            _touch(authority, command)
            event = None
            try:
                event = _permitted(authority, state, command, context)
            finally:
                if event is None:  # Perhaps for something hidden, perhaps for something missing.
                    await self._fold.level(keys, looked_for, authority.knows)
        if event is not None:
            kind, aggregate_id = event.AGGREGATE, event.envelope.aggregate_id
            if (kind, aggregate_id) in state.quarantine:
                raise Quarantined(kind, aggregate_id)
        return event

    async def _authorise(self, caller: Caller, command: Command) -> None:
        # A repeat changes nothing, but tells: it needs what the first request needed.
        if caller.authority is None:
            return
        await self._fold.look_up(command.needs(), caller.authority.knows)
        if not caller.authority.check(needs_of(self._fold.state, command, caller.workspace)):
            raise UNKNOWN

    async def _first_answer(self, caller: Caller, key: bytes) -> bytes | None:
        await self._fold.caught_up()
        keyed = self._fold.state.keyed(key)
        if keyed is None:
            return None
        if keyed.request_sha256 != hashlib.sha256(caller.request).digest():
            raise KeyReused
        found = await asyncio.to_thread(self._log.read, keyed.at, keyed.offset, 1)
        idempotency = self._codec.decode(found[0].value).envelope.idempotency
        assert idempotency is not None
        return idempotency.answer

    def _with_answer(self, event: Event, caller: Caller, render: Render, key: bytes) -> Event:
        answer = render(Outcome(event, self._fold.state.preview(event)))
        idempotency = Idempotency(
            key_sha256=key,
            request_sha256=hashlib.sha256(caller.request).digest(),
            answer=answer,
        )
        envelope = msgspec.structs.replace(event.envelope, idempotency=idempotency)
        return msgspec.structs.replace(event, envelope=envelope)

    def _context(self, caller: Caller, key: bytes | None) -> Context:
        rights = {} if caller.authority is None else {"rights": rights_of(caller.authority)}
        return Context(
            now_ms=self._clock(),
            random=self._random,
            actor=caller.actor,
            request_id=caller.request_id,
            workspace=caller.workspace,
            traceparent=caller.traceparent,
            client_address=caller.client_address,
            user_agent=caller.user_agent,
            derive_from=key,
            groups=caller.groups,
            issuer=caller.issuer,
            bare_groups=caller.bare_groups,
            claims=caller.claims,
            holds=conditions.holds,
            gives=gives,
            **rights,
        )

    def _clock(self) -> int:
        # A clock that is set back must not make what comes later look earlier.
        self._latest_ms = max(self._latest_ms, self._now_ms())
        return self._latest_ms

    def _record(self, event: Event) -> NewRecord:
        return record_of(event, self._codec, self._log)

    @asynccontextmanager
    async def _locked(self, key: AggregateKey | None) -> AsyncIterator[None]:
        if key is None:
            yield
            return
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


def _permitted(
    authority: Authority, state: CurrentState, command: Command, context: Context
) -> Event | None:
    """What a command leads to on what the caller may see. Raises DomainError, Denied."""
    all_seen = authority.check(needs_of(state, command, context.workspace))
    event = DECIDERS[type(command)](authority.view(state), command, context)
    if event is not None and not all_seen:
        raise UNKNOWN
    return event


def _touch(authority: Authority, command: Command) -> None:
    for kind, aggregate_id in command.needs():
        authority.touch(kind, aggregate_id)
    authority.about_version(str(getattr(command, "version", "")))


def record_of(event: Event, codec: Codec, log: EventLog) -> NewRecord:
    """An event as the record that keeps it: Avro value, aggregate's key, CloudEvents headers.

    Artifacts are kept with the run or model that they belong to, so that its history is one.
    Source: CloudEvents 1.0, Kafka protocol binding (binary mode).
    """
    envelope = event.envelope
    key = getattr(event, "owner", envelope.aggregate_id).encode()
    partition = partition_of(key, log.partitions[event.TOPIC])
    return NewRecord(
        at=TopicPartition(event.TOPIC, partition),
        key=key,
        value=codec.encode(event),
        headers=(
            ("ce_id", envelope.event_id.encode()),
            ("ce_specversion", b"1.0"),
            ("ce_type", envelope.type.encode()),
            ("ce_source", SOURCE),
            ("ce_subject", f"{envelope.aggregate_kind}/{envelope.aggregate_id}".encode()),
            ("content-type", b"application/avro"),
        ),
        timestamp_ms=envelope.recorded_at_ms,
    )
