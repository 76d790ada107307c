"""Grants and roles over HTTP: list, give, take back, define.

Whoever changes access is checked against the state that the change is then decided on: a right that
was taken away in between is checked again and not found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from muniment_auth.granting import is_admin, may_grant, may_see
from muniment_auth.permissions import ROLE_TEXTS, ROLES, unknown
from muniment_auth.permissions import Permission as P
from muniment_auth.policy import Access, covered
from muniment_auth.resources import Resource, ended_key
from muniment_schemas.access_events import ANYTHING, ID_PREFIX, ClaimPattern, Grant, GrantMade
from muniment_services.api import wire
from muniment_services.api.access_targets import (
    AGGREGATES,
    find,
    roles_of,
    split_resource,
    target_of,
)
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query, struct_from_body
from muniment_services.api.routes import Call, Route
from muniment_services.domain.access import (
    AccessCommand,
    AccessState,
    DefineRole,
    EndOwnership,
    GrantRecord,
    MakeGrant,
    RemoveRole,
    RevokeGrant,
    equal_grant,
    state_of,
)
from muniment_services.domain.access_rules import check_holder, checked_grant
from muniment_services.domain.errors import Invalid, NotFound, Superseded
from muniment_services.write import Outcome

PAGE_MAX = 1000
CHECKED_AGAIN_MAX = 10
"""Times that a right is checked again because access changed meanwhile."""


OWNER_PREFIX = "owner:"
"""In the place of a grant's id: what the creator of a thing holds, as `owner:KIND:ID`."""


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a new grant is asked for with; the fields of a Grant but its id."""

    subject_kind: str
    role: str
    resource_kind: str
    pattern: str
    subject: str = ""
    issuer: str = ""
    claims: tuple[ClaimPattern, ...] = ()
    workspace: str | None = None
    stages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tag_keys: tuple[str, ...] = ()
    expires_at_ms: int | None = None
    comment: str = ""


class RoleBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a role is to hold."""

    permissions: tuple[str, ...]
    description: str = ""


_LIST: Fields = (
    Field("principal"),
    Field("group"),
    Field("role"),
    Field("resource"),
    Field("max_results", "int"),
    Field("page_token"),
)
_REASON: Fields = (Field("reason"),)


async def _submit(
    call: Call, command: Callable[[Access], AccessCommand], render: Callable[[Outcome], bytes]
) -> bytes:
    """Check and decide on one state. command: checks the caller's right, and says what to do."""
    async with call.services.access_changes:
        for _ in range(CHECKED_AGAIN_MAX):
            await call.services.caught_up()
            version = state_of(call.services.fold.state).version
            checked = msgspec.structs.replace(command(call.access), seen_version=version)
            try:
                return await call.services.writer.submit(call.caller, checked, render)
            except Superseded:  # Another server changed access between the two.
                continue
    raise Superseded


def _denied(reason: str) -> ApiError:
    return ApiError("PERMISSION_DENIED", f"Permission denied: {reason}.")


def _json(record: GrantRecord, now_ms: int) -> dict[str, Any]:
    ends = record.grant.expires_at_ms
    return {
        **msgspec.to_builtins(record.grant),
        "granted_by": record.granted_by,
        "granted_at_ms": record.granted_at_ms,
        "expired": ends is not None and ends <= now_ms,
    }


async def list_grants(call: Call) -> bytes:
    """GET /api/v1/access/grants: those that the caller may know of, the oldest first.

    principal, group, role: of these only. resource: those that count on this thing, and its owner.
    """
    params = from_query(call.query, _LIST)
    await call.services.caught_up()
    world, now_ms, access = call.services.fold.state, call.services.now_ms(), call.access
    most = params.get("max_results") or PAGE_MAX
    if not 1 <= most <= PAGE_MAX:
        raise Invalid(f"'max_results' must be between 1 and {PAGE_MAX}.")
    thing = _thing(call, params.get("resource"))
    # Who may read access on a thing is told of all that count there, however wide they are.
    all_there = thing is not None and access.decide(P.ACCESS_READ, thing, now_ms=now_ms).allowed
    wanted = _filter(params, thing)
    after = params.get("page_token", "")
    found = [
        record
        for grant_id, record in sorted(state_of(world).grants.items())
        if grant_id > after
        and wanted(record.grant)
        and (all_there or may_see(access, record.grant, now_ms, target_of(world, record.grant)))
    ]
    page = found[:most]
    answer: dict[str, Any] = {"grants": [_json(record, now_ms) for record in page]}
    if len(found) > most:
        answer["next_page_token"] = page[-1].grant.grant_id
    if thing is not None and all_there and (owner := _owner(call, thing)) is not None:
        answer["owner"] = owner
    return wire.encode(answer)


