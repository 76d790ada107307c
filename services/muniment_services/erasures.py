"""Erasing who a principal is: the order is an event, and what follows from it is done until it is.

The log decides. `PrincipalErased` comes first; then the principal's tokens and sessions are revoked
and its key is destroyed. A crash or a place of keys that is down in between changes nothing: each
start, and each repetition of the order, finishes what the log orders. From the moment the event is
folded no replica tells who it was (`identities.py`). No other event is changed, so every proof over
the log goes on verifying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import structlog

from muniment_auth.identity import KeyPlace
from muniment_services.domain import credential
from muniment_services.domain.commands import Command
from muniment_services.domain.principal import KIND, PrincipalState
from muniment_services.fold import Fold

REASON = "its principal is erased"

Submit = Callable[[Command], Awaitable[None]]

_log = structlog.get_logger("muniment.privacy")


class Erasures:
    """Finishes erasures. Lives on one event loop; keys are destroyed in a thread."""

    def __init__(
        self, place: KeyPlace, fold: Fold, submit: Submit, now_ms: Callable[[], int]
    ) -> None:
        """submit: records a command of the server's own."""
        self._place = place
        self._fold = fold
        self._submit = submit
        self._now_ms = now_ms

    async def finish(self) -> int:
        """Do all that the log orders and that is not done yet; returns how many keys that was.

        Raises KeysUnavailable, and what a write raises.
        """
        for principal in self._erased():
            await self._revoke(principal)
        ordered = {key for found in self._principals() for key in found.erased_key_ids}
        if not ordered:
            return 0
        left = ordered.intersection(await asyncio.to_thread(self._place.names))
        for key_id in sorted(left):
            await asyncio.to_thread(self._place.remove, key_id)
        if left:
            _log.info("keys of erased principals are destroyed", keys=len(left))
        return len(left)

    async def _revoke(self, principal: PrincipalState) -> None:
        erased_at_ms = principal.erased_at_ms or 0
        for found in credential.of_principal(self._fold.state, principal.principal_id):
            if found.issued_at_ms <= erased_at_ms and found.is_live(self._now_ms()):
                command = credential.RevokeCredential(
                    credential_id=found.credential_id, reason=REASON
                )
                await self._submit(command)

    def _principals(self) -> Iterator[PrincipalState]:
        for found in self._fold.state.of_kind(KIND):
            assert isinstance(found, PrincipalState)
            yield found

    def _erased(self) -> list[PrincipalState]:
        return [found for found in self._principals() if found.erased_at_ms is not None]
