"""Events of muniment's own credentials: personal and service tokens, and browser sessions.

What each field means stands in `avro/`. Of a secret only its SHA-256 is ever in an event.
"""

from __future__ import annotations

from typing import ClassVar

from muniment_schemas.envelope import CATALOG, Event

PERSONAL = "personal"
"""A token of the principal that asked for it."""

SERVICE = "service"
"""A token of a service principal that muniment itself keeps."""

SESSION = "session"
"""A browser's login."""


class CredentialIssued(Event, frozen=True, kw_only=True):
    """A token was made, or a browser logged in."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "credential"
    credential_kind: str
    principal_id: str
    principal_kind: str
    issuer: str
    secret_sha256: bytes
    name: str
    description: str | None = None
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    groups_unknown: str | None = None
    claims: dict[str, tuple[str, ...]]
    client_id: str | None = None
    maker_id: str | None = None
    expires_at_ms: int
    vouched_at_ms: int | None = None
    renewal_sealed: bytes | None = None


class SessionRenewed(Event, frozen=True, kw_only=True):
    """The identity provider was asked again about whoever is logged in by a browser."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "credential"
    principal_id: str
    groups: tuple[str, ...]
    groups_unknown: str | None = None
    claims: dict[str, tuple[str, ...]]
    vouched_at_ms: int
    renewal_sealed: bytes | None = None


class CredentialRevoked(Event, frozen=True, kw_only=True):
    """A token was taken back, or a session ended before its time."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "credential"
    credential_kind: str
    principal_id: str
    reason: str
