"""What stood in a stage or behind an alias, and what stood there without the approval it needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from muniment_projections.registry import then
from muniment_projections.registry.then import Standing
from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG
from muniment_schemas.promotion_events import ALIAS
from muniment_services.domain.promotion_policy import concerns, guards
from muniment_services.domain.review import Target
from muniment_services.reports.moment import Moment, time_shown
from muniment_services.reports.moves import Lasting, policies
from muniment_services.reports.question import (
    AT,
    EVENT_COLUMN,
    MODELS,
    TARGET,
    WORKSPACE,
    Asked,
    Question,
    counted,
    listed,
)
from muniment_services.reports.report import ROWS_MAX, Cell, Column, Draft, Names, Parameter, Place
from muniment_services.reports.sources import EVENTS_MAX, Sources


def production_at(sources: Sources, asked: Asked) -> Draft:
    """What stood at a target at a moment."""
    moment, target = asked.moment(sources), _target(asked)
    facts = _facts(sources, asked, target)
    found = then.held(sources.connection, facts, moment.when, ROWS_MAX + 1)
    names_then = _names_at(sources, moment, (one.interval.model_id for one in found))
    rows = [_row(one, names_then, target) for one in found[:ROWS_MAX]]

    def verdict(_: Names) -> str:
        at = "now" if moment.latest else f"at {moment}"
        if not rows:
            return f"Nothing of {asked.called} was {target.shown} {at}."
        what = ", ".join(f"{row[0]} version {row[1]}" for row in rows[:5])
        more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
        return f"{counted(len(rows), 'version')} stood as {target.shown} {at}: {what}{more}."

    return Draft(
        rows=rows,
        evidence={_place(one) for one in found[:ROWS_MAX]},
        verdict=verdict,
        truncated=len(found) > ROWS_MAX,
    )


def _target(asked: Asked) -> Target:
    target = asked.target()
    assert target is not None, "it has a default"
    return target


def _facts(sources: Sources, asked: Asked, target: Target) -> then.Asked:
    return then.Asked(
        then.ALIAS if target.kind == ALIAS else then.STAGE,
        models=None if asked.of_all_models else tuple(asked.models(sources)),
        subject=target.name,
        workspace=asked.text("workspace"),
    )


def _names_at(sources: Sources, moment: Moment, models: Iterable[str]) -> dict[str, str]:
    asked = then.Asked(then.MODEL, models=tuple(dict.fromkeys(models)))
    found = then.held(sources.connection, asked, moment.when, EVENTS_MAX)
    return {one.interval.model_id: one.interval.subject for one in found}


def _place(one: Standing) -> Place:
    began = one.interval.began
    return Place(began.topic, began.partition, began.offset)


def _row(one: Standing, names: Mapping[str, str], target: Target) -> tuple[Cell, ...]:
    interval = one.interval
    return (
        names.get(interval.model_id, interval.name),
        one.version,
        target.shown,
        time_shown(interval.valid_from_ms),
        interval.began.actor,
        None if interval.valid_to_ms is None else time_shown(interval.valid_to_ms),
        interval.model_id,
        str(_place(one)),
    )


@dataclass(frozen=True, slots=True)
class _Lack:
    """A standing without an approval that a policy asked for. why: in words."""

    one: Standing
    given: int
    needed: int
    policies: tuple[Lasting, ...]
    why: str


def unapproved(sources: Sources, asked: Asked) -> Draft:
    """What stood at a target without the approval that a policy asked for then, or later."""
    target = _target(asked)
    facts = _facts(sources, asked, target)
    if asked.text("at"):
        moment = asked.moment(sources)
        found = then.held(sources.connection, facts, moment.when, EVENTS_MAX)
    else:
        moment = None
        found = then.ever(sources.connection, facts, EVENTS_MAX)
    moved = sources.events(_place(one) for one in found)
    laid_down = policies(sources, moment)
    lacks: list[_Lack] = []
    unasked = 0
    for one in found:
        event = moved[_place(one)]
        lack = _lack(one, event, _asking(laid_down, one, target, asked.text("workspace")))
        if lack is not None:
            lacks.append(lack)
        elif not isinstance(event, e.TransitionApproved):
            unasked += 1
    shown = lacks[:ROWS_MAX]

    def verdict(_: Names) -> str:
        if not lacks:
            return (
                f"No version of {asked.called} stood as {target.shown} without an approval "
                "that a policy asked for."
            )
        still = sum(lack.one.interval.valid_to_ms is None for lack in lacks)
        return (
            f"{counted(len(lacks), 'version')} stood as {target.shown} without the approval that a "
            f"policy asks for; {still:,} still {'does' if still == 1 else 'do'}."
        )

    def findings(_: Names) -> tuple[str, ...]:
        if not unasked:
            return ()
        return (
            f"{counted(unasked, 'more got', 'more got')} there without an approval while no policy "
            "asked for one.",
        )

    return Draft(
        rows=[_lacking(lack, target) for lack in shown],
        evidence={_place(lack.one) for lack in shown}
        | {policy.began for lack in shown for policy in lack.policies},
        verdict=verdict,
        findings=findings,
        truncated=len(lacks) > ROWS_MAX or len(found) == EVENTS_MAX,
    )


def _asking(
    laid_down: Sequence[Lasting], one: Standing, target: Target, workspace: str
) -> list[Lasting]:
    """Policies that asked for approvals at any time while something stood."""
    interval = one.interval
    ended = None if interval.ended is None else Place(CATALOG, 0, interval.ended.offset)
    return [
        lasting
        for lasting in laid_down
        if lasting.policy.approvals > 0
        and concerns(lasting.policy, interval.name, workspace)
        and guards(lasting.policy, target)
        and lasting.overlaps(_place(one), ended)
    ]


def _lack(one: Standing, event: e.Event, asking: Sequence[Lasting]) -> _Lack | None:
    needed = max((lasting.policy.approvals for lasting in asking), default=0)
    given = 0
    under: tuple[str, ...] = ()
    if isinstance(event, e.TransitionApproved):
        given, under = event.approvals_given, event.evidence.policies
    # An approval that no policy was in force for is one by whoever could promote.
    counting = given if under else 0
    if counting >= needed:
        return None
    then_asking = [lasting for lasting in asking if lasting.at(_place(one))]
    if then_asking:
        why = "it was moved without it"
    elif counting:
        why = "a later policy asks for more approvals than it got"
    else:
        why = "it was moved before a policy asked for one"
    return _Lack(one, counting, needed, tuple(asking), why)


def _lacking(lack: _Lack, target: Target) -> tuple[Cell, ...]:
    interval, first = lack.one.interval, lack.policies[0]
    return (
        interval.name,
        lack.one.version,
        target.shown,
        time_shown(interval.valid_from_ms),
        interval.began.actor,
        None if interval.valid_to_ms is None else time_shown(interval.valid_to_ms),
        lack.given,
        lack.needed,
        listed(dict.fromkeys(lasting.policy.policy for lasting in lack.policies)),
        time_shown(first.began_ms),
        lack.why,
        interval.model_id,
        str(_place(lack.one)),
    )


_STOOD = (
    Column("model", "text", "the model's name then"),
    Column("version", "number", "the version"),
    Column("target", "text", "the stage, or @ and the alias"),
    Column("since", "time", "since when it stood there"),
    Column("moved_by", "principal", "who brought it there"),
    Column("until", "time", "until just before when; empty while it still does"),
)
_MODEL_ID = Column("model_id", "text", "the model's id, which no other ever has")

QUESTIONS = (
    Question(
        name="production-at",
        text="What was in this stage, or behind this alias, at that moment?",
        parameters=(MODELS, TARGET, AT, WORKSPACE),
        columns=(*_STOOD, _MODEL_ID, EVENT_COLUMN),
        answer=production_at,
    ),
    Question(
        name="unapproved",
        text="Which versions stood in this stage without the approval that a policy asks for?",
        parameters=(
            MODELS,
            TARGET,
            Parameter("at", "only what stood there at this moment; `now` for today", kind="time"),
            WORKSPACE,
        ),
        columns=(
            *_STOOD,
            Column("given", "number", "approvals under a policy that it got"),
            Column("needed", "number", "how many policies asked for while it stood"),
            Column("policies", "text", "which"),
            Column("asked_since", "time", "since when the first of them asks"),
            Column("why", "text", "how it could stand there"),
            _MODEL_ID,
            EVENT_COLUMN,
        ),
        answer=unapproved,
    ),
)
