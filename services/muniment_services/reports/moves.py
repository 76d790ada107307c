"""Moves of versions to stages and aliases: who asked, who approved, on what evidence.

They are read off the models' own histories, folded as the server folded them: which request an
approval answered, and which approvals stood then, is not worked out anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from muniment_projections.search.predicate import Predicate, one_of
from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.promotion_policy import KIND as POLICY
from muniment_services.domain.promotion_policy import PromotionPolicy
from muniment_services.domain.registered_model import KIND as MODEL
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.review import Hand, Request, Target, hand_of
from muniment_services.reports.moment import Moment
from muniment_services.reports.report import Place
from muniment_services.reports.sources import Sources, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A version that got to a target. was: what stood there of the version (a stage) or of the
    alias (a version). approval: the event, if it was one, which answered `request`."""

    step: Step
    model: RegisteredModel
    version: int
    target: Target
    was: str | None
    rests_on: tuple[Place, ...]
    """The request, the approvals before the last, and the move."""
    approval: e.TransitionApproved | None = None
    request: Request | None = None

    @property
    def approvers(self) -> tuple[Hand, ...]:
        """Those whose approvals counted, in the order in which they were given."""
        if self.approval is None or self.request is None:
            return ()
        void = {one.approver for one in self.approval.not_counted}
        last = hand_of(self.approval.envelope.actor)
        earlier = [
            approval.given_by
            for approval in self.request.approvals
            if approval.approver not in {*void, last.principal_id}
        ]
        return (*earlier, last)

    @property
    def comment(self) -> str | None:
        """What was said with it."""
        return getattr(self.step.event, "comment", None)


def histories(
    sources: Sources, models: Iterable[str] | None, until: Moment | None = None
) -> Iterator[Step]:
    """The events of some registered models, or of all."""
    where = [Predicate("t.resource_kind = ?", (MODEL,))]
    if models is not None:
        where.append(one_of("t.resource_id", models))
    return sources.replay(CATALOG, *where, until=until)


def moves(steps: Iterable[Step]) -> Iterator[Move]:
    """The moves in the histories of models."""
    asked: dict[tuple[str, int, Target], list[Place]] = {}
    for step in steps:
        event, model = step.event, step.after or step.before
        if isinstance(event, e.TransitionRequested | e.TransitionApproved):
            target = Target(event.target_kind, event.target)
            key = (model.model_id, event.version, target)
            if isinstance(event, e.TransitionRequested):
                asked[key] = []
            asked.setdefault(key, []).append(step.place)
        move = _move(step, event, model)
        if move is not None:
            rests_on = asked.pop((model.model_id, move.version, move.target), [])
            yield move if move.approval is None else replace(move, rests_on=tuple(rests_on))


def _move(step: Step, event: Any, model: RegisteredModel) -> Move | None:
    match event:
        case e.StageTransitioned():
            return Move(
                step=step,
                model=model,
                version=event.version,
                target=Target(STAGE, event.to_stage),
                was=event.from_stage,
                rests_on=(step.place,),
            )
        case e.AliasSet():
            return Move(
                step=step,
                model=model,
                version=event.version,
                target=Target(ALIAS, event.alias),
                was=_number(event.previous_version),
                rests_on=(step.place,),
            )
        case e.TransitionApproved() if event.completes:
            target = Target(event.target_kind, event.target)
            return Move(
                step=step,
                model=model,
                version=event.version,
                target=target,
                was=event.from_stage if target.kind == STAGE else _number(event.previous_version),
                rests_on=(step.place,),
                approval=event,
                request=step.before.review.request(event.version, target),
            )
    return None


def _number(version: int | None) -> str | None:
    return None if version is None else str(version)


@dataclass(frozen=True, slots=True)
class Lasting:
    """A policy as it stood from one event until just before another (None: it still does)."""

    policy: PromotionPolicy
    began: Place
    began_ms: int
    ended: Place | None

    def at(self, place: Place) -> bool:
        """Whether it stood behind an event of the catalog."""
        return self.began <= place and (self.ended is None or place < self.ended)

    def overlaps(self, begin: Place, end: Place | None) -> bool:
        """Whether it stood at any time between two events of the catalog."""
        return (end is None or self.began < end) and (self.ended is None or begin < self.ended)


def policies(sources: Sources, until: Moment | None = None) -> list[Lasting]:
    """Every policy that ever stood, each as it stood, in the order in which they began."""
    open_: dict[str, Lasting] = {}
    found: list[Lasting] = []
    where = Predicate("t.resource_kind = ?", (POLICY,))
    for step in sources.replay(CATALOG, where, until=until):
        name = step.event.envelope.aggregate_id
        before = open_.pop(name, None)
        if before is not None:
            found.append(Lasting(before.policy, before.began, before.began_ms, step.place))
        if step.after is not None:
            open_[name] = Lasting(step.after, step.place, step.at_ms, None)
    return sorted((*found, *open_.values()), key=lambda one: one.began)
