"""One decision: may this principal do this? Default deny.

`compile_access` takes the grants that are a principal's once; its `Access` then answers from memory
as often as it is asked, and holds for one version of the access state. What always holds:

- a permission is held by a grant, by having created the thing, by an admin group of the issuer's
  configuration, or by being the local user; and in no other way;
- a condition only narrows: on stages and aliases, what is about promotions; on tag keys, changes of
  tags;
- what a credential is limited to (`Principal.scopes`) narrows all of it alike.

`visibility.py` says the same as SQL, `explain.py` the same with reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from muniment_auth.permissions import (
    AIMED,
    GRANTABLE,
    PROMOTING,
    ROLES,
    UNGRANTED,
    Permission,
    Permissions,
    kinds_of,
    known,
)
from muniment_auth.principal import Principal
from muniment_auth.resources import NO_ATTRIBUTES, Attributes, Resource, covers, ended_key
from muniment_auth.subjects import holds
from muniment_schemas.access_events import (
    ANYTHING,
    GRANT_PREFIX,
    ID_PREFIX,
    LOCAL,
    OWNER,
    Grant,
)
from muniment_schemas.patterns import matches

OWNED_KINDS = ("experiment", "model", "prompt")
KINDS = (*OWNED_KINDS, "server")
OWNER_ROLE = "manager"
ADMIN_ROLE = "admin"

NO_ENDED: AbstractSet[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, and why, in words that an auditor can use.

    because: the chain that allows it: `grant:ID` or `owner` or `admin-group:NAME` or `local`, and
    then `role:NAME`. The reason names nothing that the caller did not name.
    """

    allowed: bool
    reason: str
    because: tuple[str, ...] = ()


_PUBLIC: Final = Decision(True, "public", ("public",))
_SIGNED_IN: Final = Decision(True, "signed in", ("signed-in",))
_LOCAL: Final = Decision(True, "local user", (LOCAL,))
_OWNER: Final = Decision(True, "its creator", (OWNER, f"role:{OWNER_ROLE}"))
_NOT_SIGNED_IN: Final = Decision(False, "not authenticated")


class Rule:
    """A grant as it counts for one principal: `permissions` are those that its scopes leave."""

    __slots__ = (
        "aliases", "decision", "expires_at_ms", "kind", "pattern", "permissions", "prefix", "reach",
        "staged", "stages", "tag_keys", "workspace",
    )  # fmt: skip

    def __init__(self, grant: Grant, permissions: Permissions, decision: Decision) -> None:
        """decision: what is answered when the rule allows something."""
        self.kind = grant.resource_kind
        self.pattern = grant.pattern
        self.prefix = grant.pattern.partition(ANYTHING)[0]
        self.workspace = grant.workspace
        self.stages = frozenset(grant.stages)
        self.aliases = frozenset(grant.aliases)
        self.staged = bool(grant.stages or grant.aliases)
        self.tag_keys = frozenset(grant.tag_keys)
        self.expires_at_ms = grant.expires_at_ms
        self.permissions = permissions
        self.decision = decision
        own = frozenset(KINDS) if self.kind == ANYTHING else frozenset({self.kind})
        self.reach = own & {kind for permission in permissions for kind in kinds_of(permission)}

    def live(self, now_ms: int) -> bool:
        """Whether it has not ended."""
        return self.expires_at_ms is None or self.expires_at_ms > now_ms

    def concerns(self, resource: Resource, now_ms: int) -> bool:
        """Whether it is about the resource now, conditions apart. Its pattern fits already."""
        return (
            (self.kind == ANYTHING or self.kind == resource.kind)
            and (self.workspace == ANYTHING or self.workspace == resource.workspace)
            and (self.expires_at_ms is None or self.expires_at_ms > now_ms)
        )

    def permits(self, permission: Permission, attributes: Attributes) -> bool:
        """Whether its conditions let an action pass."""
        if self.staged and permission in PROMOTING:
            stage, alias = attributes.stage, attributes.alias
            if stage is None and alias is None and permission in AIMED:
                return False
            if stage is not None and stage not in self.stages:
                return False
            if alias is not None and alias not in self.aliases:
                return False
        key = attributes.tag_key
        return key is None or not self.tag_keys or key in self.tag_keys


class _Index:
    """Rules by what they may be found by: a name, an id, or neither."""

    __slots__ = ("by_id", "by_name", "wide")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_name: dict[str, list[Rule]] = {}
        self.by_id: dict[str, list[Rule]] = {}
        self.wide: list[Rule] = []
        for rule in rules:
            if rule.pattern.startswith(ID_PREFIX):
                self.by_id.setdefault(rule.pattern.removeprefix(ID_PREFIX), []).append(rule)
            elif ANYTHING in rule.pattern:
                self.wide.append(rule)
            else:
                self.by_name.setdefault(rule.pattern, []).append(rule)
        # What is quickest and widest is tried first.
        self.wide.sort(key=lambda rule: (rule.pattern != ANYTHING, len(rule.pattern)))

    def fitting(self, resource: Resource) -> Iterator[Rule]:
        """Those whose pattern means the resource."""
        name = resource.name
        for rule in self.wide:
            # Most patterns begin with a text, and most do not fit: that is told at once.
            if rule.pattern == ANYTHING or (
                name.startswith(rule.prefix) and matches(rule.pattern, name)
            ):
                yield rule
        yield from self.by_name.get(name, ())
        if resource.id:
            yield from self.by_id.get(resource.id, ())

    def all(self) -> Iterator[Rule]:
        """All of them."""
        yield from self.wide
        for rules in (*self.by_name.values(), *self.by_id.values()):
            yield from rules


