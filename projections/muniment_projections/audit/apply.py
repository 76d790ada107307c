"""Writes the `audit_events` table: a row for every event of a batch, built column by column.

Events of jobs are most of all and have the fewest columns; calls, and events of the catalog, are
written by statements of their own, so that none of them pays for columns that it does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import msgspec
import pyarrow as pa

from muniment_projections.audit import tables
from muniment_projections.audit.actions import ACTIONS, UNREADABLE, of_call
from muniment_projections.audit.changes import changed
from muniment_projections.audit.clocks import Clocks
from muniment_projections.base import Connection, Folded, run_with
from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG, Event

SUCCESS = "success"
VOID = "void"

UNCOMPARED = frozenset({"schema", "schema_id"})
"""Kinds of the catalog of which no change is shown: they are made once, and large."""

TYPES: Final = {
    "partition": pa.int32(),
    "offset": pa.int64(),
    "at_ms": pa.int64(),
    "resource_version": pa.int32(),
    "status": pa.int32(),
    "duration_us": pa.int64(),
    "bytes_in": pa.int64(),
    "bytes_out": pa.int64(),
    "delegation": pa.list_(pa.string()),
    "touched": pa.list_(pa.string()),
}
"""Arrow types of the columns that are no text."""

Row = tuple[Any, ...]


class AuditProjection:
    """One row per event, and one per step back of the clocks."""

    name = "audit"

    def __init__(self) -> None:
        self._clocks = Clocks()

    def create(self, tx: Connection) -> None:
        """Create the tables."""
        tx.execute(tables.CREATE)
        tx.execute(tables.CREATE_CLOCK_STEPS)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Add all events of a batch, those that were void and those in quarantine too."""
        self._clocks.apply(tx, batch)
        calls: list[Row] = []
        changes: list[Row] = []
        others: list[Row] = []
        for item in batch:
            event = item.event
            if isinstance(event, e.ApiCalled):
                calls.append(_call(item, event))
            elif item.topic == CATALOG:
                changes.append(_event(item) + _change(item))
            else:
                others.append(_event(item))
        for rows, columns in (
            (others, tables.OF_ANY),
            (changes, tables.OF_ANY + tables.OF_CHANGES),
            (calls, tables.OF_ANY + tables.OF_CALLS),
        ):
            if rows:
                run_with(tx, tables.INCOMING, _table(rows, columns), (tables.insert(columns),))


def _table(rows: Sequence[Row], columns: tuple[str, ...]) -> pa.Table:
    values = zip(*rows, strict=True)
    return pa.table(
        {
            name: pa.array(column, TYPES.get(name, pa.string()))
            for name, column in zip(columns, values, strict=True)
        }
    )


def _event(item: Folded) -> Row:
    event = item.event
    shape = _shape(type(event))
    resource_id, name = shape.resource(item)
    return _facts(
        item,
        shape.action,
        SUCCESS if item.void is None else VOID,
        item.void if item.void is not None else getattr(event, "reason", None),
        (
            event.envelope.aggregate_kind,
            resource_id,
            name,
            event.version if shape.has_version else None,  # type: ignore[attr-defined]
        ),
    )


def _facts(item: Folded, action: str, outcome: str, reason: str | None, resource: Row) -> Row:
    envelope = item.event.envelope
    actor = envelope.actor
    return (
        item.topic,
        item.partition,
        item.offset,
        envelope.event_id,
        envelope.recorded_at_ms,
        envelope.type,
        action,
        actor.principal_id,
        actor.auth_method,
        actor.client_id,
        actor.token_id,
        actor.delegation or None,
        outcome,
        reason,
        *resource,
        envelope.workspace,
        envelope.request_id,
        envelope.traceparent,
        envelope.client_address,
        envelope.user_agent,
    )


def _change(item: Folded) -> Row:
    event = item.event
    compared = item.void is None and event.AGGREGATE not in UNCOMPARED
    before, after = changed(item.before, item.after) if compared else (None, None)
    return before, after, _comment(event)


def _comment(event: Event) -> str | None:
    match event:
        case e.GrantMade():
            return event.grant.comment or None
        case e.VersionCommentAdded() | e.VersionCommentUpdated():
            return event.text
    return getattr(event, "comment", None)


def _call(item: Folded, call: e.ApiCalled) -> Row:
    touched = call.resources
    first = touched[0] if touched else None
    return (
        *_facts(
            item,
            of_call(call.route, call.permission),
            call.outcome if item.void is None else VOID,
            call.reason,
            (None, None, None, None)
            if first is None
            else (first.kind, first.id, first.name, first.version),
        ),
        call.error_code,
        call.method,
        call.route,
        call.permission,
        call.status,
        call.duration_us,
        call.bytes_in,
        call.bytes_out,
        [place for one in touched for place in _places(one)] if len(touched) > 1 else None,
        None if call.request is None else _request(call.request),
    )


def _places(one: e.TouchedResource) -> Iterator[str]:
    for named in (one.id, one.name):
        if named is not None:
            yield f"{one.kind}/{named}"
            if one.version is not None:
                yield f"{one.kind}/{named}/{one.version}"


def _request(sent: e.CapturedRequest) -> str:
    told = msgspec.to_builtins(sent, builtin_types=(bytes,))
    shown = {name: v.hex() if isinstance(v, bytes) else v for name, v in told.items()}
    return msgspec.json.encode(shown).decode()


@dataclass(frozen=True, slots=True)
class _Shape:
    """What rows of one event type are made of. resource: the id and the name of what it is on."""

    action: str
    has_version: bool
    resource: Callable[[Folded], tuple[str, str | None]]


@cache
def _shape(kind: type[Event]) -> _Shape:
    named = kind.AGGREGATE in ("registered_model", "experiment")
    return _Shape(
        action=ACTIONS.get(kind, UNREADABLE),
        has_version=kind.AGGREGATE == "registered_model" and "version" in kind.__struct_fields__,
        resource=_RESOURCES.get(kind, _by_name if named else _by_id),
    )


def _by_id(item: Folded) -> tuple[str, str | None]:
    return item.event.envelope.aggregate_id, None


def _by_name(item: Folded) -> tuple[str, str | None]:
    state: Any = item.after if item.after is not None else item.before
    name = getattr(item.event, "name", None) if state is None else state.name
    return item.event.envelope.aggregate_id, name


def _grant(item: Folded) -> tuple[str, str | None]:
    event = cast(e.GrantMade | e.GrantRevoked, item.event)
    return event.grant.grant_id, None


def _role(item: Folded) -> tuple[str, str | None]:
    return cast(e.RoleDefined | e.RoleRemoved, item.event).name, None


def _file(item: Folded) -> tuple[str, str | None]:
    return cast(e.ArtifactUploaded | e.ArtifactDeleted, item.event).path, None


_RESOURCES: Mapping[type[Event], Callable[[Folded], tuple[str, str | None]]] = {
    e.GrantMade: _grant,
    e.GrantRevoked: _grant,
    e.RoleDefined: _role,
    e.RoleRemoved: _role,
    e.ArtifactUploaded: _file,
    e.ArtifactDeleted: _file,
}
