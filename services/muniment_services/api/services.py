"""What handlers work with: the write path, current state, projections and artifacts, wired once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from muniment_auth.code_flow import CodeFlow
from muniment_auth.credentials import Credentials
from muniment_auth.permissions import Permission
from muniment_auth.sessions import LoginCookies
from muniment_projections.base import Connection
from muniment_projections.runner import Runner
from muniment_schemas.codec import Codec
from muniment_services.accesses import Accesses
from muniment_services.api.session_renewal import Renewals
from muniment_services.artifacts.keeper import Artifacts
from muniment_services.clock import now_ms
from muniment_services.domain.commands import State
from muniment_services.domain.errors import Quarantined
from muniment_services.erasures import Erasures
from muniment_services.fold import FOLDED_TOPICS, STATE_TOPICS, Fold
from muniment_services.identities import Identities
from muniment_services.log.base import LogUnavailable
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.prover import Prover
from muniment_services.rebuilder import Rebuilder
from muniment_services.snapshotter import Snapshotter
from muniment_services.sql.analysts import Analysts
from muniment_services.trail import Trail
from muniment_services.write import Writer

TAILS_MAX = 20
"""Live tails of the trail at a time."""

EXPORTS_MAX = 2
"""Evidence packs that are made at a time; who asks for more is told to come back."""
REPORTS_MAX = 2
"""Reports, and states of runs and access in the past, that are worked out at a time, so that other
reads find a thread; more of them wait."""

STALE_HEADER = b"muniment-stale"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """What a login by browser needs. public_url: as browsers know the server, without a path."""

    flow: CodeFlow
    cookies: LoginCookies
    public_url: str


@dataclass(frozen=True, slots=True)
class Services:
    """The application as handlers see it. artifact_root: URI below which experiments keep files."""

    writer: Writer
    fold: Fold
    runner: Runner
    rebuilder: Rebuilder
    artifact_root: str
    artifacts: Artifacts
    snapshotter: Snapshotter
    identities: Identities
    credentials: Credentials
    erasures: Erasures
    projections: tuple[str, ...]
    """Their names, for metrics."""
    stale_reads: bool
    accesses: Accesses
    trail: Trail
    analysts: Analysts
    admin_groups: tuple[tuple[str, str], ...] = ()
    """(issuer, group) whose members the configuration makes admins."""
    now_ms: Callable[[], int] = now_ms
    access_changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the check of a caller's right to change access until the change is in the log."""
    renewals: Renewals = field(default_factory=lambda: Renewals(os.urandom))
    tails: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(TAILS_MAX))
    """Taken by each live tail of the trail."""
    exports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(EXPORTS_MAX))
    """Taken while an evidence pack is made."""
    reports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REPORTS_MAX))
    """Taken by each of them while it is worked out."""
    browser: BrowserLogin | None = None
    """None where nobody can log in by browser."""
    prover: Prover | None = None
    """None where proofs are turned off."""
    cosigner: Cosigner | None = None
    """None where there are no witnesses."""

    @property
    def codec(self) -> Codec:
        """What decodes the log's records."""
        return self.fold.codec

    async def state(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate, as of everything that was in the log when this was called.

        Raises Quarantined, and what `caught_up` raises.
        """
        await self.caught_up()
        await self.fold.ensure_loaded(((kind, aggregate_id),))
        if (kind, aggregate_id) in self.fold.state.quarantine:
            raise Quarantined(kind, aggregate_id)
        return self.fold.state.get(kind, aggregate_id)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on projections that hold everything that was in the log at this call."""
        await self.caught_up()
        await self.runner.fresh()
        return await self.runner.read(query)

    async def read_trail(self, query: Callable[[Connection], T]) -> T:
        """The same with every call that was recorded in the log by then, by any replica."""
        await self.caught_up(FOLDED_TOPICS)
        await self.runner.fresh(trail=True)
        return await self.runner.read(query)

    async def caught_up(self, topics: Collection[str] = STATE_TOPICS) -> None:
        """Wait until what is in the log's topics now is folded.

        While the log cannot be asked, and `stale_reads` allows it, what is folded so far has to do,
        and the answer is marked (`stale_header`). Raises LogUnavailable otherwise.
        """
        if self.stale_reads and self.fold.failure is None:
            if self.fold.stale_since_ms is not None:
                return
            try:
                await self.fold.caught_up(topics)
            except LogUnavailable:
                if self.fold.stale_since_ms is None:
                    raise
            return
        await self.fold.caught_up(topics)

    def stale_header(self, permission: Permission) -> tuple[bytes, bytes] | None:
        """The header that marks an answer which may be old: as of when it is not. None: it is new.

        It is asked for before and after an answer is made; one that is new may be marked by chance,
        one that is old is marked always.

        Writes are never stale: they are answered only after the log took them.
        """
        since_ms = self.fold.stale_since_ms
        if since_ms is None or not self.stale_reads:
            return None
        if not permission.endswith(":read") or permission is Permission.PUBLIC:
            return None
        as_of = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return STALE_HEADER, f"as_of={as_of}".encode()
