"""What is asked of a model's versions and said of them: open requests, approvals, comments.

Part of a registered model's state. What always holds: there is at most one open request for one
version and target; it ends when it is decided, when the version gets there by other means, and with
the version.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from muniment_schemas import events as e
from muniment_schemas.envelope import Actor
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.errors import Void
from muniment_services.domain.registry_names import ARCHIVED

EVENTS = (
    e.TransitionRequested,
    e.TransitionRequestCancelled,
    e.TransitionRequestRejected,
    e.VersionCommentAdded,
    e.VersionCommentUpdated,
    e.VersionCommentDeleted,
)
"""Those that change nothing of a model but its review."""


class Target(msgspec.Struct, frozen=True):
    """What a version is to get. kind: stage or alias."""

    kind: str
    name: str

    @property
    def shown(self) -> str:
        """The target as callers name it: a stage, or `@` and an alias."""
        return f"@{self.name}" if self.kind == ALIAS else self.name


class Hand(msgspec.Struct, frozen=True):
    """Who did something, and through whom. delegation: ids of those that acted for the principal.

    Of two hands that share only someone whom both acted through (a console, a gateway), each is its
    own. A principal that acts for another is that other's hand, and its own as well.
    """

    principal_id: str
    delegation: tuple[str, ...] = ()

    def same_hand(self, other: Hand) -> bool:
        """Whether one principal may stand behind both."""
        return (
            self.principal_id == other.principal_id
            or self.principal_id in other.delegation
            or other.principal_id in self.delegation
        )


def hand_of(actor: Actor) -> Hand:
    """An event's actor as a hand."""
    return Hand(actor.principal_id, actor.delegation)


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One approval. groups: the approver's that policies asked for when it was given.

    rights: what the approver might approve by. evidence_sha256: of what it rests on; None in
    approvals of a release that did not say.
    """

    approver: str
    groups: tuple[str, ...]
    at_ms: int
    delegation: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()
    evidence_sha256: bytes | None = None

    @property
    def given_by(self) -> Hand:
        """The approver, and through whom it approved."""
        return Hand(self.approver, self.delegation)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """An open request. activity_id: of the event that made it."""

    version: int
    target: Target
    requester: str
    comment: str | None
    activity_id: str
    at_ms: int
    approvals: tuple[Approval, ...] = ()
    delegation: tuple[str, ...] = ()

    @property
    def asked_by(self) -> Hand:
        """The requester, and through whom it asked."""
        return Hand(self.requester, self.delegation)


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """A comment on a version."""

    comment_id: str
    version: int
    author: str
    text: str
    created_at_ms: int
    updated_at_ms: int


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Open requests in the order in which they were made, and comments by id."""

    requests: tuple[Request, ...] = ()
    comments: dict[str, Comment] = {}

    def request(self, version: int, target: Target) -> Request | None:
        """The open request for a version and a target."""
        return next((r for r in self.requests if (r.version, r.target) == (version, target)), None)


NOTHING_ASKED = Review()


def evolve(review: Review, event: e.Event) -> Review:
    """The review behind an event of its model. Raises Void when the event does not fit."""
    match event:
        case e.TransitionRequested():
            return _requested(review, event)
        case e.TransitionRequestCancelled() | e.TransitionRequestRejected():
            return _closed(review, _required(review, event.version, _target(event)))
        case e.TransitionApproved():
            return _approved(review, event)
        case e.StageTransitioned():
            moved = _reached(review, event.version, Target(STAGE, event.to_stage))
            return _archived(moved, event.archived)
        case e.AliasSet():
            return _reached(review, event.version, Target(ALIAS, event.alias))
        case e.ModelVersionDeleted():
            return Review(
                requests=tuple(r for r in review.requests if r.version != event.version),
                comments={k: c for k, c in review.comments.items() if c.version != event.version},
            )
        case e.VersionCommentAdded() | e.VersionCommentUpdated() | e.VersionCommentDeleted():
            return _commented(review, event)
    return review


def _target(
    event: e.TransitionRequested
    | e.TransitionRequestCancelled
    | e.TransitionRequestRejected
    | e.TransitionApproved,
) -> Target:
    return Target(event.target_kind, event.target)


def _required(review: Review, version: int, target: Target) -> Request:
    found = review.request(version, target)
    if found is None:
        raise Void(f"nobody asked for version {version} to become {target.shown}")
    return found


def _requested(review: Review, event: e.TransitionRequested) -> Review:
    if review.request(event.version, _target(event)) is not None:
        raise Void("there is such a request already")
    made = Request(
        version=event.version,
        target=_target(event),
        requester=event.envelope.actor.principal_id,
        comment=event.comment,
        activity_id=event.envelope.event_id,
        at_ms=event.envelope.recorded_at_ms,
        delegation=event.envelope.actor.delegation,
    )
    return msgspec.structs.replace(review, requests=(*review.requests, made))


def _closed(review: Review, request: Request) -> Review:
    kept = tuple(other for other in review.requests if other is not request)
    return msgspec.structs.replace(review, requests=kept)


def _reached(review: Review, version: int, target: Target) -> Review:
    found = review.request(version, target)
    return review if found is None else _closed(review, found)


def _archived(review: Review, versions: Iterable[e.ArchivedVersion]) -> Review:
    for moved in versions:
        review = _reached(review, moved.version, Target(STAGE, ARCHIVED))
    return review


def _approved(review: Review, event: e.TransitionApproved) -> Review:
    request = _required(review, event.version, _target(event))
    if event.completes:
        return _archived(_closed(review, request), event.archived)
    given = Approval(
        approver=event.envelope.actor.principal_id,
        groups=event.groups,
        at_ms=event.envelope.recorded_at_ms,
        delegation=event.envelope.actor.delegation,
        rights=event.rights,
        evidence_sha256=event.evidence.sha256,
    )
    others = tuple(a for a in request.approvals if a.approver != given.approver)
    more = msgspec.structs.replace(request, approvals=(*others, given))
    kept = tuple(more if other is request else other for other in review.requests)
    return msgspec.structs.replace(review, requests=kept)


def _commented(
    review: Review,
    event: e.VersionCommentAdded | e.VersionCommentUpdated | e.VersionCommentDeleted,
) -> Review:
    comments, at_ms = dict(review.comments), event.envelope.recorded_at_ms
    known = comments.pop(event.comment_id, None)
    match event:
        case e.VersionCommentAdded():
            if known is not None:
                raise Void("there is a comment of that id already")
            comments[event.comment_id] = Comment(
                comment_id=event.comment_id,
                version=event.version,
                author=event.envelope.actor.principal_id,
                text=event.text,
                created_at_ms=at_ms,
                updated_at_ms=at_ms,
            )
        case e.VersionCommentUpdated():
            if known is None:
                raise Void("there is no such comment")
            changed = msgspec.structs.replace(known, text=event.text, updated_at_ms=at_ms)
            comments[event.comment_id] = changed
        case _:
            if known is None:
                raise Void("there is no such comment")
    return msgspec.structs.replace(review, comments=comments)
