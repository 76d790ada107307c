"""How a record's value says which schema it is written with: two framings, both always read.

    single object   C3 01, the schema's CRC-64-AVRO fingerprint (8 bytes, little-endian)
    Confluent       00, the id that a schema registry gave the schema (4 bytes, big-endian)

Then the Avro value. The first explains itself. What an id means stands in the log as well
(`SchemaRegistered`, itself a single object, like `SchemaPublished`), so that no reader of ours ever
asks a registry. What always holds: an id means one schema in one log for ever, the one that the
first `SchemaRegistered` of the id names; it stands in the catalog before any record that needs it.
Source: Apache Avro 1.12 specification, "Single-object encoding"; Confluent Schema Registry, "Wire
format".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from muniment_schemas.subjects import Subject

MARKER = b"\xc3\x01"
HEADER_BYTES = len(MARKER) + 8

CONFLUENT_MARKER = b"\x00"
CONFLUENT_HEADER_BYTES = len(CONFLUENT_MARKER) + 4

SCHEMA_ID_MAX = 2**31 - 1
"""Registries count in signed 32-bit integers."""

ALWAYS_SINGLE_OBJECT = frozenset(
    {"SchemaPublished", "SchemaRegistered", "RecordQuarantined", "HeadsSigned", "SigningKeyAdded"}
)
"""Events that a reader needs before it knows what an id means, or when it does not."""


class Framing(Protocol):
    """How new records are framed."""

    def header(self, subject: Subject) -> bytes:
        """What the value of a record of this schema begins with."""


class SingleObject:
    """Avro's single-object encoding."""

    def header(self, subject: Subject) -> bytes:
        """Marker and fingerprint."""
        return MARKER + subject.fingerprint


class Confluent:
    """Confluent's framing, as the consumers of a schema registry expect it."""

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        """ids: fingerprint to id, for every released schema but ALWAYS_SINGLE_OBJECT's.

        Each must stand in the log before the first record is encoded.
        """
        self._ids = ids

    def header(self, subject: Subject) -> bytes:
        """Marker and id; a single object's header for events that ids are read from."""
        if subject.event_type in ALWAYS_SINGLE_OBJECT:
            return MARKER + subject.fingerprint
        return CONFLUENT_MARKER + self._ids[subject.fingerprint].to_bytes(4, "big")


class SchemaIds(Protocol):
    """What ids of schema registries mean, as the log says it."""

    def known(self, schema_id: int) -> bytes | None:
        """The fingerprint of an id's schema, as far as the log has been read for that."""

    def find(self, schema_id: int) -> bytes | None:
        """The same, with a look at the rest of the log when it is not known. Blocking."""


class NoSchemaIds:
    """No log to look ids up in: for those who read single objects only."""

    def known(self, schema_id: int) -> bytes | None:
        """None."""
        return None

    def find(self, schema_id: int) -> bytes | None:
        """None."""
        return None


SINGLE_OBJECT = SingleObject()
NO_SCHEMA_IDS = NoSchemaIds()


def schema_id(value: bytes) -> int | None:
    """The id in a value that has Confluent's framing, else None."""
    if value[:1] != CONFLUENT_MARKER or len(value) < CONFLUENT_HEADER_BYTES:
        return None
    return int.from_bytes(value[1:CONFLUENT_HEADER_BYTES], "big")
