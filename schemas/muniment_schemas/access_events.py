"""Events of access: who was given what, and what was taken back. Fields: the `.avsc` files.

All are about one aggregate, `ACCESS_ID`: two revocations that would each leave one administrator
meet there, and the log's order lets one of them through.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.envelope import CATALOG, Event

ACCESS_ID = "access"
"""Id of the one aggregate that all roles and grants belong to."""

ANYTHING = "*"
"""Any workspace, any kind of resource, or (as a pattern) any name."""

ID_PREFIX = "id:"
"""A pattern that begins so means the one thing that has the id, whatever its name is."""

BUILT_IN_ROLES = ("viewer", "logger", "editor", "approver", "manager", "auditor", "admin")
"""Names of the roles that every release knows; what they hold is said in `muniment_auth`."""

OWNER = "owner"
LOCAL = "local"
GRANT_PREFIX = "grant:"
"""How rights are written down: having made the thing, being the local user, a grant of that id."""

SUBJECT_KINDS = ("principal", "group", "claims", "everyone")
RESOURCE_KINDS = ("experiment", "model", "prompt", "server", ANYTHING)


class ClaimPattern(msgspec.Struct, frozen=True, kw_only=True):
    """A claim of a token must have a value that matches; `*` stands for any characters."""

    name: str
    pattern: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A subject holds a role on what a pattern covers, under conditions, until a time."""

    grant_id: str
    subject_kind: str
    subject: str = ""
    issuer: str = ""
    claims: tuple[ClaimPattern, ...] = ()
    role: str
    workspace: str = "default"
    resource_kind: str
    pattern: str
    stages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tag_keys: tuple[str, ...] = ()
    expires_at_ms: int | None = None
    comment: str = ""


class RoleDefined(Event, frozen=True, kw_only=True):
    """A role of one's own was defined, or got other permissions."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "access"
    name: str
    permissions: tuple[str, ...]
    description: str


class RoleRemoved(Event, frozen=True, kw_only=True):
    """A role of one's own was removed; no grant names it any more."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "access"
    name: str
    permissions: tuple[str, ...]


class GrantMade(Event, frozen=True, kw_only=True):
    """Somebody was given a role. The actor gave it, by a right that `by` names."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "access"
    grant: Grant
    by: str | None = None


class GrantRevoked(Event, frozen=True, kw_only=True):
    """A grant was taken back. What it was is repeated for auditors."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "access"
    grant_id: str
    reason: str
    grant: Grant


class OwnershipEnded(Event, frozen=True, kw_only=True):
    """The creator of a thing is no longer its manager by having created it."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "access"
    resource_kind: str
    resource_id: str
    resource_name: str
    reason: str
