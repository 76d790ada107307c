"""What was done to a model version."""

from __future__ import annotations

from dataclasses import dataclass

from muniment_projections.activities import tables
from muniment_projections.base import Connection


@dataclass(frozen=True, slots=True)
class RecordedActivity:
    """One activity. Targets: a stage, or `@` and an alias."""

    model_id: str
    id: str
    topic: str
    partition: int
    offset: int
    at_ms: int
    updated_at_ms: int
    kind: str
    actor: str
    from_target: str | None
    to_target: str | None
    comment: str | None
    system_comment: str | None


def of_version(connection: Connection, model_id: str, version: int) -> list[RecordedActivity]:
    """All activities of a version, the oldest first."""
    rows = connection.execute(tables.OF_VERSION, [model_id, version]).fetchall()
    return [RecordedActivity(*row) for row in rows]


def of_name(
    connection: Connection, name: str, version: int, workspace: str
) -> list[RecordedActivity]:
    """The same, of every model of a workspace that ever had the name."""
    asked = {"name": name, "version": version, "workspace": workspace}
    rows = connection.execute(tables.OF_NAME, asked).fetchall()
    return [RecordedActivity(*row) for row in rows]
