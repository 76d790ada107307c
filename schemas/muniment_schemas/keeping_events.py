"""Events of what is kept and what is forgotten: erasure, legal holds. Fields: `avro/`."""

from __future__ import annotations

from typing import ClassVar

from muniment_schemas.envelope import CATALOG, Event


class PrincipalErased(Event, frozen=True, kw_only=True):
    """Who a principal is was ordered to be forgotten. The actor ordered it."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "principal"
    key_id: str
    reason: str


class HoldPlaced(Event, frozen=True, kw_only=True):
    """A legal hold was placed: what it covers stays until it is released."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "hold"
    reason: str
    workspace: str
    models: str | None = None
    experiments: str | None = None
    principal_id: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


class HoldReleased(Event, frozen=True, kw_only=True):
    """A legal hold was released."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "hold"
    reason: str