def _thing(call: Call, text: str | None) -> Resource | None:
    if not text:
        return None
    kind, name = split_resource(text)
    return find(call.services.fold.state, kind, name, call.caller.workspace)


def _owner(call: Call, thing: Resource) -> str | None:
    ended = state_of(call.services.fold.state).ended
    return None if ended_key(thing.kind, thing.id) in ended else thing.owner


def _filter(params: dict[str, Any], thing: Resource | None) -> Callable[[Grant], bool]:
    tests: list[Callable[[Grant], bool]] = []
    if principal := params.get("principal"):
        tests.append(lambda g: (g.subject_kind, g.subject) == ("principal", principal))
    if group := params.get("group"):
        tests.append(lambda g: (g.subject_kind, g.subject) == ("group", group))
    if role := params.get("role"):
        tests.append(lambda g: g.role == role)
    if thing is not None:
        tests.append(lambda g: covered(g, thing))
    return lambda grant: all(test(grant) for test in tests)


async def make(call: Call) -> bytes:
    """POST /api/v1/access/grants: give somebody a role. The same again answers the same grant.

    Who may grant on a thing only as its creator, or by its id, grants by its id, whatever name was
    given: another thing that gets the name later is none of theirs.
    """
    body = struct_from_body(call.body, call.content_type, GrantBody)
    services = call.services
    default = ANYTHING if body.resource_kind == "server" else call.caller.workspace
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    wanted = Grant(grant_id="", **fields | {"workspace": body.workspace or default})
    check_holder(wanted, [issuer.url for issuer in call.callers.issuers()])

    def command(access: Access) -> MakeGrant:
        return _permitted(call, access, wanted)

    def made(outcome: Outcome) -> bytes:
        world, now_ms = services.fold.state, services.now_ms()
        event = outcome.event
        if event is None:
            # There is an equal one. It is looked for as it was asked for, and by the thing's id.
            asked = _permitted(call, call.access, wanted)
            found = equal_grant(world, asked, call.caller.actor, now_ms)
            assert found is not None
            return wire.encode({"grant": _json(found, now_ms)})
        assert isinstance(event, GrantMade)
        assert isinstance(outcome.after, AccessState)
        record = outcome.after.grants[event.grant.grant_id]
        return wire.encode({"grant": _json(record, now_ms)})

    return await _submit(call, command, made)


def _permitted(call: Call, access: Access, wanted: Grant) -> MakeGrant:
    """What the caller may grant: as asked for, or by the thing's id. Raises ApiError."""
    world, now_ms = call.services.fold.state, call.services.now_ms()
    grant = checked_grant(wanted, now_ms)
    roles, target = roles_of(state_of(world)), target_of(world, grant)
    decision = may_grant(access, grant, roles, now_ms, target=target)
    bounded = not is_admin(access, now_ms)
    if decision.allowed:
        return MakeGrant(grant=grant, by=decision.because, bounded=bounded)
    if target is not None:
        by_id = msgspec.structs.replace(grant, pattern=ID_PREFIX + target.id)
        as_maker = may_grant(access, by_id, roles, now_ms, target=target)
        if as_maker.allowed:
            return MakeGrant(grant=by_id, by=as_maker.because, bounded=bounded)
    raise _denied(decision.reason)


