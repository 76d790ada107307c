"""Access: roles, grants, and ownerships that were ended. One aggregate, so races are settled.

Whether the caller may do what it asks for is the policy's to decide, before; here stands what must
not happen whoever asks, above all that nobody is left who could grant anything.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from muniment_schemas import events as e
from muniment_schemas.access_events import (
    ACCESS_ID,
    ANYTHING,
    BUILT_IN_ROLES,
    GRANT_PREFIX,
    OWNER,
    Grant,
)
from muniment_schemas.envelope import Actor
from muniment_services.domain.access_rules import check_role, checked_grant
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Invalid, NotFound, StillNeeded, Superseded, Void
from muniment_services.domain.limits import (
    GRANT_COMMENT_CHARS_MAX,
    GRANTS_MAX,
    GRANTS_OF_MAKER_MAX,
    OWNERSHIPS_ENDED_MAX,
    ROLES_MAX,
    check_length,
    shown,
)
from muniment_services.domain.review import Hand

KIND = "access"
ADMIN_ROLE = "admin"


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A role of one's own: what it holds, each as resource:verb, sorted."""

    permissions: tuple[str, ...]
    description: str


class GrantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, who made it, and when: milliseconds since 1970 by the server's clock.

    through: those that acted for its maker. behind: whoever gave its maker the right to grant, the
    last first. root: what the first of them granted by (`GrantMade.by`); None: not known. by_admin:
    whether it was made by administering the server, not by what its maker holds of the thing. What
    stands behind a grant stays when the grants in between are gone.
    """

    grant: Grant
    granted_by: str
    granted_at_ms: int
    through: tuple[str, ...] = ()
    behind: tuple[Hand, ...] = ()
    root: str | None = None
    by_admin: bool = False

    @property
    def makers(self) -> tuple[Hand, ...]:
        """All who had a say in it."""
        return (Hand(self.granted_by, self.through), *self.behind)

    def is_as_good_as(self, other: GrantRecord) -> bool:
        """Whether it counts wherever another one of the same content does."""
        return (
            set(self.makers) <= set(other.makers)
            and (self.root != OWNER or other.root == OWNER)
            and (self.by_admin or not other.by_admin)
        )


class AccessState(State, frozen=True, kw_only=True):
    """Roles by name, grants by id, and ended ownerships as (kind, id); a prompt is a model here."""

    roles: dict[str, Role]
    grants: dict[str, GrantRecord]
    ended: frozenset[tuple[str, str]]


EMPTY = AccessState(version=0, roles={}, grants={}, ended=frozenset())


class AccessCommand(Command, frozen=True, kw_only=True):
    """A command about access.

    seen_version: of the state that the caller's right was checked on; the command is refused on any
    other, so that nobody acts on a right that was taken away a moment before. None: not checked.
    """

    seen_version: int | None = None

    def serial(self) -> AggregateKey:
        """One history of all."""
        return (KIND, ACCESS_ID)


class DefineRole(AccessCommand, frozen=True, kw_only=True):
    """Define a role, or replace what it holds."""

    name: str
    permissions: tuple[str, ...]
    description: str = ""


class RemoveRole(AccessCommand, frozen=True, kw_only=True):
    """Remove a role that no grant names."""

    name: str


class MakeGrant(AccessCommand, frozen=True, kw_only=True):
    """Give somebody a role. The grant's id is chosen when it is decided.

    by: all that its maker may make it by; empty for the server itself. bounded: its maker is no
    admin, and may have GRANTS_OF_MAKER_MAX.
    """

    grant: Grant
    by: tuple[str, ...] = ()
    bounded: bool = False


class RevokeGrant(AccessCommand, frozen=True, kw_only=True):
    """Take a grant back. admins_elsewhere: whether the configuration names an admin group."""

    grant_id: str
    reason: str = ""
    admins_elsewhere: bool = False


class EndOwnership(AccessCommand, frozen=True, kw_only=True):
    """End what its creator holds on a thing by having created it. resource_kind: also prompt."""

    resource_kind: str
    resource_id: str
    reason: str = ""


def state_of(world: World) -> AccessState:
    """All of access as it is now."""
    found = world.get(KIND, ACCESS_ID)
    if found is None:
        return EMPTY
    assert isinstance(found, AccessState)
    return found


def _state(world: World, command: AccessCommand) -> AccessState:
    state = state_of(world)
    if command.seen_version not in (None, state.version):
        raise Superseded
    return state


def define_role(world: World, command: DefineRole, context: Context) -> e.RoleDefined | None:
    """None when it is just so already. Raises Invalid for a built-in role or what is none."""
    state = _state(world, command)
    check_role(command.name, command.permissions, command.description)
    role = Role(
        permissions=tuple(sorted(set(command.permissions))), description=command.description
    )
    if state.roles.get(command.name) == role:
        return None
    if command.name not in state.roles and len(state.roles) >= ROLES_MAX:
        raise Invalid(f"There are {ROLES_MAX} roles already; remove one that is not used.")
    return e.RoleDefined(
        envelope=_envelope(context, e.RoleDefined, state),
        name=command.name,
        permissions=role.permissions,
        description=role.description,
    )


def remove_role(world: World, command: RemoveRole, context: Context) -> e.RoleRemoved:
    """Raises Invalid for a built-in role, NotFound, or StillNeeded while a grant names it."""
    state = _state(world, command)
    if command.name in BUILT_IN_ROLES:
        raise Invalid(f"The role {command.name} is built in and cannot be removed.")
    role = state.roles.get(command.name)
    if role is None:
        raise NotFound(f"No role with name={command.name} exists")
    users = [r.grant.grant_id for r in state.grants.values() if r.grant.role == command.name]
    if users:
        raise StillNeeded(
            f"The role {command.name} is used by {len(users)} grants, the first of which is "
            f"{users[0]}; revoke them first."
        )
    return e.RoleRemoved(
        envelope=_envelope(context, e.RoleRemoved, state),
        name=command.name,
        permissions=role.permissions,
    )


def make_grant(world: World, command: MakeGrant, context: Context) -> e.GrantMade | None:
    """None when there is an equal one already (`equal_grant` finds it). Raises Invalid.

    One that is the same but rests on others, whose say may not count, is another grant.
    """
    state = _state(world, command)
    grant = checked_grant(command.grant, context.now_ms)
    if grant.role not in BUILT_IN_ROLES and grant.role not in state.roles:
        known = ", ".join((*BUILT_IN_ROLES, *sorted(state.roles)))
        raise Invalid(f"There is no role {shown(grant.role)}; there are {known}.")
    by = _made_by(state, command, context.now_ms)
    wanted = _record(state, grant, by, context.actor, context.now_ms)
    if _equal(state, wanted) is not None:
        return None
    if len(state.grants) >= GRANTS_MAX:
        raise Invalid(
            f"There are {GRANTS_MAX} grants already. Grant to groups and by patterns rather than "
            "one by one, and revoke those that have expired."
        )
    if command.bounded:
        _require_room(state, context.actor.principal_id)
    return e.GrantMade(
        envelope=_envelope(context, e.GrantMade, state),
        grant=msgspec.structs.replace(grant, grant_id=context.new_id(context.now_ms)),
        by=by,
    )


def _require_room(state: AccessState, maker: str) -> None:
    made = sum(record.granted_by == maker for record in state.grants.values())
    if made >= GRANTS_OF_MAKER_MAX:
        raise Invalid(
            f"This principal has made {GRANTS_OF_MAKER_MAX} grants that stand, as many as one may "
            "who is no admin. Grant to groups and by patterns, or revoke some."
        )


def equal_grant(world: World, command: MakeGrant, actor: Actor, now_ms: int) -> GrantRecord | None:
    """The grant that there is in place of what is asked for, whatever its id and comment.

    Raises Invalid.
    """
    state = state_of(world)
    grant, by = checked_grant(command.grant, now_ms), _made_by(state, command, now_ms)
    return _equal(state, _record(state, grant, by, actor, now_ms))


def revoke_grant(world: World, command: RevokeGrant, context: Context) -> e.GrantRevoked:
    """Raises NotFound, and StillNeeded when nobody would be left to administer the server."""
    state = _state(world, command)
    check_length("reason", command.reason, GRANT_COMMENT_CHARS_MAX)
    found = state.grants.get(command.grant_id)
    if found is None:
        raise NotFound(f"No grant with id={command.grant_id} exists")
    # What ends by itself does not take the place of what does not.
    ends = found.grant.expires_at_ms is not None
    left = [
        grant
        for grant in _admin_grants(state, context.now_ms)
        if grant is not found.grant and (ends or grant.expires_at_ms is None)
    ]
    if _is_admin(found.grant, context.now_ms) and not left and not command.admins_elsewhere:
        raise StillNeeded(
            "This is the last grant that makes somebody admin of everything for good; without it "
            "nobody could grant anything. Make another one first, or configure an admin group."
        )
    return e.GrantRevoked(
        envelope=_envelope(context, e.GrantRevoked, state),
        grant_id=command.grant_id,
        reason=command.reason,
        grant=found.grant,
    )


def end_ownership(world: World, command: EndOwnership, context: Context) -> e.OwnershipEnded | None:
    """None when it has ended already. Raises Invalid or NotFound."""
    state = _state(world, command)
    check_length("reason", command.reason, GRANT_COMMENT_CHARS_MAX)
    kinds = {"experiment": "experiment", "model": "registered_model", "prompt": "registered_model"}
    if command.resource_kind not in kinds:
        raise Invalid("'resource_kind' must be experiment, model or prompt.")
    thing = world.get(kinds[command.resource_kind], command.resource_id)
    if thing is None:
        raise NotFound(f"No {command.resource_kind} with id={command.resource_id} exists")
    kind = "experiment" if command.resource_kind == "experiment" else "model"
    if (kind, command.resource_id) in state.ended:
        return None
    if len(state.ended) >= OWNERSHIPS_ENDED_MAX:
        raise Invalid(f"{OWNERSHIPS_ENDED_MAX} ownerships were ended already.")
    return e.OwnershipEnded(
        envelope=_envelope(context, e.OwnershipEnded, state),
        resource_kind=kind,
        resource_id=command.resource_id,
        resource_name=getattr(thing, "name", ""),
        reason=command.reason,
    )


def evolve(state: AccessState | None, event: e.Event) -> AccessState:
    """Access behind an event. Raises Void when the event does not fit the state."""
    before = state or EMPTY
    return msgspec.structs.replace(before, version=before.version + 1, **_changes(before, event))


def _changes(state: AccessState, event: e.Event) -> dict[str, object]:
    match event:
        case e.RoleDefined():
            role = Role(permissions=event.permissions, description=event.description)
            return {"roles": {**state.roles, event.name: role}}
        case e.RoleRemoved():
            return {"roles": {k: v for k, v in state.roles.items() if k != event.name}}
        case e.GrantMade():
            envelope = event.envelope
            record = _record(state, event.grant, event.by, envelope.actor, envelope.recorded_at_ms)
            return {"grants": {**state.grants, event.grant.grant_id: record}}
        case e.GrantRevoked():
            if event.grant_id not in state.grants:
                raise Void("the grant does not exist")
            return {"grants": {k: v for k, v in state.grants.items() if k != event.grant_id}}
        case e.OwnershipEnded():
            return {"ended": state.ended | {(event.resource_kind, event.resource_id)}}
    raise AssertionError(f"{type(event).__name__} is no event of access")


def granted(state: AccessState, right: str | None) -> GrantRecord | None:
    """The grant that a right names, if it names one that there is."""
    if right is None or not right.startswith(GRANT_PREFIX):
        return None
    return state.grants.get(right.removeprefix(GRANT_PREFIX))


def _root(state: AccessState, right: str | None) -> str | None:
    found = granted(state, right)
    return right if found is None else found.root


def _made_by(state: AccessState, command: MakeGrant, now_ms: int) -> str | None:
    """The right of its maker that a grant is made by: the one that counts for most."""

    def standing(right: str) -> tuple[bool, bool]:
        return _root(state, right) == OWNER, not _is_administration(state, right, now_ms)

    return min(command.by, key=standing, default=None)


def _is_administration(state: AccessState, right: str | None, now_ms: int) -> bool:
    if right is None or right == OWNER:
        return False
    if not right.startswith(GRANT_PREFIX):
        return True  # The configuration's admins, and the local user.
    found = granted(state, right)
    return found is not None and _is_admin(found.grant, now_ms)


def _record(
    state: AccessState, grant: Grant, by: str | None, actor: Actor, at_ms: int
) -> GrantRecord:
    above = granted(state, by)
    return GrantRecord(
        grant=grant,
        granted_by=actor.principal_id,
        granted_at_ms=at_ms,
        through=actor.delegation,
        behind=() if above is None else tuple(dict.fromkeys(above.makers)),
        root=_root(state, by),
        by_admin=_is_administration(state, by, at_ms),
    )


def _equal(state: AccessState, wanted: GrantRecord) -> GrantRecord | None:
    grant, content = wanted.grant, _content(wanted.grant)
    for record in state.grants.values():
        other = record.grant
        # The first two tell nearly all apart, and there may be thousands.
        alike = other.subject == grant.subject and other.pattern == grant.pattern
        if alike and _content(other) == content and record.is_as_good_as(wanted):
            return record
    return None


def _content(grant: Grant) -> tuple[object, ...]:
    return (
        grant.subject_kind,
        grant.subject,
        grant.issuer,
        grant.claims,
        grant.role,
        grant.workspace,
        grant.resource_kind,
        grant.pattern,
        grant.stages,
        grant.aliases,
        grant.tag_keys,
        grant.expires_at_ms,
    )


def _admin_grants(state: AccessState, now_ms: int) -> Iterator[Grant]:
    return (r.grant for r in state.grants.values() if _is_admin(r.grant, now_ms))


def _is_admin(grant: Grant, now_ms: int) -> bool:
    """Whether a grant makes somebody admin of everything now. Conditions narrow no such thing as
    granting, so one that has some counts."""
    return (
        (grant.role, grant.workspace, grant.resource_kind, grant.pattern)
        == (ADMIN_ROLE, ANYTHING, ANYTHING, ANYTHING)
    ) and (grant.expires_at_ms is None or grant.expires_at_ms > now_ms)


def _envelope(context: Context, event: type[e.Event], state: AccessState) -> e.Envelope:
    return context.envelope(event, ACCESS_ID, expected_version=state.version)
