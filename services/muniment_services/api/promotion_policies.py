"""Promotion policies over HTTP: `/api/v1/policies/promotion`.

Whoever is signed in may read those of patterns, so that everybody knows what a promotion takes.
One that names a single model is told to whom that model is no secret. Only admins change them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from muniment_auth.issuers import Issuer
from muniment_auth.permissions import Permission as P
from muniment_auth.resources import SERVER, Resource
from muniment_schemas.access_events import ANYTHING
from muniment_services import conditions
from muniment_services.api import wire
from muniment_services.api.requests import Field, Fields, from_query, struct_from_body
from muniment_services.api.routes import Call, Route
from muniment_services.authority import of_model
from muniment_services.domain import registered_model
from muniment_services.domain.commands import GROUP_OF
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import shown
from muniment_services.domain.promotion_policy import (
    KIND,
    PromotionPolicy,
    RemovePromotionPolicy,
    SetPromotionPolicy,
    builtins,
)
from muniment_services.write import Outcome

_REASON: Fields = (Field("reason"),)


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a policy is to say; what the fields mean: `PromotionPolicySet`."""

    pattern: str
    workspace: str | None = None
    stages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    approvals: int = 1
    approver_groups: tuple[str, ...] = ()
    exclude_requester: bool = True
    exclude_author: bool = True
    required_tags: tuple[str, ...] = ()
    condition: str | None = None
    required_comment: bool = False


async def list_policies(call: Call) -> bytes:
    """GET /api/v1/policies/promotion: those of workspaces and models that one knows of, by name."""
    await call.services.caught_up()
    policies = call.services.fold.state.of_kind(KIND)
    found = [p for p in policies if isinstance(p, PromotionPolicy) and _is_told(call, p)]
    found.sort(key=lambda policy: policy.policy)
    return wire.encode({"policies": [builtins(policy) for policy in found]})


async def get_policy(call: Call) -> bytes:
    """GET /api/v1/policies/promotion/{name}."""
    await call.services.caught_up()
    name = call.path_params["name"]
    found = call.services.fold.state.get(KIND, name)
    if not isinstance(found, PromotionPolicy) or not _is_told(call, found):
        raise NotFound(f"There is no promotion policy {shown(name)}.")
    return wire.encode({"policy": builtins(found)})


def _is_told(call: Call, policy: PromotionPolicy) -> bool:
    authority = call.authority
    if not authority.reaches(policy.workspace):
        return False
    if ANYTHING in policy.pattern or authority.allows(SERVER, P.ACCESS_READ):
        return True
    return any(authority.allows(thing, P.MODEL_READ) for thing in _meant(call, policy))


def _meant(call: Call, policy: PromotionPolicy) -> Sequence[Resource]:
    """What a policy without `*` is about; where there is no such model yet, what it may become."""
    name, workspace = policy.pattern, policy.workspace
    if workspace == ANYTHING:
        workspace = call.authority.workspace
    found = call.services.fold.state.named(registered_model.KIND, name, workspace)
    if isinstance(found, registered_model.RegisteredModel):
        return (of_model(found),)
    return [Resource(kind=kind, name=name, workspace=workspace) for kind in ("model", "prompt")]


async def set_policy(call: Call) -> bytes:
    """PUT /api/v1/policies/promotion/{name}: lay down a policy, or change it."""
    body = struct_from_body(call.body, call.content_type, PolicyBody)
    if body.condition:
        conditions.check(body.condition)
    _check_groups(body.approver_groups, call.callers.issuers())
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    workspace = body.workspace or call.caller.workspace
    command = SetPromotionPolicy(
        policy=call.path_params["name"], **{**fields, "workspace": workspace}
    )

    def render(outcome: Outcome) -> bytes:
        found = outcome.after or call.services.fold.state.get(KIND, command.policy)
        assert isinstance(found, PromotionPolicy)
        return wire.encode({"policy": builtins(found)})

    return await call.services.writer.submit(call.caller, command, render)


def _check_groups(groups: Sequence[str], issuers: Sequence[Issuer]) -> None:
    """Raise Invalid where it is not said, or not known, whose group one is."""
    urls = [url for issuer in issuers for url in issuer.urls]
    for group in groups:
        if any(group.endswith(f"{GROUP_OF}{url}") for url in urls):
            continue
        if len(issuers) > 1:
            raise Invalid(
                f"'approver_groups' has {shown(group)}, and several issuers may have a group of "
                f"that name: say NAME{GROUP_OF}ISSUER, where ISSUER is {' or '.join(urls)}."
            )
        if f"{GROUP_OF}http" in group:
            raise Invalid(f"'approver_groups' has {shown(group)}, of an issuer unknown here.")


async def remove_policy(call: Call) -> bytes:
    """DELETE /api/v1/policies/promotion/{name}?reason=."""
    reason = from_query(call.query, _REASON).get("reason")
    command = RemovePromotionPolicy(policy=call.path_params["name"], reason=reason)
    return await call.services.writer.submit(call.caller, command, wire.empty)


_PATH = "/api/v1/policies/promotion"

ROUTES = (
    Route("GET", _PATH, P.SELF_USE, list_policies),
    Route("GET", f"{_PATH}/{{name}}", P.SELF_USE, get_policy),
    Route("PUT", f"{_PATH}/{{name}}", P.SERVER_ADMIN, set_policy),
    Route("DELETE", f"{_PATH}/{{name}}", P.SERVER_ADMIN, remove_policy),
)
