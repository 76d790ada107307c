"""Records that cannot be decoded, as events that say so, so that the fold has a place for them."""

from __future__ import annotations

from typing import ClassVar

from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.envelope import Actor, Envelope, Event
from muniment_services.log.base import Record

NOBODY = Actor(principal_id="", auth_method="")


class Unreadable(Event, frozen=True, kw_only=True):
    """Stands for a record of which only headers and key can be told. It is never written."""

    TOPIC: ClassVar[str] = ""
    AGGREGATE: ClassVar[str] = ""
    reason: str


def event_of(codec: Codec, record: Record) -> Event:
    """The event in a record; Unreadable when there is none that we know.

    Whose history it belongs to is then what the header `ce_subject` says (`kind/id`), else the key.
    """
    try:
        return codec.decode(record.value)
    except CodecError as error:
        return _unreadable(record, str(error))


def _unreadable(record: Record, reason: str) -> Unreadable:
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    kind, _, aggregate_id = headers.get("ce_subject", "").partition("/")
    envelope = Envelope(
        event_id=headers.get("ce_id", ""),
        type=headers.get("ce_type", ""),
        aggregate_kind=kind,
        aggregate_id=aggregate_id or record.key.decode("utf-8", "replace"),
        actor=NOBODY,
        request_id="",
        recorded_at_ms=record.timestamp_ms,
    )
    return Unreadable(envelope=envelope, reason=reason)
