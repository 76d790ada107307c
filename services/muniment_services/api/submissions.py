"""Requests that become several events: one command, and so one record, per thing that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from muniment_services.api.routes import Call
from muniment_services.domain.trace_data import TraceCommand
from muniment_services.write import Outcome

SUBMITTED_AT_ONCE_MAX = 200
"""Commands of one request that wait for the log together."""

DONE = b"1"
NOTHING_TO_DO = b"0"


async def submit_each(call: Call, commands: Sequence[TraceCommand]) -> int:
    """Submit commands on different traces; the answer counts those that changed something.

    With an Idempotency-Key each command gets a key of its own, so that a repeat of the request
    completes what the first one left undone and counts the same. Raises the first refusal; what was
    accepted before stays.
    """
    if not commands:
        call.authority.asked = True  # Nothing is changed, and nothing is told.
    changed = 0
    for start in range(0, len(commands), SUBMITTED_AT_ONCE_MAX):
        part = commands[start : start + SUBMITTED_AT_ONCE_MAX]
        answers = await asyncio.gather(*(_submit(call, command) for command in part))
        changed += sum(answer == DONE for answer in answers)
    return changed


async def _submit(call: Call, command: TraceCommand) -> bytes:
    caller = call.caller
    if caller.idempotency_key is not None:
        key = f"{caller.idempotency_key}\n{type(command).__name__} {command.trace_id}"
        caller = replace(caller, idempotency_key=key)
    return await call.services.writer.submit(caller, command, _render)


def _render(outcome: Outcome) -> bytes:
    return NOTHING_TO_DO if outcome.event is None else DONE
