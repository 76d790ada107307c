"""The policy once more, as plainly as it can be said: the oracle of tests/property/test_policy.py.

Written from the rules in words, without looking anything up twice and without indexes; shares with
the server the names of permissions and the shape of grants, and no line of its logic.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from muniment_auth.permissions import Permission
from muniment_auth.principal import Principal
from muniment_auth.resources import Attributes, Resource
from muniment_schemas.access_events import ClaimPattern, Grant
from muniment_schemas.ids import PrincipalId

READS = "experiment:read run:read trace:read logged_model:read artifact:read model:read"
EDITS = (
    "experiment:create experiment:write run:write run:delete trace:write trace:delete "
    "logged_model:write logged_model:delete artifact:write artifact:delete "
    "model:create model:write model:request"
)
PROMOTES = "model:promote model:approve model:request"
ROLES: Mapping[str, set[str]] = {
    "viewer": set(READS.split()),
    "logger": set(
        "experiment:read run:read run:write trace:write logged_model:read logged_model:write "
        "artifact:read artifact:write".split()
    ),
    "editor": set(f"{READS} {EDITS}".split()),
    "approver": set(f"{READS} {PROMOTES}".split()),
    "manager": set(
        f"{READS} {EDITS} {PROMOTES} experiment:delete model:delete access:read "
        "access:grant".split()
    ),
    "auditor": set(f"{READS} audit:read access:read server:read".split()),
    "admin": {str(p) for p in Permission} - {"public:read", "self:use"},
}
"""What each built-in role holds."""


@dataclass
class World:
    """Grants, roles of one's own, ended ownerships, admin groups."""

    grants: list[Grant] = field(default_factory=list)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ended: set[tuple[str, str]] = field(default_factory=set)
    admin_groups: tuple[tuple[str, str], ...] = ()


def allowed(
    world: World,
    who: Principal,
    permission: str,
    thing: Resource,
    attributes: Attributes,
    now_ms: int,
) -> bool:
    """Whether the principal may do it."""
    if who.kind == "local" and who.scopes is None:
        return True
    if permission in ("public:read", "self:use"):
        return True
    if who.scopes is not None and not any(glob(scope, permission) for scope in who.scopes):
        return False
    if not asked_on(permission, thing.kind):
        return False
    if who.kind == "local":
        return True
    if any(issuer == who.issuer and g in who.groups for issuer, g in world.admin_groups):
        return True
    if owner_counts(world, who, thing) and permission in ROLES["manager"]:
        return True
    return any(gives(world, g, who, permission, thing, attributes, now_ms) for g in world.grants)


def gives(
    world: World,
    grant: Grant,
    who: Principal,
    permission: str,
    thing: Resource,
    attributes: Attributes,
    now_ms: int,
) -> bool:
    """Whether one grant allows it, scopes apart."""
    if grant.role in ROLES:
        held = ROLES[grant.role]
    else:
        held = set(world.roles.get(grant.role, ())) & ROLES["admin"]
    if permission not in held:
        return False
    if not is_made_to(grant, who):
        return False
    if grant.resource_kind != "*" and grant.resource_kind != thing.kind:
        return False
    if grant.workspace != "*" and grant.workspace != thing.workspace:
        return False
    if grant.expires_at_ms is not None and now_ms >= grant.expires_at_ms:
        return False
    if grant.pattern.startswith("id:"):
        if not thing.id or grant.pattern != "id:" + thing.id:
            return False
    elif not glob(grant.pattern, thing.name):
        return False
    if permission in PROMOTES.split() and (grant.stages or grant.aliases):
        if (attributes.stage, attributes.alias) == (None, None) and permission != "model:request":
            return False
        if attributes.stage is not None and attributes.stage not in grant.stages:
            return False
        if attributes.alias is not None and attributes.alias not in grant.aliases:
            return False
    if attributes.tag_key is not None and grant.tag_keys:
        return attributes.tag_key in grant.tag_keys
    return True


def is_made_to(grant: Grant, who: Principal) -> bool:
    """Whether the principal is the grant's subject."""
    if grant.subject_kind == "everyone":
        return True
    if grant.subject_kind == "principal":
        return grant.subject == who.id
    if grant.issuer != who.issuer:
        return False
    if grant.subject_kind == "group":
        return grant.subject in who.groups
    for claim in grant.claims:
        values = [who.subject] if claim.name == "sub" else list(who.claims.get(claim.name, ()))
        if not [value for value in values if glob(claim.pattern, value)]:
            return False
    return True


def owner_counts(world: World, who: Principal, thing: Resource) -> bool:
    """Whether the principal created the thing and still has it."""
    kind = "model" if thing.kind == "prompt" else thing.kind
    return thing.kind != "server" and thing.owner == who.id and (kind, thing.id) not in world.ended


def asked_on(permission: str, kind: str) -> bool:
    """Whether there is such a question at all."""
    word = permission.split(":")[0]
    if word in ("access", "audit"):
        return True
    if word in ("experiment", "run", "trace", "logged_model"):
        return kind == "experiment"
    if word == "artifact":
        return kind in ("experiment", "model", "prompt")
    return kind in ("model", "prompt") if word == "model" else kind == "server"


_GLOBS: dict[str, re.Pattern[str]] = {}


def glob(pattern: str, text: str) -> bool:
    """Whether a text matches, by way of a regular expression."""
    if pattern not in _GLOBS:
        parts = (re.escape(part) for part in pattern.split("*"))
        _GLOBS[pattern] = re.compile(".*".join(parts), re.DOTALL)
    return _GLOBS[pattern].fullmatch(text) is not None


