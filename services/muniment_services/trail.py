"""The trail's writer: calls that are no event of their own, durable before they are answered.

**Fail closed**: `record` returns once the call is in the log, and raises TrailUnavailable when it
cannot be; its caller then answers nothing else. In degraded mode, which operators have to ask for,
the call is answered and counted as lost instead, and a `TrailGap` says so in the log when it can be
written again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from muniment_auth.identity import KeysUnavailable
from muniment_auth.principal import NOBODY, Principal
from muniment_projections.runner import PENDING_EVENTS_MAX, Runner
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor, Envelope, Event
from muniment_schemas.events import ApiCalled, TrailGap
from muniment_schemas.ids import UUID7_RANDOM_BYTES, dashed, uuid7_hex
from muniment_services.fold import Fold
from muniment_services.identities import Identities
from muniment_services.log.base import LogBackpressure, LogError, LogUnavailable
from muniment_services.metrics import Metrics
from muniment_services.redaction import Redaction
from muniment_services.write import record_of

GAP_RETRY_S = 1.0
"""How often it is tried to write down what was lost."""

GAP_ID = "trail"
"""Id of the one aggregate that gaps belong to."""

_log = structlog.get_logger("muniment.trail")


class TrailUnavailable(LogError):
    """A call cannot be recorded now, so it is not answered. Nothing of it is told."""

    retry_after_s = 5

    def __init__(self, reason: str) -> None:
        super().__init__(f"This call cannot be recorded now, so it is not answered: {reason}")


@dataclass(frozen=True, slots=True)
class Lost:
    """Calls that were answered and are not in the log."""

    calls: int
    first_at_ms: int
    last_at_ms: int
    reason: str

    def and_later(self, later: Lost) -> Lost:
        """These and later ones together."""
        return replace(later, calls=self.calls + later.calls, first_at_ms=self.first_at_ms)


class Trail:
    """Records calls. Lives on one event loop. actor: the server itself, who tells of gaps."""

    def __init__(
        self,
        fold: Fold,
        codec: Codec,
        runner: Runner,
        identities: Identities,
        redaction: Redaction,
        actor: Actor,
        now_ms: Callable[[], int],
        metrics: Metrics | None = None,
        degraded: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.redaction = redaction
        self._fold = fold
        self._codec = codec
        self._runner = runner
        self._identities = identities
        self._actor = actor
        self._now_ms = now_ms
        self._metrics = metrics or Metrics()
        self._degraded = degraded
        self._random = random
        self._lost: Lost | None = None
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tell of gaps from now on, in degraded mode; in strict mode there are none."""
        if self._degraded:
            self._telling = asyncio.create_task(self._tell_always())

    async def close(self) -> None:
        """Write down what is lost so far, if the log takes it."""
        if self._telling is not None:
            self._telling.cancel()
            with suppress(asyncio.CancelledError):
                await self._telling
            await self._tell()

    def envelope(
        self,
        event_type: type[Event],
        aggregate_id: str,
        actor: Actor,
        request_id: str,
        workspace: str = WORKSPACE_DEFAULT,
        traceparent: str | None = None,
        client_address: str | None = None,
        user_agent: str | None = None,
    ) -> Envelope:
        """The envelope of an event of the trail."""
        now_ms = self._now_ms()
        return Envelope(
            event_id=dashed(uuid7_hex(now_ms, self._random(UUID7_RANDOM_BYTES))),
            type=event_type.__name__,
            aggregate_kind=event_type.AGGREGATE,
            aggregate_id=aggregate_id,
            workspace=workspace,
            actor=actor,
            request_id=request_id,
            traceparent=traceparent,
            client_address=client_address,
            user_agent=user_agent,
            recorded_at_ms=now_ms,
        )

    async def record(self, principal: Principal, call: ApiCalled) -> None:
        """Have a call durable in the log; records of calls that come together are one commit.

        principal: whose call it is. Raises TrailUnavailable, unless the mode is degraded.
        """
        try:
            if principal is not NOBODY:
                await self._identities.register_once(principal)
            await self._write(call)
        except (LogError, KeysUnavailable) as error:
            if not self._degraded:
                raise TrailUnavailable(str(error)) from error
            self._lose(call.envelope.recorded_at_ms, str(error))
        else:
            self._metrics.trail_recorded()

    async def _write(self, event: Event) -> None:
        if self._fold.stale_since_ms is not None:
            raise LogUnavailable("it cannot be reached")
        if self._runner.backlog > PENDING_EVENTS_MAX:
            raise LogBackpressure("The projections are too far behind.")
        await self._fold.note(record_of(event, self._codec, self._fold.log), event)

    def _lose(self, at_ms: int, reason: str) -> None:
        self._metrics.trail_lost()
        lost = Lost(1, at_ms, at_ms, reason)
        if self._lost is None:
            _log.error("calls are answered that the trail does not hold", reason=reason)
        self._lost = lost if self._lost is None else self._lost.and_later(lost)

    async def _tell_always(self) -> None:
        while True:
            await asyncio.sleep(GAP_RETRY_S)
            await self._tell()

    async def _tell(self) -> None:
        lost, self._lost = self._lost, None
        if lost is None:
            return
        event = TrailGap(
            envelope=self.envelope(TrailGap, GAP_ID, self._actor, "trail"),
            lost=lost.calls,
            first_at_ms=lost.first_at_ms,
            last_at_ms=lost.last_at_ms,
            reason=lost.reason,
        )
        told = False
        try:
            await self._write(event)
            told = True
        except LogError:
            return  # It is tried again.
        finally:
            if not told:
                self._lost = lost if self._lost is None else lost.and_later(self._lost)
