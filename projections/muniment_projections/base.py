"""What a projection is: tables that are a function of the log, and of nothing else.

The fold (one pass over the log, `muniment_services.state`) decides once whether an event applies
and what its aggregate is afterwards; projections write that down. Rows and checkpoints are
committed in one transaction, so the database can be deleted at any time and loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import duckdb
import msgspec
import pyarrow as pa

from muniment_schemas.events import Event

BATCH_EVENTS_MAX = 20_000
"""Events that one transaction takes at most."""

Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why a record was not folded: it could not be, or an earlier one of its history could not.

    held: the record itself may be good; it waits behind the one that is not.
    """

    reason: str
    held: bool


@dataclass(frozen=True, slots=True)
class Folded:
    """One record of the log after its fold.

    void: None when the event applied, else why it did not; `after` is then the unchanged aggregate.
    after: the aggregate's frozen state behind this event; None when it does not exist any more, or
    when events of this kind have no state (artifacts).
    quarantine: set when the record is in quarantine; `void` then says so too, and nothing applied.
    before: the aggregate's state that the event met; None when there was none.
    """

    topic: str
    partition: int
    offset: int
    event: Event
    void: str | None
    after: msgspec.Struct | None
    quarantine: Quarantine | None = None
    before: msgspec.Struct | None = None


class Projection(Protocol):
    """One folder's tables. Raising is a fault of ours: the fold stops rather than skip."""

    @property
    def name(self) -> str:
        """Name of the projection, for progress and metrics."""

    def create(self, tx: Connection) -> None:
        """Create the tables in an empty database."""

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Write what a batch changes: 1 to BATCH_EVENTS_MAX items, in log order per partition.

        Void events are part of the batch; a projection that only wants effects skips them.
        """


def applied(batch: Iterable[Folded]) -> Iterable[Folded]:
    """The items whose events took effect."""
    return (item for item in batch if item.void is None)


def last_applied(batch: Iterable[Folded], aggregate: str) -> dict[str, Folded]:
    """For each aggregate of a kind that the batch changed, by id: the last item that applied."""
    return {
        item.event.envelope.aggregate_id: item
        for item in applied(batch)
        if aggregate == item.event.AGGREGATE
    }


def run_with(tx: Connection, name: str, rows: pa.Table, statements: Iterable[str]) -> None:
    """Run statements that read `rows` under a name which is theirs alone."""
    tx.register(name, rows)
    try:
        for statement in statements:
            tx.execute(statement)
    finally:
        tx.unregister(name)


def document(state: msgspec.Struct) -> bytes:
    """An aggregate's state as MessagePack: what a table keeps beside its searchable columns."""
    return msgspec.msgpack.encode(state)
