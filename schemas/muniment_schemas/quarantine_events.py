"""Events of the quarantine topic: what a server could not fold. Fields: the `.avsc` file."""

from __future__ import annotations

from typing import ClassVar

from muniment_schemas.envelope import QUARANTINE, Event


class RecordQuarantined(Event, frozen=True, kw_only=True):
    """A record could not be folded; its history stands still on the server that says so."""

    TOPIC: ClassVar[str] = QUARANTINE
    AGGREGATE: ClassVar[str] = "record"
    topic: str
    partition: int
    record_offset: int
    record_kind: str
    record_id: str
    record_type: str
    reason: str
    release: str
