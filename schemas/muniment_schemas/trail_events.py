"""Events of the access topic: calls that are no event of their own. Fields: the `.avsc` files.

No state follows from them: they are kept for whoever asks what was read, and what was refused.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.envelope import ACCESS, Event

ALLOWED = "allowed"
DENIED = "denied"
FAILED = "failed"
"""How a call came out."""


class TouchedResource(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a call was about."""

    kind: str
    id: str | None = None
    name: str | None = None
    version: int | None = None


class CapturedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent, values of sensitive keys replaced by keyed hashes first."""

    query: str
    query_bytes: int
    query_sha256: bytes
    body: str
    body_bytes: int
    body_sha256: bytes


class ApiCalled(Event, frozen=True, kw_only=True):
    """A call was answered that is no event of its own."""

    TOPIC: ClassVar[str] = ACCESS
    AGGREGATE: ClassVar[str] = "caller"
    method: str
    route: str | None = None
    permission: str | None = None
    resources: tuple[TouchedResource, ...]
    resources_total: int
    outcome: str
    reason: str | None = None
    error_code: str | None = None
    status: int
    duration_us: int
    bytes_in: int
    bytes_out: int | None = None
    level: str
    request: CapturedRequest | None = None


class TrailGap(Event, frozen=True, kw_only=True):
    """Calls were answered that the trail does not hold."""

    TOPIC: ClassVar[str] = ACCESS
    AGGREGATE: ClassVar[str] = "trail"
    lost: int
    first_at_ms: int
    last_at_ms: int
    reason: str
