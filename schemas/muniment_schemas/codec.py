"""Avro bytes to events and back.

Framing is Avro's single-object encoding: `C3 01`, the schema's CRC-64-AVRO fingerprint (8 bytes,
little-endian), then the value. A record therefore explains itself to anyone who has the schemas,
and the schemas stand in the log as well (`SchemaPublished`).
Source: Apache Avro 1.12 specification, "Single-object encoding" and "Schema resolution".

    CodecError
    ├── UnknownFraming   not `C3 01` and a fingerprint that we know
    └── Undecodable      the bytes are not a value of the schema that they name
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from muniment_schemas.envelope import Event
from muniment_schemas.events import EVENT_TYPES
from muniment_schemas.subjects import Schemas, Subject
from muniment_schemas.upcasters import UPCASTERS

MARKER = b"\xc3\x01"
HEADER_BYTES = len(MARKER) + 8


class CodecError(ValueError):
    """A record's value cannot be read as an event."""


class UnknownFraming(CodecError):
    """The value does not begin with a framing that we know; it may come from a newer release."""

    def __init__(self, head: bytes) -> None:
        super().__init__(
            f"No released schema has the framing {head.hex()}; a newer muniment may have written it"
        )
        self.head = head


class Undecodable(CodecError):
    """The framing names a schema, but the rest is not a value of it."""

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(f"The value is not a readable {event_type}: {reason}")
        self.event_type = event_type


class Codec:
    """Encodes newest versions, decodes all released ones. Holds no state but the schemas."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._writers: Mapping[type[Event], tuple[bytes, Any]] = {
            kind: (MARKER + newest.fingerprint, newest.parsed)
            for kind in EVENT_TYPES
            for newest in (schemas.newest[kind.__name__],)
        }
        self._types = {kind.__name__: kind for kind in EVENT_TYPES}

    def encode(self, event: Event) -> bytes:
        """One event as framed Avro bytes, written with the newest schema of its type."""
        assert event.envelope.type == type(event).__name__
        header, schema = self._writers[type(event)]
        buffer = BytesIO()
        buffer.write(header)
        value = msgspec.to_builtins(event, builtin_types=(bytes,))
        fastavro.schemaless_writer(buffer, schema, value)
        return buffer.getvalue()

    def decode(self, value: bytes) -> Event:
        """The event in `value`, brought to the newest version of its type.

        Raises UnknownFraming or Undecodable.
        """
        subject = self.subject_of(value)
        newest = self.schemas.newest[subject.event_type]
        fields = self._fields(value, subject, newest)
        try:
            event = msgspec.convert(fields, self._types[subject.event_type], builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Undecodable(subject.event_type, str(error)) from error
        assert event.envelope.type == subject.event_type
        return event

    def subject_of(self, value: bytes) -> Subject:
        """The schema that framed bytes name. Raises UnknownFraming."""
        subject = self.schemas.by_fingerprint.get(bytes(value[2:HEADER_BYTES]))
        if value[:2] != MARKER or subject is None:
            raise UnknownFraming(bytes(value[:HEADER_BYTES]))
        return subject

    def _fields(self, value: bytes, written: Subject, newest: Subject) -> dict[str, Any]:
        buffer = BytesIO(memoryview(value)[HEADER_BYTES:])
        steps = [
            step
            for version in range(written.version, newest.version)
            if (step := UPCASTERS.get((written.event_type, version))) is not None
        ]
        reader = None if steps or written is newest else newest.parsed
        try:
            fields: Any = fastavro.schemaless_reader(buffer, written.parsed, reader)
        except (EOFError, ValueError, IndexError, UnicodeDecodeError, MemoryError) as error:
            raise Undecodable(written.event_type, repr(error)) from error
        if buffer.read(1):
            raise Undecodable(written.event_type, "bytes follow the value")
        for step in steps:
            fields = step(fields)
        return dict(fields)