class Access:
    """What one principal holds, at one version of the access state. Immutable; ask any thread."""

    __slots__ = (
        "_ended", "_index", "_owned", "_signed_in", "_unlimited", "_whole", "principal", "version",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal | None,
        rules: Iterable[Rule],
        version: int,
        ended: AbstractSet[tuple[str, str]] = NO_ENDED,
        unlimited: bool = False,
    ) -> None:
        """unlimited: everything is allowed. principal: None for nobody in particular."""
        self.principal = principal
        self.version = version
        self._unlimited = unlimited
        self._signed_in = principal is not None
        self._ended = ended
        scoped = _scoped(principal)
        owned = ROLES[OWNER_ROLE] & scoped if principal is not None else frozenset()
        self._owned: Mapping[str, Permissions] = {
            kind: frozenset(p for p in owned if kind in kinds_of(p)) for kind in OWNED_KINDS
        }
        kept = [rule for rule in rules if rule.permissions]
        self._whole = _Index(kept)
        by_permission: dict[Permission, list[Rule]] = {}
        for rule in kept:
            for permission in rule.permissions:
                by_permission.setdefault(permission, []).append(rule)
        self._index = {permission: _Index(some) for permission, some in by_permission.items()}

    def decide(
        self,
        permission: Permission,
        resource: Resource,
        attributes: Attributes = NO_ATTRIBUTES,
        now_ms: int = 0,
    ) -> Decision:
        """Whether the principal may do this now, and by which grant."""
        if self._unlimited:
            return _LOCAL
        narrowed = None
        index = self._index.get(permission)
        if index is not None and resource.kind in kinds_of(permission):
            for rule in index.fitting(resource):
                if rule.concerns(resource, now_ms):
                    if rule.permits(permission, attributes):
                        return rule.decision
                    narrowed = rule
        if self.owns(resource) and permission in self._owned[resource.kind]:
            return _OWNER
        if permission in UNGRANTED:
            return self._ungranted(permission)
        return Decision(False, self.refusal(permission, narrowed))

    def rights(
        self,
        permission: Permission,
        resource: Resource,
        attributes: Attributes = NO_ATTRIBUTES,
        now_ms: int = 0,
    ) -> tuple[str, ...]:
        """All that a permission is held by, where `decide` answers the first: what `because` begins
        with, each."""
        if self._unlimited:
            return (LOCAL,)
        index = self._index.get(permission)
        fitting = () if index is None else index.fitting(resource)
        found = [
            rule.decision.because[0]
            for rule in fitting
            if resource.kind in kinds_of(permission)
            and rule.concerns(resource, now_ms)
            and rule.permits(permission, attributes)
        ]
        if self.owns(resource) and permission in self._owned[resource.kind]:
            found.append(OWNER)
        return tuple(found)

    def owns(self, resource: Resource) -> bool:
        """Whether the principal created the thing, and that still counts."""
        owner = resource.owner
        return (
            owner is not None
            and self.principal is not None
            and owner == self.principal.id
            and resource.kind in self._owned
            and ended_key(resource.kind, resource.id) not in self._ended
        )

    def any(self, resource: Resource, now_ms: int = 0) -> bool:
        """Whether it holds at least one permission on it, so that it may know that it exists."""
        if self._unlimited or (self.owns(resource) and bool(self._owned[resource.kind])):
            return True
        return any(
            resource.kind in rule.reach and rule.concerns(resource, now_ms)
            for rule in self._whole.fitting(resource)
        )

    def reaches(self, workspace: str, now_ms: int = 0) -> bool:
        """Whether it holds anything in a workspace."""
        return self._unlimited or any(
            rule.workspace in (ANYTHING, workspace) and rule.live(now_ms)
            for rule in self._whole.all()
        )

    def may_ever(self, permission: Permission) -> bool:
        """Whether there is anything at all that it may be held on, now or when something is owned.

        False is final; True says nothing about one thing.
        """
        if self._unlimited or permission in self._index:
            return True
        if permission in UNGRANTED:
            return self._ungranted(permission).allowed
        return any(permission in held for held in self._owned.values())

    @property
    def unlimited(self) -> bool:
        """Whether everything is allowed."""
        return self._unlimited

    @property
    def ended(self) -> AbstractSet[tuple[str, str]]:
        """Ownerships that do not count any more, as `ended_key` has them."""
        return self._ended

    def owned(self, kind: str) -> Permissions:
        """What creating a thing of that kind gives."""
        return self._owned.get(kind, frozenset())

    def rules(self, permission: Permission, now_ms: int) -> Iterator[Rule]:
        """The live rules that give a permission."""
        index = self._index.get(permission)
        if index is not None:
            yield from (rule for rule in index.all() if rule.live(now_ms))

    def _ungranted(self, permission: Permission) -> Decision:
        if permission is Permission.PUBLIC:
            return _PUBLIC
        return _SIGNED_IN if self._signed_in else _NOT_SIGNED_IN

    def refusal(self, permission: Permission, narrowed: Rule | None = None) -> str:
        """Why a permission is not held. narrowed: by what it would be, but for conditions."""
        principal = self.principal
        if principal is None:
            return _NOT_SIGNED_IN.reason
        if principal.scopes is not None and permission not in _scoped(principal):
            return f"this credential is not made for {permission}"
        if narrowed is not None:
            return f"{permission} is granted, {limits_of(narrowed)} only"
        reason = f"no grant gives {permission} to this principal"
        if principal.groups_unknown is not None:
            reason += f"; not all of its groups are known: {principal.groups_unknown}"
        return reason


