"""Who could promote a model at a moment: by which role, granted by whom."""

from __future__ import annotations

from collections.abc import Iterator

from muniment_auth.permissions import Permission as P
from muniment_auth.policy import OWNER_ROLE, gives, permissions_of
from muniment_auth.resources import ended_key
from muniment_schemas.access_events import OWNER, Grant
from muniment_services.approvers import attributes_of
from muniment_services.authority import of_model
from muniment_services.domain.access import GrantRecord
from muniment_services.domain.errors import NotFound
from muniment_services.domain.promotion_policy import asked_by, concerns, guards
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.review import Target
from muniment_services.reports.moment import Moment, time_shown
from muniment_services.reports.moves import histories, policies
from muniment_services.reports.past import GRANT, ROLE, AccessThen, access_at
from muniment_services.reports.question import (
    AT,
    EVENT_COLUMN,
    MODEL,
    TARGET,
    WORKSPACE,
    Asked,
    Question,
    counted,
    listed,
)
from muniment_services.reports.report import ROWS_MAX, Cell, Column, Draft, Names, Place
from muniment_services.reports.sources import Sources

PROMOTES = (P.MODEL_PROMOTE, P.MODEL_APPROVE)


def promoters_at(sources: Sources, asked: Asked) -> Draft:
    """Whoever could promote a model to a target at a moment, or approve that it is."""
    moment, target = asked.moment(sources), asked.target()
    assert target is not None, "it has a default"
    model, made_at = _model_at(sources, asked, moment)
    access = access_at(sources, moment)
    rows: list[tuple[Cell, ...]] = []
    evidence = {made_at}
    for record, held in _holders(access, model, target, moment):
        place = access.last[GRANT, record.grant.grant_id]
        rows.append(_of_grant(record, held, place))
        evidence.add(place)
        if record.grant.role in access.roles:
            evidence.add(access.last[ROLE, record.grant.role])
    resource = of_model(model)
    if ended_key(resource.kind, resource.id) not in access.state.ended:
        rows.append(_of_owner(model, made_at))
    in_force = [
        lasting
        for lasting in policies(sources, moment)
        if lasting.ended is None
        and concerns(lasting.policy, model.name, model.workspace)
        and guards(lasting.policy, target)
    ]
    evidence.update(lasting.began for lasting in in_force)

    def verdict(_: Names) -> str:
        at = "now" if moment.latest else f"at {moment}"
        holders = {(row[0], row[1]) for row in rows}
        return (
            f"{counted(len(holders), 'holder')} of {counted(len(rows), 'right')} could promote "
            f"{model.name} to {target.shown} {at}, or approve that it is."
        )

    def findings(_: Names) -> tuple[str, ...]:
        asks = tuple(
            f"The policy {lasting.policy.policy} asked for "
            f"{'; '.join(asked_by(lasting.policy)) or 'nothing'}."
            for lasting in in_force
        )
        groups = tuple(
            f"Members of the group {group} of {issuer} are admins by the configuration of today; "
            "the log does not say since when."
            for issuer, group in sources.admin_groups
        )
        return asks + groups

    return Draft(
        rows=rows[:ROWS_MAX],
        evidence=evidence,
        verdict=verdict,
        findings=findings,
        truncated=len(rows) > ROWS_MAX,
    )


def _model_at(sources: Sources, asked: Asked, moment: Moment) -> tuple[RegisteredModel, Place]:
    """The model that had the name then, and where it was made. Raises NotFound."""
    name = asked.text("model")
    models: dict[str, RegisteredModel | None] = {}
    made: dict[str, Place] = {}
    for step in histories(sources, asked.models(sources), moment):
        model_id = step.event.envelope.aggregate_id
        made.setdefault(model_id, step.place)
        models[model_id] = step.after
    for model_id, model in models.items():
        if model is not None and model.name == name:
            return model, made[model_id]
    raise NotFound(f"There was no registered model called {name} then.")


def _holders(
    access: AccessThen, model: RegisteredModel, target: Target, moment: Moment
) -> Iterator[tuple[GrantRecord, list[P]]]:
    resource, attributes, roles = of_model(model), attributes_of(target), access.roles
    for record in access.state.grants.values():
        held = [
            permission
            for permission in PROMOTES
            if gives(record.grant, permission, resource, attributes, roles, moment.at_ms)
        ]
        if held:
            yield record, held


def holder(grant: Grant) -> str:
    """Whom a grant is to, as `principal:ID`, `group:NAME`, `claims:NAME=PATTERN`, `everyone`."""
    if grant.subject_kind == "claims":
        return "claims:" + listed(f"{one.name}={one.pattern}" for one in grant.claims)
    return f"{grant.subject_kind}:{grant.subject}" if grant.subject else grant.subject_kind


def _of_grant(record: GrantRecord, held: list[P], place: Place) -> tuple[Cell, ...]:
    grant = record.grant
    is_person = grant.subject_kind == "principal"
    limits = [*grant.stages, *(f"@{alias}" for alias in grant.aliases)]
    return (
        holder(grant),
        grant.subject if is_person else None,
        grant.issuer or None,
        grant.role,
        listed(held),
        f"{grant.resource_kind}:{grant.pattern}",
        listed(limits) or None,
        record.granted_by,
        time_shown(record.granted_at_ms),
        None if grant.expires_at_ms is None else time_shown(grant.expires_at_ms),
        str(place),
    )


def _of_owner(model: RegisteredModel, made_at: Place) -> tuple[Cell, ...]:
    return (
        OWNER,
        model.created_by,
        None,
        OWNER_ROLE,
        listed(
            permission for permission in PROMOTES if permission in permissions_of(OWNER_ROLE, {})
        ),
        f"model:{model.name}",
        None,
        model.created_by,
        time_shown(model.created_at_ms),
        None,
        str(made_at),
    )


QUESTIONS = (
    Question(
        name="promoters-at",
        text="Which roles and principals could promote this at that moment, and who granted them?",
        parameters=(MODEL, TARGET, AT, WORKSPACE),
        columns=(
            Column("holder", "text", "who holds it: principal:ID, group:NAME, claims, owner"),
            Column("principal", "principal", "where it is one"),
            Column("issuer", "text", "of a group or of claims: whose"),
            Column("role", "text", "the role"),
            Column("permissions", "text", "what of promoting it gives"),
            Column("on", "text", "what it covers"),
            Column("limits", "text", "the stages and aliases that it is for, if not for all"),
            Column("granted_by", "principal", "who granted it; of an owner, who made the model"),
            Column("granted_at", "time", "when"),
            Column("expires_at", "time", "until when, if it ends by itself"),
            EVENT_COLUMN,
        ),
        answer=promoters_at,
        notes=(
            "Where a promotion policy guarded the target, a right to approve that comes of having "
            "made the model, or of a grant by whoever made it or a version of it, did not count: "
            "`muniment access explain model:approve` tells for whom. "
            "Who was a member of a group then is its identity provider's to say. A right for some "
            "stages takes a version out of no other active one. A server without an issuer lets "
            "its local user do everything."
        ),
    ),
)
