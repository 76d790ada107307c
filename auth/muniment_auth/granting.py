"""Who may give and take back what: nobody gives more than they hold themselves.

To make or revoke a grant, its maker holds `access:grant` and every permission of the role on all
that the grant's pattern can ever cover, under the same conditions or wider ones. Grants on the
server, or on all kinds of things, are the admins' alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from muniment_auth.permissions import PROMOTING, Permission, kinds_of, unknown
from muniment_auth.policy import KINDS, Access, Decision, Rule, permissions_of
from muniment_auth.resources import SERVER, Resource, subsumes
from muniment_schemas.access_events import ANYTHING, ID_PREFIX, LOCAL, OWNER, Grant

_ADMIN_KINDS = ("server", ANYTHING)


def may_grant(
    access: Access,
    grant: Grant,
    roles: Mapping[str, Iterable[str]],
    now_ms: int,
    *,
    target: Resource | None = None,
    revoking: bool = False,
) -> Decision:
    """Whether a principal may make, or with `revoking` take back, a grant.

    target: the thing that the grant means, when its pattern means one by id: its creator may grant
    on it. A grant that ends gives no right to make one that outlives it, but to take one back.
    because, where it is allowed: whatever all of that is held by, each as `Access.rights` has it.
    """
    if access.unlimited:
        return Decision(True, "local user", (LOCAL,))
    if grant.resource_kind in _ADMIN_KINDS and not is_admin(access, now_ms):
        return Decision(False, "only admins grant on the server or on all kinds of things")
    if unknown(roles.get(grant.role, ())) and not is_admin(access, now_ms):
        # What another release knows may be more than the maker has there.
        return Decision(False, f"only admins grant {grant.role}, which this release half knows")
    needed = {Permission.ACCESS_GRANT, *permissions_of(grant.role, roles)}
    kinds = KINDS if grant.resource_kind == ANYTHING else (grant.resource_kind,)
    held: list[tuple[str, ...]] = []
    for permission in sorted(needed):
        for kind in kinds:
            if kind in kinds_of(permission):
                rights = _rights(access, permission, kind, grant, now_ms, target, revoking)
                held.append(tuple(rights))
                if not held[-1]:
                    return Decision(False, _refusal(permission, grant))
    return Decision(True, "holds all that the grant gives", _common(held))


def may_see(access: Access, grant: Grant, now_ms: int, target: Resource | None = None) -> bool:
    """Whether a principal may know of a grant: `access:read` on all that the grant covers."""
    reading = Permission.ACCESS_READ
    if access.unlimited or access.decide(reading, SERVER, now_ms=now_ms).allowed:
        return True
    kind = grant.resource_kind
    if kind in _ADMIN_KINDS:
        return False
    if _owns(access, reading, grant, target):
        return True
    return any(_spans(rule, kind, grant, target) for rule in access.rules(reading, now_ms))


def is_admin(access: Access, now_ms: int) -> bool:
    """Whether a principal may do everything to the server itself."""
    return access.decide(Permission.SERVER_ADMIN, SERVER, now_ms=now_ms).allowed


def _rights(
    access: Access,
    permission: Permission,
    kind: str,
    grant: Grant,
    now_ms: int,
    target: Resource | None,
    revoking: bool,
) -> Iterator[str]:
    """What a permission is held by on all of the grant: what `Decision.because` begins with."""
    for rule in access.rules(permission, now_ms):
        if (
            _spans(rule, kind, grant, target)
            and _as_wide(rule, grant, permission)
            and (revoking or _as_long(rule, grant))
        ):
            yield rule.decision.because[0]
    if _owns(access, permission, grant, target):
        yield OWNER


def _common(held: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """What all is held by; where each is held by something else, what is held as the creator."""
    common = tuple(right for right in held[0] if all(right in rights for rights in held))
    return common or min(held, key=lambda rights: rights != (OWNER,))


def _owns(access: Access, permission: Permission, grant: Grant, target: Resource | None) -> bool:
    return (
        target is not None
        and _means(grant, target)
        and access.owns(target)
        and permission in access.owned(target.kind)
    )


def _means(grant: Grant, target: Resource) -> bool:
    return (
        grant.pattern == ID_PREFIX + target.id
        and grant.resource_kind == target.kind
        and grant.workspace == target.workspace
    )


def _spans(rule: Rule, kind: str, grant: Grant, target: Resource | None) -> bool:
    """Whether a rule is about all that the grant can cover of a kind."""
    meant = target if target is not None and _means(grant, target) else None
    return (
        rule.kind in (ANYTHING, kind)
        and rule.workspace in (ANYTHING, grant.workspace)
        and subsumes(rule.pattern, grant.pattern, meant)
    )


def _as_wide(rule: Rule, grant: Grant, permission: Permission) -> bool:
    if rule.staged and permission in PROMOTING:
        conditional = bool(grant.stages or grant.aliases)
        within = rule.stages.issuperset(grant.stages) and rule.aliases.issuperset(grant.aliases)
        if not (conditional and within):
            return False
    return not rule.tag_keys or (bool(grant.tag_keys) and rule.tag_keys.issuperset(grant.tag_keys))


def _as_long(rule: Rule, grant: Grant) -> bool:
    if rule.expires_at_ms is None:
        return True
    return grant.expires_at_ms is not None and grant.expires_at_ms <= rule.expires_at_ms


def _refusal(permission: Permission, grant: Grant) -> str:
    return (
        f"to grant {grant.role} on {grant.resource_kind} {grant.pattern!r} in workspace "
        f"{grant.workspace} one must hold {permission} on all of it, for as long and under no "
        "narrower conditions"
    )