def limits_of(rule: Rule | Grant) -> str:
    """A rule's conditions in words."""
    named = (("stage", rule.stages), ("alias", rule.aliases), ("tag", rule.tag_keys))
    parts = (f"{word} {', '.join(sorted(values))}" for word, values in named if values)
    return "for " + " and ".join(parts)


def _scoped(principal: Principal | None) -> Permissions:
    """The permissions that a credential may use at all."""
    if principal is None or principal.scopes is None:
        return GRANTABLE
    scopes = principal.scopes
    return frozenset(p for p in GRANTABLE if any(matches(scope, p) for scope in scopes))


def permissions_of(role: str, roles: Mapping[str, Iterable[str]]) -> Permissions:
    """What a role holds; nothing when there is no such role. roles: those of one's own."""
    built_in = ROLES.get(role)
    return built_in if built_in is not None else known(roles.get(role, ()))


def compile_access(
    principal: Principal,
    roles: Mapping[str, Iterable[str]],
    grants: Iterable[Grant],
    version: int,
    admin_groups: Iterable[tuple[str, str]] = (),
    ended: AbstractSet[tuple[str, str]] = NO_ENDED,
) -> Access:
    """What a principal holds.

    grants: those of others among them do not count; `subjects.BySubject` finds its own quickly.
    roles: the defined ones, each with its permissions; the built-in ones are always there.
    admin_groups: (issuer, group) whose members the configuration makes admins. ended: ownerships
    that were ended. version: of the access state that all this was read from.
    """
    if principal.kind == "local" and principal.scopes is None:
        return Access(principal, (), version, ended, unlimited=True)
    scoped = _scoped(principal)
    rules = [] if principal.kind != "local" else [_everywhere("local user", LOCAL, scoped)]
    for issuer, group in admin_groups:
        if issuer == principal.issuer and group in principal.groups:
            rules.append(_everywhere("admin group", f"admin-group:{group}", scoped))
    held: dict[str, Permissions] = {}
    for grant in grants:
        if holds(principal, grant):
            if grant.role not in held:
                held[grant.role] = permissions_of(grant.role, roles) & scoped
            because = (f"{GRANT_PREFIX}{grant.grant_id}", f"role:{grant.role}")
            rules.append(Rule(grant, held[grant.role], Decision(True, "granted", because)))
    return Access(principal, rules, version, ended)


def _everywhere(reason: str, because: str, permissions: Permissions) -> Rule:
    grant = Grant(
        grant_id="",
        subject_kind="principal",
        role=ADMIN_ROLE,
        workspace=ANYTHING,
        resource_kind=ANYTHING,
        pattern=ANYTHING,
    )
    return Rule(grant, permissions, Decision(True, reason, (because, f"role:{ADMIN_ROLE}")))


def gives(
    grant: Grant,
    permission: Permission,
    resource: Resource,
    attributes: Attributes,
    roles: Mapping[str, Iterable[str]],
    now_ms: int,
) -> bool:
    """Whether a grant allows an action now to those that it is made to. roles: the defined ones."""
    rule = Rule(grant, permissions_of(grant.role, roles), _LOCAL)
    return (
        permission in rule.permissions
        and covered(grant, resource)
        and rule.live(now_ms)
        and rule.permits(permission, attributes)
    )


def covered(grant: Grant, resource: Resource) -> bool:
    """Whether a grant's kind, workspace and pattern mean the resource."""
    return (
        grant.resource_kind in (ANYTHING, resource.kind)
        and grant.workspace in (ANYTHING, resource.workspace)
        and covers(grant.pattern, resource)
    )


EVERYTHING: Final = Access(None, (), 0, unlimited=True)
"""All is allowed: for a server without sign-in, and for what the server does itself."""

NOBODY: Final = Access(None, (), 0)
"""Nobody is signed in: only what is public."""
