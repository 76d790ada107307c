"""What our own decoder says of a log on Kafka, in the words of Avro's Java and Python libraries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.log.base import Record
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers
from muniment_services.schema_ids import LoggedSchemaIds

_SCHEMAS = Schemas.load()

Place = tuple[str, int, int]
"""Name of the topic on Kafka, partition, offset."""


def everything_in(bootstrap: str, prefix: str) -> dict[Place, tuple[Record, Event]]:
    """Every record of a log, decoded by us."""
    return asyncio.run(_everything_in(bootstrap, prefix))


async def _everything_in(bootstrap: str, prefix: str) -> dict[Place, tuple[Record, Event]]:
    log = KafkaLog(Brokers((bootstrap,)), prefix=prefix, read_only=True)
    await log.start()
    codec = Codec(_SCHEMAS, ids=LoggedSchemaIds(log, _SCHEMAS))
    found = {}
    for at, end in (await log.end_offsets()).items():
        start = Offset(0)
        while start < end:
            for record in await asyncio.to_thread(log.read, at, start):
                place = (f"{prefix}.{at.topic}", at.partition, int(record.offset))
                found[place] = (record, await asyncio.to_thread(codec.decode, record.value))
                start = Offset(record.offset + 1)
    await log.close()
    return found


def fields_of(event: Event) -> dict[str, Any]:
    """The event as Avro's Python libraries give it by the newest schema of its type.

    What is needed to read a log at all keeps its first schema for ever; fields that the envelope
    got later are not in it.
    """
    fields: dict[str, Any] = _listed(msgspec.to_builtins(event, builtin_types=(bytes,)))
    known: dict[str, Any] = _known(fields, _SCHEMAS.newest[event.envelope.type].parsed)
    return known


def _known(value: Any, schema: Any) -> Any:
    # Only records that stand in records by themselves: the event, its envelope, its actor.
    if not isinstance(schema, dict) or schema["type"] != "record":
        return value
    return {
        field["name"]: _known(value[field["name"]], field["type"]) for field in schema["fields"]
    }


def _listed(value: Any) -> Any:
    match value:
        case dict():
            return {key: _listed(item) for key, item in value.items()}
        case list() | tuple():
            return [_listed(item) for item in value]
    return value


def printed(value: Any) -> Any:
    """A value as Avro's Java library prints it as JSON: bytes as text, NaN as "NaN"."""
    match value:
        case bytes():
            return value.decode("latin-1")
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
        case dict():
            return {key: printed(item) for key, item in value.items()}
        case list():
            return [printed(item) for item in value]
    return value


def types_of(found: dict[Place, tuple[Record, Event]]) -> Iterator[str]:
    """The event types in a log, one for each record."""
    return (event.envelope.type for _, event in found.values())
