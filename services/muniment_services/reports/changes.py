"""What changed between two moments: models, versions, stages, aliases, roles and grants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from muniment_projections.audit.reports.rows import models_called
from muniment_projections.registry import then
from muniment_projections.registry.then import Standing
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import shown
from muniment_services.domain.registry_names import NONE
from muniment_services.reports.moment import Moment
from muniment_services.reports.past import GRANT, ROLE, AccessThen, access_at
from muniment_services.reports.question import listed
from muniment_services.reports.report import ROWS_MAX, Place
from muniment_services.reports.rights import holder
from muniment_services.reports.sources import EVENTS_MAX, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. what: model, version, stage, alias, role or grant. of: whose it is, as a
    model's name, a role's, or a grant's id. before, after: None where there was nothing.
    place: the event that brought what is there after, or ended what was before."""

    what: str
    of: str
    version: int | None = None
    before: str | None
    after: str | None
    place: Place


def changes(
    sources: Sources,
    one: Moment,
    other: Moment,
    workspace: str,
    model: str | None,
) -> tuple[list[Change], bool]:
    """What is otherwise at the second moment, and whether there is more than is told.

    model: only models of this name, or pattern; then nothing of access. Raises Invalid, NotFound.
    """
    if one.at_ms > other.at_ms:
        raise Invalid("What changed is told from an earlier moment to a later one.")
    models = None
    if model is not None:
        models = tuple(models_called(sources.connection, model, workspace))
        if not models:
            raise NotFound(f"No registered model was ever called {shown(model)} here.")
    found: list[Change] = []
    cut = False
    for kind in (then.MODEL, then.VERSION, then.STAGE, then.ALIAS):
        asked = then.Asked(kind, models=models, workspace=workspace)
        both = then.turned(sources.connection, asked, one.when, other.when, EVENTS_MAX)
        cut = cut or any(len(some) == EVENTS_MAX for some in both)
        found.extend(_turned(kind, *both))
    if model is None:
        found.extend(_access(access_at(sources, one), access_at(sources, other)))
    return found[:ROWS_MAX], cut or len(found) > ROWS_MAX


def _turned(kind: str, lost: Sequence[Standing], won: Sequence[Standing]) -> Iterator[Change]:
    """Pairs what ended with what took its place; what began again as it was is no change."""
    ended = {_fact(kind, one): one for one in lost}
    begun = {_fact(kind, one): one for one in won}
    for fact in dict.fromkeys((*ended, *begun)):
        before, after = ended.get(fact), begun.get(fact)
        was = None if before is None else _value(kind, before)
        now = None if after is None else _value(kind, after)
        if was == now or (was is None and (kind, now) == (then.STAGE, NONE)):
            continue
        one = after or before
        assert one is not None
        yield Change(
            what=kind,
            of=one.interval.name,
            version=one.version if kind != then.ALIAS else None,
            before=was,
            after=now,
            place=_turn(before, after),
        )


def _fact(kind: str, one: Standing) -> tuple[str, object]:
    """What has one value at a time: a model's name, that a version exists, its stage, where an
    alias points."""
    match kind:
        case then.MODEL:
            return one.interval.model_id, None
        case then.ALIAS:
            return one.interval.model_id, one.interval.subject
    return one.interval.model_id, one.version


def _value(kind: str, one: Standing) -> str:
    if kind == then.ALIAS:
        return f"@{one.interval.subject} -> {one.version}"
    return one.interval.subject


def _turn(before: Standing | None, after: Standing | None) -> Place:
    turn = after.interval.began if after is not None else None
    if turn is None:
        assert before is not None
        turn = before.interval.ended
        assert turn is not None, "it held at the first moment, and not at the second"
    return Place(turn.topic, turn.partition, turn.offset)


def _access(one: AccessThen, other: AccessThen) -> Iterator[Change]:
    before, after = one.roles, other.roles
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was != now:
            yield Change(
                what=ROLE,
                of=name,
                before=None if was is None else listed(was),
                after=None if now is None else listed(now),
                place=other.last[ROLE, name],
            )
    held, holds = one.state.grants, other.state.grants
    for grant_id in sorted({*held, *holds}):
        if (grant_id in held) == (grant_id in holds):
            continue  # A grant is never changed, only made and revoked.
        record = (held.get(grant_id) or holds[grant_id]).grant
        text = f"{record.role} to {holder(record)} on {record.resource_kind}:{record.pattern}"
        yield Change(
            what=GRANT,
            of=grant_id,
            before=text if grant_id in held else None,
            after=text if grant_id in holds else None,
            place=other.last[GRANT, grant_id],
        )
