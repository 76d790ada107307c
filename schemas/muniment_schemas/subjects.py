"""The schemas that ship with the package: one subject per event type, versions from 1.

Released files are never edited. `Schemas.load()` reads them all; a schema is known by the
CRC-64-AVRO fingerprint of its parsing canonical form, which is also what frames every event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

FINGERPRINT_ALGORITHM = "CRC-64-AVRO"
SUFFIX = ".avsc"


@dataclass(frozen=True, slots=True)
class Subject:
    """One released schema. `fingerprint` is 8 bytes, little-endian, as the framing has them."""

    event_type: str
    version: int
    fingerprint: bytes
    parsed: Any
    raw: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Name of the schema's file in `avro/`."""
        return f"{self.event_type}.v{self.version}{SUFFIX}"

    @property
    def schema_json(self) -> str:
        """The schema, self-contained, as compact JSON."""
        return json.dumps(self.raw, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Schemas:
    """All released schemas, by (type, version), by fingerprint, and the newest of each type."""

    by_version: Mapping[tuple[str, int], Subject]
    by_fingerprint: Mapping[bytes, Subject]
    newest: Mapping[str, Subject]

    @staticmethod
    @cache
    def load() -> Schemas:
        """Read and parse every schema file of the package: once, since it takes 0.1 s and more."""
        subjects = sorted(
            (
                _subject(entry.name, json.loads(entry.read_text("utf-8")))
                for entry in files("muniment_schemas").joinpath("avro").iterdir()
                if entry.name.endswith(SUFFIX)
            ),
            key=lambda subject: (subject.event_type, subject.version),
        )
        by_fingerprint = {subject.fingerprint: subject for subject in subjects}
        assert len(by_fingerprint) == len(subjects), "two schema files have the same fingerprint"
        return Schemas(
            by_version={(s.event_type, s.version): s for s in subjects},
            by_fingerprint=by_fingerprint,
            newest={subject.event_type: subject for subject in subjects},
        )


def _subject(file_name: str, raw: dict[str, Any]) -> Subject:
    event_type, version = file_name.removesuffix(SUFFIX).split(".v")
    assert raw["name"] == event_type, f"{file_name} describes {raw['name']}"
    crc = fingerprint(to_parsing_canonical_form(raw), FINGERPRINT_ALGORITHM)
    return Subject(event_type, int(version), bytes.fromhex(crc), fastavro.parse_schema(raw), raw)
