"""Why somebody may, or may not, do something: the decision and what each grant lacks.

About oneself anyone may ask, and sees the grants that are made to oneself; about others, or about a
group, who may read access on the thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from muniment_auth.explain import Explanation, Verdict, explain
from muniment_auth.granting import may_see
from muniment_auth.permissions import PROMOTING, kinds_of
from muniment_auth.permissions import Permission as P
from muniment_auth.policy import Access, covered
from muniment_auth.principal import Principal, local_principal
from muniment_auth.resources import Attributes, Resource
from muniment_auth.subjects import holds
from muniment_schemas.access_events import GRANT_PREFIX, OWNER
from muniment_schemas.ids import PrincipalId
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.api import wire
from muniment_services.api.access_targets import find, roles_of, split_resource, target_of
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Call, Route
from muniment_services.domain.access import granted, state_of
from muniment_services.domain.approvals import barrier
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import shown
from muniment_services.domain.promotion_policy import PromotionPolicy, all_concerning, asked_by
from muniment_services.domain.registered_model import KIND as MODEL
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.registry_names import stage_of
from muniment_services.domain.review import Target
from muniment_services.state import CurrentState

_EXPLAIN: Fields = (
    Field("permission", required=True),
    Field("resource", required=True),
    Field("workspace"),
    Field("stage"),
    Field("alias"),
    Field("tag_key"),
    Field("principal"),
    Field("issuer"),
    Field("groups", repeated=True),
    Field("claims", repeated=True),
)


async def explain_access(call: Call) -> bytes:
    """GET /api/v1/access/explain: permission, resource, and stage, alias or tag_key.

    principal: about somebody else, by id; groups and claims (`NAME=VALUE`) of an issuer: about
    whoever has them. The answer has the promotion policies, too, that such a move is under.
    """
    params = from_query(call.query, _EXPLAIN)
    permission = _permission(params["permission"])
    kind, name = split_resource(params["resource"])
    await call.services.caught_up()
    services, now_ms = call.services, call.services.now_ms()
    world, state = services.fold.state, state_of(services.fold.state)
    resource = find(world, kind, name, params.get("workspace") or call.caller.workspace)
    who, about_self = _about(call, params)
    own = call.access.principal
    access = call.access if own is None or call.access.unlimited else services.accesses.of(own)
    if not about_self:
        _require_read(access, resource, now_ms)
    stage = params.get("stage")
    attributes = Attributes(
        None if stage is None else stage_of(stage), params.get("alias"), params.get("tag_key")
    )
    found = explain(
        who,
        permission,
        resource,
        attributes,
        roles_of(state),
        [record.grant for record in state.grants.values()],
        now_ms,
        services.admin_groups,
        state.ended,
    )
    shown_verdicts = [
        verdict
        for verdict in found.verdicts
        if holds(who, verdict.grant)
        if about_self
        or covered(verdict.grant, resource)
        or may_see(access, verdict.grant, now_ms, target_of(world, verdict.grant))
    ]
    targets = [
        Target(kind, target)
        for kind, target in ((STAGE, attributes.stage), (ALIAS, attributes.alias))
        if target is not None
    ]
    told = access.any(resource, now_ms)
    policies = _policies(world, permission, resource, targets) if told else []
    answer = _json(permission, params["resource"], found, shown_verdicts, policies)
    if permission is P.MODEL_APPROVE and policies:
        rights = [f"{GRANT_PREFIX}{v.grant.grant_id}" for v in shown_verdicts if v.matched]
        if resource.owner == who.id:
            rights.append(OWNER)
        answer["notes"] = (*found.notes, *_under_policies(world, resource, rights))
    return wire.encode(answer)


def _under_policies(
    state: CurrentState, resource: Resource, rights: Sequence[str]
) -> Iterator[str]:
    """What becomes of rights to approve where a promotion policy is in force."""
    model = state.get(MODEL, resource.id)
    if not isinstance(model, RegisteredModel):
        return
    for right in rights:
        reason = barrier(state, model, right, ())
        record = granted(state_of(state), right)
        if reason is not None:
            yield f"under a policy this does not count: {reason}"
        elif record is not None:
            makers = " and ".join(dict.fromkeys(maker.principal_id for maker in record.makers))
            yield (
                f"under a policy the grant {record.grant.grant_id} does not count for what "
                f"{makers}, who made it or gave the right to, asks for, or for versions of theirs "
                "or of their runs"
            )


def _policies(
    state: CurrentState, permission: P, resource: Resource, targets: Sequence[Target]
) -> list[PromotionPolicy]:
    """The promotion policies that a move is under as well: to one of the targets, or any if none is
    named.
    """
    if permission not in PROMOTING or resource.kind not in kinds_of(permission):
        return []
    found = {
        policy.policy: policy
        for target in targets or (None,)
        for policy in all_concerning(state, resource.name, resource.workspace, target)
    }
    return list(found.values())


def _json(
    permission: P,
    resource: str,
    found: Explanation,
    verdicts: list[Verdict],
    policies: list[PromotionPolicy],
) -> dict[str, Any]:
    return {
        "allowed": found.allowed,
        "reason": found.reason,
        "because": found.because,
        "permission": permission,
        "resource": resource,
        "notes": found.notes,
        "policies": [
            {"name": p.policy, "stages": p.stages, "aliases": p.aliases, "asks": asked_by(p)}
            for p in policies
        ],
        "grants": [
            {"matched": v.matched, "lacks": v.lacks, "grant": msgspec.to_builtins(v.grant)}
            for v in verdicts
        ],
    }


def _permission(text: str) -> P:
    try:
        return P(text)
    except ValueError:
        known = ", ".join(P)
        raise Invalid(f"There is no permission {shown(text)}; there are {known}.") from None


def _about(call: Call, params: dict[str, Any]) -> tuple[Principal, bool]:
    """Whom the question is about, and whether that is the caller."""
    own = call.access.principal or local_principal("local")
    asked = params.get("principal")
    issuer, groups, claims = params.get("issuer"), params.get("groups"), params.get("claims")
    if (groups or claims) and not issuer:
        raise Invalid("'groups' and 'claims' are an issuer's: name it by 'issuer'.")
    if not (issuer or groups or claims) and asked in (None, "", own.id):
        return own, True
    by_name: dict[str, tuple[str, ...]] = {}
    for text in claims or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid("Each of 'claims' is NAME=VALUE.")
        by_name[name] = (*by_name.get(name, ()), value)
    subject = by_name.get("sub", ("",))[0]
    unknown = None if groups else "they stand in its tokens; name them by 'groups' and 'issuer'"
    other = Principal(
        id=PrincipalId(asked or ""),
        kind="user",
        issuer=issuer or "",
        subject=subject,
        name="",
        auth_method="bearer",
        groups=frozenset(groups or ()),
        groups_unknown=unknown,
        claims=by_name,
    )
    return other, False


def _require_read(access: Access, resource: Resource, now_ms: int) -> None:
    decision = access.decide(P.ACCESS_READ, resource, now_ms=now_ms)
    if not decision.allowed:
        raise ApiError("PERMISSION_DENIED", f"Permission denied: {decision.reason}.")


ROUTES = (Route("GET", "/api/v1/access/explain", P.SELF_USE, explain_access),)
