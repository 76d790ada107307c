"""An event as a line for people, and as a JSON object with all that it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from muniment_schemas.access_events import Grant
from muniment_schemas.columns import NO_CONTEXT, context_index, points
from muniment_schemas.envelope import Event
from muniment_schemas.events import BatchLogged, MetricColumns
from muniment_services.log.base import Record

PLACE_WIDTH = 14
TYPE_WIDTH = 20
AGGREGATE_WIDTH = 36
ACTOR_CHARS = 8
FACTS_MAX = 8
FACT_CHARS_MAX = 60
BYTES_SHOWN = 6
UNSHOWN = frozenset(
    """envelope owner path user_id artifact_uri artifact_location start_time_ms end_time_ms
    schema_json identity_sealed secret_sha256 renewal_sealed""".split()
)
"""What a line leaves out: it says so already, or it says nothing to a reader. JSON has it all."""

DIM, RED, GREEN, YELLOW, CYAN, RESET = (f"\x1b[{code}m" for code in (2, 31, 32, 33, 36, 0))


def line(record: Record, event: Event, coloured: bool) -> str:
    """One event on one line: time (UTC), place, type, aggregate, actor, what happened."""
    envelope = event.envelope
    return _join(
        coloured,
        record,
        envelope.type,
        f"{envelope.aggregate_kind}/{envelope.aggregate_id}",
        envelope.actor.principal_id[:ACTOR_CHARS],
        " ".join(_facts(event)),
    )


def unreadable_line(record: Record, reason: str, coloured: bool) -> str:
    """The line of a record that is no event that we know."""
    return _join(
        coloured, record, "(unreadable)", printable(record.key.decode("latin-1")), "", reason
    )


def as_json(record: Record, event: Event, schema: str) -> dict[str, Any]:
    """Everything that the record holds: bytes as hex, metric points one by one, NaN as "NaN"."""
    value: dict[str, Any] = _plain(msgspec.to_builtins(event, builtin_types=(bytes,)))
    if isinstance(event, BatchLogged) and event.metrics is not None:
        value["metrics"] = list(_points(event.metrics))
    return _place(record) | {"schema": schema, **value}


def unreadable_json(record: Record, reason: str) -> dict[str, Any]:
    """A record that is no event that we know: its bytes, and why it cannot be read."""
    return _place(record) | {"error": reason, "value": record.value.hex()}


def printable(text: str) -> str:
    """The text without characters that move the cursor or colour a terminal."""
    return text if text.isprintable() else json.dumps(text)[1:-1].replace("\x7f", "\\u007f")


def time_text(at_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, or the number when no calendar has that time."""
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _join(
    coloured: bool, record: Record, event_type: str, aggregate: str, actor: str, facts: str
) -> str:
    time, place = time_text(record.timestamp_ms), f"{record.at}@{record.offset}"
    parts = (
        (DIM, time),
        (DIM, f"{place:{PLACE_WIDTH}}"),
        (_colour(event_type), f"{event_type:{TYPE_WIDTH}}"),
        (CYAN, f"{printable(aggregate):{AGGREGATE_WIDTH}}"),
        (DIM, f"{printable(actor):{ACTOR_CHARS}}"),
        ("", facts),
    )
    texts = (f"{colour}{text}{RESET}" if coloured and colour else text for colour, text in parts)
    return "  ".join(texts).rstrip()


def _colour(event_type: str) -> str:
    if event_type.endswith(("Created", "Restored")):
        return GREEN
    return RED if event_type.endswith(("Deleted", "(unreadable)")) else YELLOW


def _facts(event: Event) -> Iterator[str]:
    facts = list(_batch_facts(event) if isinstance(event, BatchLogged) else _field_facts(event))
    yield from facts[:FACTS_MAX]
    if len(facts) > FACTS_MAX:
        yield f"+{len(facts) - FACTS_MAX} more"
    if isinstance(event, BatchLogged) and event.metrics is not None:
        yield f"({event.metrics.count} point{'s' if event.metrics.count != 1 else ''})"


def _batch_facts(event: BatchLogged) -> Iterator[str]:
    yield from (_fact(key, value) for key, value in event.params.items())
    if event.metrics is not None:
        yield from (_fact(key, f"{value:g}") for key, value in _last(event.metrics).items())
    yield from (_fact(f"#{key}", value) for key, value in event.tags.items())


def _last(columns: MetricColumns) -> dict[str, float]:
    # Of each key the point that was logged last in this batch.
    read = points(columns)
    return {
        read.keys[index]: value
        for index, value in zip(read.key_index.tolist(), read.value.tolist(), strict=True)
    }


def _field_facts(event: Event) -> Iterator[str]:
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name in UNSHOWN or value is None or value == () or value == {}:
            continue
        if isinstance(value, Grant):
            yield from _grant_facts(value)
        elif isinstance(value, Mapping):
            yield from (_fact(f"#{key}", text) for key, text in value.items())
        elif isinstance(value, bytes):
            yield _fact(name, f"{value[:BYTES_SHOWN].hex()}…")
        elif isinstance(value, tuple):
            yield _fact(name, str(len(value)))
        else:
            yield _fact(name, str(value))


def _grant_facts(grant: Grant) -> Iterator[str]:
    yield _fact("role", grant.role)
    yield _fact("to", f"{grant.subject_kind}:{grant.subject}".rstrip(":"))
    yield from (_fact(claim.name, claim.pattern) for claim in grant.claims)
    yield _fact("on", f"{grant.resource_kind}:{grant.pattern}")
    for name in ("issuer", "workspace", "stages", "aliases", "tag_keys", "expires_at_ms"):
        value = getattr(grant, name)
        if value not in ("", (), None):
            yield _fact(name, ",".join(value) if isinstance(value, tuple) else str(value))


def _fact(name: str, value: object) -> str:
    text = printable(str(value))
    if len(text) > FACT_CHARS_MAX:
        text = text[:FACT_CHARS_MAX] + "…"
    return f"{printable(name)}={json.dumps(text, ensure_ascii=False) if ' ' in text else text}"


def _place(record: Record) -> dict[str, Any]:
    return {
        "topic": record.at.topic,
        "partition": record.at.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": record.key.decode("utf-8", "backslashreplace"),
        "headers": {
            name: value.decode("utf-8", "backslashreplace") for name, value in record.headers
        },
    }


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case float() if not math.isfinite(value):
            return _number(value)
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _points(columns: MetricColumns) -> Iterator[dict[str, Any]]:
    read = points(columns)
    contexts = context_index(columns).tolist() or [NO_CONTEXT] * columns.count
    rows = zip(
        read.key_index.tolist(),
        read.value.tolist(),
        read.timestamp_ms.tolist(),
        read.step.tolist(),
        contexts,
        strict=True,
    )
    for key, value, timestamp_ms, step, context in rows:
        point = {
            "key": read.keys[key],
            "value": _number(value),
            "timestamp_ms": timestamp_ms,
            "step": step,
        }
        if context != NO_CONTEXT:
            point["context"] = msgspec.to_builtins(columns.contexts[context])
        yield point
