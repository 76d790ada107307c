"""The artifacts table: what is there, whatever the batches and the order of partitions."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pytest

from harness.world import TestWorld
from muniment_projections.artifacts.apply import ArtifactsProjection
from muniment_projections.artifacts.reader import (
    RecordedArtifact,
    find_artifact,
    recorded_artifacts,
)
from muniment_projections.base import Folded
from muniment_schemas.envelope import Event
from muniment_services.domain.artifact_changes import RecordDeletion, RecordUpload

ONE = "1" * 32
TWO = "2" * 32


def put(path: str, size: int = 1) -> RecordUpload:
    return RecordUpload(path=path, size_bytes=size, sha256=bytes([size]) * 32)


def gone(path: str, owner: str) -> RecordDeletion:
    return RecordDeletion(owner=owner, path=path, files=1)


STORY = (
    put(f"0/{ONE}/artifacts/a"),
    put(f"0/{ONE}/artifacts/b/c", 2),
    put(f"0/{TWO}/artifacts/a", 3),
    put(f"0/{ONE}/artifacts/a", 4),
    gone(f"0/{ONE}/artifacts/b", ONE),
    put(f"0/{ONE}/artifacts/bb", 5),
    gone(f"0/{TWO}", TWO),
    put(f"0/{TWO}/artifacts/z", 6),
)
LEFT = {f"0/{ONE}/artifacts/a": 4, f"0/{ONE}/artifacts/bb": 5, f"0/{TWO}/artifacts/z": 6}


def folded(event: Event, void: str | None = None) -> Folded:
    return Folded("runs", 0, 0, event, void, None)


def events(commands: Sequence[RecordUpload | RecordDeletion]) -> list[Event]:
    world = TestWorld()
    return [event for command in commands if (event := world.decide(command)) is not None]


def applied(batches: Sequence[Sequence[Event]]) -> dict[str, int]:
    connection = duckdb.connect()
    projection = ArtifactsProjection()
    projection.create(connection)
    for batch in batches:
        projection.apply(connection, [folded(event) for event in batch])
    return {path: row.size_bytes for path, row in recorded_artifacts(connection)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_any_batching_leads_to_the_same_rows(size: int) -> None:
    made = events(STORY)
    assert applied([made[i : i + size] for i in range(0, len(made), size)]) == LEFT


def test_the_order_of_partitions_makes_no_difference() -> None:
    made = events(STORY)
    first = [event for event in made if getattr(event, "owner", "") == TWO]
    rest = [event for event in made if getattr(event, "owner", "") == ONE]
    assert applied([first, rest]) == applied([rest, first]) == LEFT


def test_one_file_is_found_with_its_digest_and_void_events_change_nothing() -> None:
    connection = duckdb.connect()
    projection = ArtifactsProjection()
    projection.create(connection)
    made = events([put("0/x", 3), put("0/x", 4)])
    projection.apply(connection, [folded(made[0]), folded(made[1], void="late")])
    assert find_artifact(connection, "0/x") == RecordedArtifact(3, b"\x03" * 32)
    assert find_artifact(connection, "0/y") is None
