"""Why may, or may not, this principal do this: every grant, and what it lacks.

Says what `Access.decide` says, with its reasons. Slow next to it: every grant is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from muniment_auth.permissions import AIMED, PROMOTING, UNGRANTED, Permission, kinds_of
from muniment_auth.policy import (
    NO_ENDED,
    Access,
    compile_access,
    limits_of,
    permissions_of,
)
from muniment_auth.principal import Principal
from muniment_auth.resources import Attributes, Resource, covers, ended_key
from muniment_auth.subjects import holds
from muniment_schemas.access_events import ANYTHING, Grant
from muniment_schemas.patterns import matches


@dataclass(frozen=True, slots=True)
class Verdict:
    """One grant and whether it allows the action. lacks: why not; empty when it does.

    Each begins with what does not fit: role, subject, scope, kind, workspace, pattern, condition or
    expired.
    """

    grant: Grant
    lacks: tuple[str, ...]

    @property
    def matched(self) -> bool:
        """Whether this grant alone allows it."""
        return not self.lacks


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, its chain, and every grant: those that allow it first.

    notes: what else counts: ownership, admin groups, groups that are not known.
    """

    allowed: bool
    reason: str
    because: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def explain(
    principal: Principal,
    permission: Permission,
    resource: Resource,
    attributes: Attributes,
    roles: Mapping[str, Iterable[str]],
    grants: Iterable[Grant],
    now_ms: int,
    admin_groups: Iterable[tuple[str, str]] = (),
    ended: AbstractSet[tuple[str, str]] = NO_ENDED,
) -> Explanation:
    """Why a principal may or may not. Parameters: those of `compile_access` and of `decide`."""
    grants = tuple(grants)
    access = compile_access(principal, roles, grants, 0, admin_groups, ended)
    decision = access.decide(permission, resource, attributes, now_ms)
    verdicts = [
        Verdict(
            grant, tuple(_lacks(grant, principal, permission, resource, attributes, roles, now_ms))
        )
        for grant in grants
    ]
    verdicts.sort(key=lambda verdict: len(verdict.lacks))
    notes = tuple(_notes(access, principal, permission, resource))
    return Explanation(decision.allowed, decision.reason, decision.because, tuple(verdicts), notes)


def _lacks(
    grant: Grant,
    principal: Principal,
    permission: Permission,
    resource: Resource,
    attributes: Attributes,
    roles: Mapping[str, Iterable[str]],
    now_ms: int,
) -> Iterator[str]:
    if permission not in permissions_of(grant.role, roles):
        yield f"role: {grant.role} does not hold {permission}"
    if not holds(principal, grant):
        yield "subject: it is made to somebody else"
    if not _in_scopes(principal, permission):
        yield f"scope: the credential is not made for {permission}"
    if grant.resource_kind not in (ANYTHING, resource.kind):
        yield f"kind: it is about {grant.resource_kind}, not {resource.kind}"
    elif resource.kind not in kinds_of(permission):
        yield f"kind: {permission} is never held on {resource.kind}"
    if grant.workspace not in (ANYTHING, resource.workspace):
        yield f"workspace: it counts in {grant.workspace}"
    if not covers(grant.pattern, resource):
        yield f"pattern: {grant.pattern} means something else"
    if not _permits(grant, permission, attributes):
        yield f"condition: it is {limits_of(grant)} only"
    if grant.expires_at_ms is not None and grant.expires_at_ms <= now_ms:
        yield "expired: its time is over"


def _permits(grant: Grant, permission: Permission, attributes: Attributes) -> bool:
    if (grant.stages or grant.aliases) and permission in PROMOTING:
        moved = (
            (attributes.stage, grant.stages),
            (attributes.alias, grant.aliases),
        )
        asked = [(value, allowed) for value, allowed in moved if value is not None]
        if (not asked and permission in AIMED) or any(v not in allowed for v, allowed in asked):
            return False
    return not grant.tag_keys or attributes.tag_key in (None, *grant.tag_keys)


def _in_scopes(principal: Principal, permission: Permission) -> bool:
    if principal.scopes is None:
        return True
    return any(matches(scope, permission) for scope in principal.scopes)


def _notes(
    access: Access, principal: Principal, permission: Permission, resource: Resource
) -> Iterator[str]:
    if access.unlimited:
        yield "the local user may do everything"
    if permission in UNGRANTED:
        yield f"{permission} needs no grant"
    if access.owns(resource):
        yield f"it created this {resource.kind}, and is its manager"
    elif resource.owner is not None and resource.owner == principal.id:
        assert ended_key(resource.kind, resource.id) in access.ended
        yield f"it created this {resource.kind}, but is not its manager any more"
    if principal.groups_unknown is not None:
        yield f"not all of its groups are known: {principal.groups_unknown}"