async def revoke(call: Call) -> bytes:
    """DELETE /api/v1/access/grants/{grant_id}?reason=: take a grant back.

    `owner:KIND:ID` in its place ends what the creator of that thing holds.
    """
    grant_id = call.path_params["grant_id"]
    reason = from_query(call.query, _REASON).get("reason", "")
    if grant_id.startswith(OWNER_PREFIX):
        return await _end_ownership(call, grant_id.removeprefix(OWNER_PREFIX), reason)

    def command(access: Access) -> RevokeGrant:
        world, now_ms = call.services.fold.state, call.services.now_ms()
        state = state_of(world)
        record = state.grants.get(grant_id)
        unseen = NotFound(f"No grant with id={grant_id} exists")
        if record is None:
            raise unseen
        target = target_of(world, record.grant)
        roles = roles_of(state)
        decision = may_grant(access, record.grant, roles, now_ms, target=target, revoking=True)
        if not decision.allowed:
            if not may_see(access, record.grant, now_ms, target):
                raise unseen
            raise _denied(decision.reason)
        elsewhere = bool(call.services.admin_groups)
        return RevokeGrant(grant_id=grant_id, reason=reason, admins_elsewhere=elsewhere)

    return await _submit(call, command, wire.empty)


async def _end_ownership(call: Call, text: str, reason: str) -> bytes:
    kind, _, resource_id = text.partition(":")
    if kind not in AGGREGATES or not resource_id:
        raise Invalid("An ownership is named owner:KIND:ID; KIND is experiment, model or prompt.")

    def command(access: Access) -> EndOwnership:
        services = call.services
        found = find(services.fold.state, kind, ID_PREFIX + resource_id, call.caller.workspace)
        now_ms = services.now_ms()
        if not found.id or not (access.unlimited or access.any(found, now_ms)):
            raise NotFound(f"No {kind} with id={resource_id} exists")
        decision = access.decide(P.ACCESS_GRANT, found, now_ms=now_ms)
        if not decision.allowed:
            raise _denied(decision.reason)
        return EndOwnership(resource_kind=kind, resource_id=resource_id, reason=reason)

    return await _submit(call, command, wire.empty)


async def list_roles(call: Call) -> bytes:
    """GET /api/v1/access/roles: all roles and what they hold, the built-in ones first."""
    await call.services.caught_up()
    own = state_of(call.services.fold.state).roles
    listed: list[tuple[str, str, list[str], bool]] = [
        *((name, ROLE_TEXTS[name], sorted(map(str, held)), True) for name, held in ROLES.items()),
        *((name, own[name].description, list(own[name].permissions), False) for name in own),
    ]
    keys = ("name", "description", "permissions", "built_in")
    return wire.encode({"roles": [dict(zip(keys, item, strict=True)) for item in listed]})


async def define_role(call: Call) -> bytes:
    """PUT /api/v1/access/roles/{name}: define a role, or change what it holds; for admins.

    All grants of the role give what it holds from then on.
    """
    name = call.path_params["name"]
    body = struct_from_body(call.body, call.content_type, RoleBody)
    if wrong := unknown(body.permissions):
        known = ", ".join(sorted(ROLES["admin"]))
        raise Invalid(f"{wrong[0]!r} is no permission that a role can hold. There are {known}.")

    def command(access: Access) -> DefineRole:
        _require_admin(call, access)
        permissions, description = body.permissions, body.description
        return DefineRole(name=name, permissions=permissions, description=description)

    return await _submit(call, command, wire.empty)


async def remove_role(call: Call) -> bytes:
    """DELETE /api/v1/access/roles/{name}: remove a role that no grant names; for admins."""

    def command(access: Access) -> RemoveRole:
        _require_admin(call, access)
        return RemoveRole(name=call.path_params["name"])

    return await _submit(call, command, wire.empty)


def _require_admin(call: Call, access: Access) -> None:
    if not is_admin(access, call.services.now_ms()):
        raise _denied("only admins define and remove roles")


ROUTES = (
    Route("GET", "/api/v1/access/grants", P.ACCESS_READ, list_grants),
    Route("POST", "/api/v1/access/grants", P.ACCESS_GRANT, make),
    Route("DELETE", "/api/v1/access/grants/{grant_id}", P.ACCESS_GRANT, revoke),
    Route("GET", "/api/v1/access/roles", P.SELF_USE, list_roles),
    Route("PUT", "/api/v1/access/roles/{name}", P.SERVER_ADMIN, define_role),
    Route("DELETE", "/api/v1/access/roles/{name}", P.SERVER_ADMIN, remove_role),
)
