"""Reports what this server could not fold to the quarantine topic, for every server and tool.

A report is a courtesy: what is in quarantine follows from the log and the release that folds it, so
a report that cannot be written now is written later, and one that is there is not written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.envelope import QUARANTINE, WORKSPACE_DEFAULT, Actor
from muniment_schemas.events import RecordQuarantined
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, Context
from muniment_services.fold import Fold
from muniment_services.log.base import EventLog, LogError, TopicPartition
from muniment_services.state import Stopped
from muniment_services.write import record_of

LOOK_S = 1.0
"""How often we look whether there is something to report."""

AT = TopicPartition(QUARANTINE, 0)
REASON_CHARS_MAX = 2_000

_log = structlog.get_logger("muniment.quarantine")


class Reports:
    """Writes one report per record that begins a quarantine. Lives on one event loop."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        fold: Fold,
        actor: Actor,
        release: str,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._log = log
        self._codec = codec
        self._fold = fold
        self._actor = actor
        self._release = release
        self._now_ms = now_ms
        self._random = random
        self._reported: set[str] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Report in the background."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Report nothing more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            if self._fold.state.quarantine:
                with suppress(LogError):  # It is tried again; the quarantine itself shows anyway.
                    await self._report_new()
            await asyncio.sleep(LOOK_S)

    async def _report_new(self) -> None:
        if self._reported is None:
            self._reported = await asyncio.to_thread(self._read_reported)
        for key, stopped in tuple(self._fold.state.quarantine.items()):
            name = f"{stopped.at.topic}-{stopped.at.partition}-{stopped.offset}"
            if name not in self._reported:
                _log.error(
                    "a record cannot be folded; its history stands still",
                    record=f"{stopped.at}@{stopped.offset}",
                    of="/".join(key),
                    reason=stopped.reason,
                )
                event = self._event(name, key, stopped)
                await self._log.append(record_of(event, self._codec, self._log))
                self._reported.add(name)

    def _event(self, name: str, key: AggregateKey, stopped: Stopped) -> RecordQuarantined:
        context = Context(
            now_ms=self._now_ms(),
            random=self._random,
            actor=self._actor,
            request_id="quarantine",
            workspace=WORKSPACE_DEFAULT,
        )
        return RecordQuarantined(
            envelope=context.envelope(RecordQuarantined, name),
            topic=stopped.at.topic,
            partition=stopped.at.partition,
            record_offset=stopped.offset,
            record_kind=key[0],
            record_id=key[1],
            record_type=stopped.event_type,
            reason=stopped.reason[:REASON_CHARS_MAX],
            release=self._release,
        )

    def _read_reported(self) -> set[str]:
        found: set[str] = set()
        start = Offset(0)
        while records := self._log.read(AT, start):
            for record in records:
                with suppress(CodecError):  # A report of a release that is newer than we are.
                    event = self._codec.decode(record.value)
                    if isinstance(event, RecordQuarantined) and event.release == self._release:
                        found.add(event.envelope.aggregate_id)
            start = Offset(records[-1].offset + 1)
        return found
