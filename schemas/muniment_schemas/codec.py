"""Avro bytes to events and back.

A value begins with what names its schema (`framing.py`). A record therefore explains itself to
anyone who has the schemas, and the schemas stand in the log as well (`SchemaPublished`).
Source: Apache Avro 1.12 specification, "Schema resolution".

    CodecError
    ├── UnknownFraming    the value does not begin with the name of a schema that we know
    ├── UnknownSchemaId   it begins with a registry's id, and the log does not say of which schema
    └── Undecodable       the bytes are not a value of the schema that they name
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from muniment_schemas.envelope import Event
from muniment_schemas.events import EVENT_TYPES
from muniment_schemas.framing import (
    CONFLUENT_HEADER_BYTES,
    HEADER_BYTES,
    MARKER,
    NO_SCHEMA_IDS,
    SINGLE_OBJECT,
    Framing,
    SchemaIds,
    schema_id,
)
from muniment_schemas.subjects import Schemas, Subject
from muniment_schemas.upcasters import UPCASTERS


class CodecError(ValueError):
    """A record's value cannot be read as an event."""


class UnknownFraming(CodecError):
    """The value does not begin with a framing that we know; it may come from a newer release."""

    def __init__(self, head: bytes) -> None:
        super().__init__(
            f"No released schema has the framing {head.hex()}; a newer muniment may have written it"
        )
        self.head = head


class UnknownSchemaId(CodecError):
    """The value names its schema by an id of a registry, and the log does not say of which."""

    def __init__(self, unknown: int) -> None:
        super().__init__(
            f"Nothing in the log says which schema has the registry id {unknown}; a program that "
            "is not muniment may have written the record"
        )
        self.schema_id = unknown


class Undecodable(CodecError):
    """The framing names a schema, but the rest is not a value of it."""

    def __init__(self, event_type: str, reason: str) -> None:
        super().__init__(f"The value is not a readable {event_type}: {reason}")
        self.event_type = event_type


class Codec:
    """Encodes newest versions with one framing; decodes all released ones in either framing.

    Holds no state of its own.
    """

    def __init__(
        self,
        schemas: Schemas,
        framing: Framing = SINGLE_OBJECT,
        ids: SchemaIds = NO_SCHEMA_IDS,
    ) -> None:
        """framing: of what is encoded. ids: where the log's word on registry ids is looked up."""
        self.schemas = schemas
        self.ids = ids
        self._writers: Mapping[type[Event], tuple[bytes, Any]] = {
            kind: (framing.header(newest), newest.parsed)
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

        Looks into the log when `needs_log` says so. Raises CodecError, and what reading the log
        raises.
        """
        subject, header_bytes = self._framed(value)
        newest = self.schemas.newest[subject.event_type]
        fields = self._fields(value, header_bytes, subject, newest)
        try:
            event = msgspec.convert(fields, self._types[subject.event_type], builtin_types=(bytes,))
        except msgspec.ValidationError as error:
            raise Undecodable(subject.event_type, str(error)) from error
        assert event.envelope.type == subject.event_type
        return event

    def subject_of(self, value: bytes) -> Subject:
        """The schema that framed bytes name. Raises as `decode` does."""
        return self._framed(value)[0]

    def needs_log(self, value: bytes) -> bool:
        """Whether decoding has to look into the log first, which blocks.

        That is so for a registry id that is met before the catalog's word on it has been read.
        """
        unread = schema_id(value)
        return unread is not None and self.ids.known(unread) is None

    def _framed(self, value: bytes) -> tuple[Subject, int]:
        # The schema, and how many bytes name it.
        by_id = schema_id(value)
        if by_id is None:
            fingerprint, header_bytes = bytes(value[2:HEADER_BYTES]), HEADER_BYTES
        else:
            fingerprint, header_bytes = self._of_id(by_id), CONFLUENT_HEADER_BYTES
        subject = self.schemas.by_fingerprint.get(fingerprint)
        if subject is None or (by_id is None and value[:2] != MARKER):
            raise UnknownFraming(bytes(value[:header_bytes]))
        return subject, header_bytes

    def _of_id(self, by_id: int) -> bytes:
        found = self.ids.known(by_id) or self.ids.find(by_id)
        if found is None:
            raise UnknownSchemaId(by_id)
        return found

    def _fields(
        self, value: bytes, header_bytes: int, written: Subject, newest: Subject
    ) -> dict[str, Any]:
        buffer = BytesIO(memoryview(value)[header_bytes:])
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
