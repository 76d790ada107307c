"""What every event carries: which one it is, what it is about, who did it, by which request, when.

Actors are principal ids. Who a principal is stands in `PrincipalRegistered` alone, so that a person
can be forgotten without touching any other event.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

WORKSPACE_DEFAULT = "default"

CATALOG = "catalog"
"""Topic of all that needs one total order."""

RUNS = "runs"
"""Topic of what jobs log: runs, logged models, traces, artifacts."""

CHECKPOINTS = "checkpoints"
"""Topic of the signed heads of all topics' trees."""

ACCESS = "access"
"""Topic of calls that are no event of their own."""

QUARANTINE = "quarantine"
"""Topic of reports on records that could not be folded."""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acted, as ids: the principal, its client, who acted for whom, and by which token."""

    principal_id: str
    client_id: str | None = None
    auth_method: str
    delegation: tuple[str, ...] = ()
    token_id: str | None = None


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """What a repeat of the same request is recognised by, and the JSON body that answers it."""

    key_sha256: bytes
    request_sha256: bytes
    answer: bytes


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about an event that do not depend on its type. Field meanings: any `.avsc` file."""

    event_id: str
    type: str
    aggregate_kind: str
    aggregate_id: str
    expected_version: int | None = None
    workspace: str = WORKSPACE_DEFAULT
    actor: Actor
    request_id: str
    traceparent: str | None = None
    occurred_at_ms: int | None = None
    recorded_at_ms: int
    idempotency: Idempotency | None = None
    client_address: str | None = None
    user_agent: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events. `TOPIC` is where it is kept, `AGGREGATE` the kind of thing it is on."""

    TOPIC: ClassVar[str]
    AGGREGATE: ClassVar[str]
    envelope: Envelope
