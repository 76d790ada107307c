"""Event classes and schema files say the same, and every field is explained."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muniment_schemas import catalogue
from muniment_schemas.envelope import Event
from muniment_schemas.events import EVENT_TYPES
from muniment_schemas.subjects import Schemas
from muniment_schemas.upcasters import UPCASTERS

SCHEMAS = Schemas.load()


def documented(avro: Any, path: str) -> list[str]:
    """Paths of records and fields without a doc."""
    if isinstance(avro, list):
        return [x for branch in avro for x in documented(branch, path)]
    if not isinstance(avro, dict):
        return []
    missing = []
    if avro["type"] == "record":
        missing += [] if avro.get("doc") else [path]
        for field in avro["fields"]:
            where = f"{path}.{field['name']}"
            missing += [] if field.get("doc") else [where]
            missing += documented(field["type"], where)
    if avro["type"] == "array":
        missing += documented(avro["items"], path)
    return missing


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda k: k.__name__)
def test_class_has_the_fields_of_its_newest_schema(kind: type[Event]) -> None:
    raw = SCHEMAS.newest[kind.__name__].raw
    assert [f.name for f in msgspec.structs.fields(kind)] == [f["name"] for f in raw["fields"]]
    assert raw["muniment"] == {"topic": kind.TOPIC, "aggregate": kind.AGGREGATE}


@pytest.mark.parametrize("subject", SCHEMAS.by_version.values(), ids=lambda s: s.file_name)
def test_every_record_and_field_is_documented(subject: Any) -> None:
    assert documented(subject.raw, subject.event_type) == []


def test_every_schema_has_a_class_and_every_class_a_schema() -> None:
    assert {kind.__name__ for kind in EVENT_TYPES} == set(SCHEMAS.newest)


def test_versions_of_a_type_have_no_holes() -> None:
    for event_type, newest in SCHEMAS.newest.items():
        versions = [v for (name, v) in SCHEMAS.by_version if name == event_type]
        assert sorted(versions) == list(range(1, newest.version + 1))


def test_upcasters_lead_from_released_versions() -> None:
    assert all(key in SCHEMAS.by_version for key in UPCASTERS)


def test_catalogue_in_the_readme_is_current() -> None:
    current = catalogue.README.read_text("utf-8")
    assert catalogue.readme(current, SCHEMAS) == current
