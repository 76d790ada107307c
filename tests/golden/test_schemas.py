"""Golden bytes of every released schema: what was written once must be readable for ever.

`python tests/golden/test_schemas.py` writes the bytes of schemas that have none yet. It never
changes existing ones: a difference there means that a released schema or the codec was changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse as parse_avro

from muniment_schemas.codec import Codec
from muniment_schemas.framing import HEADER_BYTES, MARKER
from muniment_schemas.subjects import Schemas, Subject

EVENTS = Path(__file__).parent / "events"
SCHEMAS = Schemas.load()
SUBJECTS = list(SCHEMAS.by_version.values())


def example(avro: Any, name: str) -> Any:
    """A value of an Avro type that depends on nothing but the type and the field's name."""
    if isinstance(avro, list):
        return example(avro[1], name)
    if isinstance(avro, dict):
        match avro["type"]:
            case "map":
                texts = avro["values"] == "string"
                value = f"{name}-value" if texts else example(avro["values"], name)
                return {f"{name}-key": value}
            case "array":
                return [example(avro["items"], name)]
            case "record":
                return {
                    field["name"]: example(field["type"], field["name"]) for field in avro["fields"]
                }
    return {
        "string": f"{name} ü",
        "long": 1_700_000_000_000 + len(name),
        "int": len(name),
        "double": 0.1 + len(name),
        "bytes": name.encode() + b"\x00\xff",
        "boolean": True,
    }[avro]


def encoded(subject: Subject) -> bytes:
    """The example of a schema, framed, written by fastavro itself rather than by our codec."""
    from io import BytesIO

    import fastavro

    value = example(subject.raw, subject.event_type)
    value["envelope"]["type"] = subject.event_type
    buffer = BytesIO()
    fastavro.schemaless_writer(buffer, subject.parsed, value)
    return MARKER + subject.fingerprint + buffer.getvalue()


def golden(subject: Subject) -> Path:
    """Where a schema's bytes are kept, as hex."""
    return EVENTS / f"{subject.event_type}.v{subject.version}.hex"


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.file_name)
def test_golden_bytes_decode_and_encode_to_the_same(subject: Subject) -> None:
    kept = bytes.fromhex(golden(subject).read_text())
    codec = Codec(SCHEMAS)
    event = codec.decode(kept)
    assert event.envelope.type == subject.event_type
    assert event.envelope.event_id == "event_id ü"
    if subject is SCHEMAS.newest[subject.event_type]:
        assert codec.encode(event) == kept


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.file_name)
def test_released_schemas_do_not_change(subject: Subject) -> None:
    assert bytes.fromhex(golden(subject).read_text())[:HEADER_BYTES] == MARKER + subject.fingerprint
    assert encoded(subject).hex() == golden(subject).read_text().strip()


def test_every_golden_file_has_its_schema() -> None:
    assert {path.name for path in EVENTS.iterdir()} == {golden(s).name for s in SUBJECTS}


@pytest.mark.parametrize("event_type", sorted(SCHEMAS.newest))
def test_all_versions_are_compatible_with_each_other(event_type: str) -> None:
    versions = [parse_avro(s.schema_json) for s in SUBJECTS if s.event_type == event_type]
    for reader in versions:
        for writer in versions:
            checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
            found = checker.get_compatibility(reader, writer)
            assert found.compatibility is SchemaCompatibilityType.compatible, found.messages


if __name__ == "__main__":
    EVENTS.mkdir(exist_ok=True)
    for released in SUBJECTS:
        if not golden(released).exists():
            golden(released).write_text(encoded(released).hex() + "\n")
