"""What handlers work with: the write path, current state, projections and artifacts, wired once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from muniment_projections.base import Connection
from muniment_projections.runner import Runner
from muniment_services.artifacts.keeper import Artifacts
from muniment_services.domain.commands import State
from muniment_services.fold import Fold
from muniment_services.rebuilder import Rebuilder
from muniment_services.write import Writer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Services:
    """The application as handlers see it. artifact_root: URI below which experiments keep files."""

    writer: Writer
    fold: Fold
    runner: Runner
    rebuilder: Rebuilder
    artifact_root: str
    artifacts: Artifacts

    async def state(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate, as of everything that was in the log when this was called."""
        await self.fold.caught_up()
        await self.fold.ensure_loaded(((kind, aggregate_id),))
        return self.fold.state.get(kind, aggregate_id)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on projections that hold everything that was in the log at this call."""
        await self.fold.caught_up()
        await self.runner.fresh()
        return await self.runner.read(query)
