"""What the stand-alone verifier leaves out: the events of a pack, decoded with the pack's schemas.

Done after the proofs hold. It shows that schemas are the ones that events name, that events say of
themselves what their leaves say, and that the report's rows have the events' own actors.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import (
    SchemaParseException,
    UnknownType,
    fingerprint,
    to_parsing_canonical_form,
)

from muniment_schemas.framing import CONFLUENT_HEADER_BYTES, HEADER_BYTES, MARKER, schema_id
from muniment_schemas.subjects import FINGERPRINT_ALGORITHM
from muniment_services.proof.verifier import Refused, require

Place = tuple[str, int, int]


def verify_events(pack: Path) -> list[str]:
    """Decode all events of a verified pack whose values are in it. Returns lines for people.

    What cannot be decoded is told, not refused: such records are in quarantine, or of a newer
    release. Raises Refused for what contradicts itself, and any of `verifier.FAULTS` for what is no
    pack.
    """
    schemas = _schemas(pack / "schemas")
    actors: dict[Place, str] = {}
    unread = 0
    for at, event in _events(pack / "events"):
        found = _decoded(b64decode(event["value"]), schemas)
        if found is None:
            unread += 1
            continue
        envelope = found["envelope"]
        headers = {name: b64decode(text).decode() for name, text in event["headers"]}
        said = (envelope["event_id"], envelope["type"])
        holds = said == (headers["ce_id"], headers["ce_type"])
        require(holds, f"{_shown(at)}: the event says that it is {said}")
        actors[at] = envelope["actor"]["principal_id"]
    report = json.loads((pack / "report.json").read_text("utf-8"))
    for row in report["rows"]:
        if {"topic", "partition", "offset", "actor"} <= row.keys():
            at = (row["topic"], row["partition"], row["offset"])
            same = actors.get(at, row["actor"]) == row["actor"]
            require(same, f"{_shown(at)}: the report names another actor than the event")
    told = [f"{len(actors)} events are what their schemas and the report say"]
    if unread:
        told.append(f"{unread} events cannot be decoded: quarantined, or of a newer release")
    return told


def _decoded(value: bytes, schemas: Mapping[bytes, Any]) -> Any:
    size = HEADER_BYTES if schema_id(value) is None else CONFLUENT_HEADER_BYTES
    schema, buffer = schemas.get(value[:size]), BytesIO(value[size:])
    if schema is None:
        return None
    try:
        found: Any = fastavro.schemaless_reader(buffer, schema, None)
    except (EOFError, ValueError, IndexError, MemoryError):
        return None
    return None if buffer.read(1) else found


def _shown(at: Place) -> str:
    return "/".join(map(str, at))


def _schemas(folder: Path) -> Mapping[bytes, Any]:
    """Parsed schemas by the bytes that values begin with, which name them."""
    parsed: dict[bytes, Any] = {}
    for head, name in json.loads((folder / "index.json").read_text("utf-8")).items():
        raw = json.loads((folder / name).read_text("utf-8"))
        named = bytes.fromhex(head)
        crc = fingerprint(to_parsing_canonical_form(raw), FINGERPRINT_ALGORITHM)
        ours = named[:2] != MARKER or named[2:] == bytes.fromhex(crc)
        require(ours, f"{name} is not the schema that events name")
        try:
            parsed[named] = fastavro.parse_schema(raw)
        except (SchemaParseException, UnknownType) as error:
            raise Refused(f"{name} is no schema: {error!r}") from None
    return parsed


def _events(folder: Path) -> Iterator[tuple[Place, Any]]:
    for path in sorted(folder.iterdir()):
        topic, _, partition = path.stem.rpartition("-")
        with path.open(encoding="utf-8") as lines:
            for event in map(json.loads, lines):
                if event["value"] is not None:
                    yield (topic, int(partition), event["offset"]), event
