"""Writes the `activities` table: a row for everything that moves a version, or asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from muniment_projections.activities import tables
from muniment_projections.base import Connection, Folded, applied
from muniment_schemas import events as e
from muniment_schemas.promotion_events import ALIAS

APPLIED = "APPLIED_TRANSITION"
REQUESTED = "REQUESTED_TRANSITION"
CANCELLED = "CANCELLED_REQUEST"
APPROVED = "APPROVED_REQUEST"
REJECTED = "REJECTED_REQUEST"
COMMENTED = "NEW_COMMENT"
SYSTEM = "SYSTEM_TRANSITION"
"""Kinds of activities, by the names that Databricks' registry gives them."""

ARCHIVED = "Archived"


DELETED = "deleted by its author"
"""What stands in the place of a comment that is gone."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One row without what the event's place and envelope say. version: whose it is.

    id: None for the event's own.
    """

    version: int
    kind: str
    from_target: str | None = None
    to_target: str | None = None
    comment: str | None = None
    system_comment: str | None = None
    id: str | None = None


class StagedVersion(Protocol):
    """What activities need of a version."""

    @property
    def stage(self) -> str:
        """Its stage."""


class Staged(Protocol):
    """What activities need of a model's state."""

    @property
    def versions(self) -> Mapping[int, StagedVersion]:
        """Its versions by number."""


class ActivitiesProjection:
    """One row per activity."""

    name = "activities"

    def create(self, tx: Connection) -> None:
        """Create the table."""
        tx.execute(tables.CREATE)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Add what the batch's events of registered models did; comments say what they say now."""
        items = [item for item in applied(batch) if item.event.AGGREGATE == "registered_model"]
        rows = [
            _row(item, place, activity)
            for item in items
            for place, activity in enumerate(
                activities(item.event, cast(Staged | None, item.after))
            )
        ]
        if rows:
            tx.executemany(tables.INSERT, rows)
        changes = [change for item in items if (change := _change(item.event)) is not None]
        if changes:
            tx.executemany(tables.CHANGE, changes)


def _row(item: Folded, place: int, activity: Activity) -> list[object]:
    envelope = item.event.envelope
    own_id = envelope.event_id if not place else f"{envelope.event_id}.{place}"
    return [
        envelope.aggregate_id,
        activity.version,
        activity.id or own_id,
        item.topic,
        item.partition,
        item.offset,
        place,
        envelope.recorded_at_ms,
        envelope.recorded_at_ms,
        activity.kind,
        envelope.actor.principal_id,
        activity.from_target,
        activity.to_target,
        activity.comment,
        activity.system_comment,
    ]


def _change(event: e.Event) -> list[object] | None:
    """What an event makes of a comment that stands in the table."""
    match event:
        case e.VersionCommentUpdated():
            says: tuple[str | None, str | None] = (event.text, None)
        case e.VersionCommentDeleted():
            says = (None, DELETED)
        case _:
            return None
    envelope = event.envelope
    return [envelope.recorded_at_ms, *says, envelope.aggregate_id, event.version, event.comment_id]


def activities(event: e.Event, after: Staged | None) -> Iterator[Activity]:
    """What an event of a registered model did to its versions. after: the model behind it."""
    match event:
        case e.StageTransitioned():
            yield Activity(event.version, APPLIED, event.from_stage, event.to_stage, event.comment)
            yield from _archived(event.archived, event.version, event.to_stage)
        case e.TransitionRequested():
            yield _asked(event, REQUESTED, after)
        case e.TransitionRequestCancelled():
            yield _asked(event, CANCELLED, after)
        case e.TransitionRequestRejected():
            yield _asked(event, REJECTED, after)
        case e.TransitionApproved():
            yield from _approved(event)
        case e.AliasSet():
            yield Activity(event.version, APPLIED, None, f"@{event.alias}")
            if event.previous_version is not None:
                yield Activity(event.previous_version, SYSTEM, f"@{event.alias}")
        case e.AliasDeleted():
            yield Activity(event.previous_version, APPLIED, f"@{event.alias}")
        case e.VersionCommentAdded():
            yield Activity(event.version, COMMENTED, comment=event.text, id=event.comment_id)


def _asked(
    event: e.TransitionRequested | e.TransitionRequestCancelled | e.TransitionRequestRejected,
    kind: str,
    after: Staged | None,
) -> Activity:
    assert after is not None, "a model that is asked about lives"
    stage = None if event.target_kind == ALIAS else after.versions[event.version].stage
    return Activity(event.version, kind, stage, _target(event), event.comment)


def _approved(event: e.TransitionApproved) -> Iterator[Activity]:
    said = [f"approval {event.approvals_given} of {event.approvals_needed}"]
    said += [
        f"the one by {one.approver} does not count: {one.reason}; it can be given again"
        for one in event.not_counted
    ]
    count = "; ".join(said)
    yield Activity(event.version, APPROVED, event.from_stage, _target(event), event.comment, count)
    yield from _archived(event.archived, event.version, event.target)
    if event.completes and event.previous_version not in (None, event.version):
        assert event.previous_version is not None
        yield Activity(event.previous_version, SYSTEM, _target(event))


def _archived(others: Sequence[e.ArchivedVersion], version: int, stage: str) -> Iterator[Activity]:
    for other in others:
        because = f"version {version} became {stage}"
        yield Activity(other.version, SYSTEM, other.from_stage, ARCHIVED, None, because)


def _target(
    event: e.TransitionRequested
    | e.TransitionRequestCancelled
    | e.TransitionRequestRejected
    | e.TransitionApproved,
) -> str:
    return f"@{event.target}" if event.target_kind == ALIAS else event.target
