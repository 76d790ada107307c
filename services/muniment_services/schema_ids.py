"""Ids of schema registries, as the catalog tells them: read from the log, never from a registry.

Nothing is read before an id is met that is not known. The catalog is then read on, in its order,
until it says what the id means. It has said so before the first record that is framed with the id
was appended (`schema_registry.py`), so that the end of the catalog, looked up after such a record
was seen, is beyond the place where it says so.
"""

from __future__ import annotations

import threading

import structlog

from muniment_schemas.codec import Codec
from muniment_schemas.envelope import CATALOG
from muniment_schemas.events import SchemaRegistered
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.log.base import LogReader, Record, TopicPartition

_AT = TopicPartition(CATALOG, 0)
_TYPE = ("ce_type", SchemaRegistered.__name__.encode())

_log = structlog.get_logger("muniment.log")


class LoggedSchemaIds:
    """SchemaIds of one log. For any thread; `find` blocks as `EventLog.read` does."""

    def __init__(self, log: LogReader, schemas: Schemas) -> None:
        """The log must have been started before `find` is called."""
        self._log = log
        self._codec = Codec(schemas)
        self._fingerprints: dict[int, bytes] = {}
        self._due = Offset(0)
        self._lock = threading.Lock()

    def known(self, schema_id: int) -> bytes | None:
        """The fingerprint of an id's schema, as far as the catalog has been read."""
        return self._fingerprints.get(schema_id)

    def find(self, schema_id: int) -> bytes | None:
        """Read on in the catalog until it says what the id means; None at its end.

        Raises LogError.
        """
        with self._lock:
            while schema_id not in self._fingerprints:
                records = self._log.read(_AT, self._due)
                if not records:
                    return None
                for record in records:
                    if _TYPE in record.headers:
                        self._learn(record)
                self._due = Offset(records[-1].offset + 1)
            return self._fingerprints[schema_id]

    def _learn(self, record: Record) -> None:
        try:
            event = self._codec.decode(record.value)
            assert isinstance(event, SchemaRegistered)
            self._fingerprints.setdefault(event.registry_id, bytes.fromhex(event.fingerprint))
        except ValueError:  # CodecError is one.
            _log.error("a SchemaRegistered cannot be read", record=f"{_AT}@{record.offset}")