# Generated worlds: few values of each, so that most things nearly fit.

ISSUERS = ("https://a.example", "https://b.example")
GROUPS = ("admins", "science", "ops")
WORKSPACES = ("default", "other")
STAGES = ("Staging", "Production")
ALIASES = ("champion", "shadow")
KEYS = ("team", "approved")
NAMES = (
    "a", "ab", "team-a", "team-a/b", "100%", "a_b", "axb", "a\\b", "a*b", "a\nb", "Ä-ß", "",
    "id:1", "team-", "%", "_", "\\", "*", "ab\\", "日本", "A", "a\0b", "a\r\nb ",
)  # fmt: skip
PATTERNS = (
    "*", "a", "ab", "team-*", "*b", "a*b", "a_b", "100%", "*%", "a\\b", "*\\*", "\\", "Ä*", "*\n*",
    "id:1", "id:2", "id:7", "a*", "*a*b*", "%", "_", "*_*", "日*", "t*m-*", "**", "*\0*", "a*b ",
)  # fmt: skip
CLAIMS = {"repository": ("org/app", "org/lib"), "ref": ("refs/heads/main", "refs/tags/v1")}
KINDS = ("experiment", "model", "prompt", "server")
CUSTOM = ("promoter", "reader", "from-the-future")
SCOPES: tuple[set[str] | None, ...] = (
    None, None, None, None, {"run:*"}, {"*:read"}, {"*"}, {"model:promote", "*:write"}, set(),
)  # fmt: skip


def a_grant(chance: random.Random, number: int) -> Grant:
    """One grant of any kind."""
    pick = chance.choice
    subject_kind = pick(("principal", "principal", "group", "group", "claims", "everyone"))
    subject = {"principal": pick(("p1", "p2", "p3")), "group": pick(GROUPS)}.get(subject_kind, "")
    claims: tuple[ClaimPattern, ...] = ()
    if subject_kind == "claims":
        wanted = (
            ClaimPattern(name="sub", pattern=pick(("p1", "p*", "repo:*"))),
            ClaimPattern(name="repository", pattern=pick(("org/*", "org/app", "*"))),
            ClaimPattern(name="ref", pattern=pick(("refs/heads/*", "refs/tags/v1"))),
        )
        claims = tuple(chance.sample(wanted, chance.randint(1, 3)))
    few = chance.random() < 0.4
    return Grant(
        grant_id=f"g{number}",
        subject_kind=subject_kind,
        subject=subject,
        issuer=pick(ISSUERS) if subject_kind in ("group", "claims") else "",
        claims=claims,
        role=pick((*ROLES, *ROLES, *CUSTOM)),
        workspace=pick((*WORKSPACES, "*")),
        resource_kind=pick((*KINDS, "model", "experiment", "*")),
        pattern=pick(PATTERNS),
        stages=tuple(chance.sample(STAGES, chance.randint(0, 2))) if few else (),
        aliases=tuple(chance.sample(ALIASES, chance.randint(0, 2))) if few else (),
        tag_keys=tuple(chance.sample(KEYS, chance.randint(0, 2))) if few else (),
        expires_at_ms=pick((None, None, 50, 100)),
    )


def a_world(chance: random.Random, grants: int) -> World:
    """Roles, grants, ended ownerships, sometimes an admin group."""
    return World(
        grants=[a_grant(chance, number) for number in range(grants)],
        roles={
            "promoter": ("model:promote", "model:read"),
            "reader": ("*:read", "run:read", "experiment:read", "access:read"),
            "from-the-future": ("gadget:frobnicate", "model:write", "self:use"),
        },
        ended={("experiment", "1"), ("model", "2")} if chance.random() < 0.5 else set(),
        admin_groups=((ISSUERS[0], "admins"),) if chance.random() < 0.2 else (),
    )


def a_principal(chance: random.Random) -> Principal:
    """Somebody."""
    pick = chance.choice
    scopes = pick(SCOPES)
    name = pick(("p1", "p2", "p3"))
    return Principal(
        id=PrincipalId(name),
        kind="local" if chance.random() < 0.02 else "user",
        issuer=pick(ISSUERS),
        subject=pick((name, "repo:org/app")),
        name=name,
        auth_method="bearer",
        groups=frozenset(chance.sample(GROUPS, chance.randint(0, 2))),
        claims={
            claim: tuple(chance.sample(values, chance.randint(0, 2)))
            for claim, values in CLAIMS.items()
        },
        scopes=None if scopes is None else frozenset(scopes),
    )


def a_thing(chance: random.Random) -> Resource:
    """Something that can be asked about."""
    pick = chance.choice
    kind = pick((*KINDS, "experiment", "model"))
    if kind == "server":
        return Resource("server", workspace="*")
    return Resource(
        kind=kind,
        id=pick(("1", "2", "7", "")),
        name=pick(NAMES),
        owner=pick((None, None, "p1", "p2")),
        workspace=pick(WORKSPACES),
    )


def some_attributes(chance: random.Random) -> Attributes:
    """Mostly none."""
    pick = chance.choice
    found = Attributes()
    if chance.random() < 0.3:
        found = Attributes(stage=pick((None, *STAGES)), alias=pick((None, None, *ALIASES)))
    if chance.random() < 0.2:
        found = Attributes(stage=found.stage, alias=found.alias, tag_key=pick(KEYS))
    return found


def without_scopes(who: Principal) -> Principal:
    """The same principal with all that it holds."""
    return replace(who, scopes=None)
