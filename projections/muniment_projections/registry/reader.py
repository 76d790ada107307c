"""What became of a version: filters over the intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from muniment_projections.base import Connection
from muniment_schemas.envelope import WORKSPACE_DEFAULT


@dataclass(frozen=True, slots=True)
class Turn:
    """The event that began or ended an interval. actor: a principal id."""

    topic: str
    partition: int
    offset: int
    event_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Something held from valid_from_ms until just before valid_to_ms (None: it still does).

    subject: what held, e.g. the stage. name: the model's when it began. `to` is the ending event.
    """

    model_id: str
    name: str
    subject: str
    valid_from_ms: int
    valid_to_ms: int | None
    began: Turn
    ended: Turn | None


@dataclass(frozen=True, slots=True)
class VersionHistory:
    """When a version existed, and its stages and aliases."""

    existed: list[Interval]
    stages: list[Interval]
    aliases: list[Interval]


@dataclass(frozen=True, slots=True)
class LastKnown:
    """What a model is, or was last. name: its last one."""

    name: str
    workspace: str
    is_prompt: bool


_LAST_KNOWN = """
SELECT model_id, arg_max(name, from_offset), any_value(workspace), any_value(is_prompt)
FROM model_intervals JOIN model_workspaces USING (model_id)
WHERE model_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY model_id
"""

_ENDS = """
model_id, name, {subject}, valid_from_ms, valid_to_ms, from_topic, from_partition, from_offset,
from_event_id, from_actor, to_offset, to_event_id, to_actor
"""

_OF_NAME = """
version = $version AND model_id IN (SELECT model_id FROM model_intervals WHERE name = $name)
AND model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = $workspace)
ORDER BY from_offset, {subject}
"""


def version_history(
    connection: Connection, name: str, version: int, workspace: str = WORKSPACE_DEFAULT
) -> VersionHistory:
    """All intervals of a version, of every model that ever had the name; oldest first."""
    with _snapshot(connection):
        return VersionHistory(
            existed=_history(connection, "version_intervals", "version", name, version, workspace),
            stages=stage_history(connection, name, version, workspace),
            aliases=_history(connection, "alias_intervals", "alias", name, version, workspace),
        )


def stage_history(
    connection: Connection, name: str, version: int, workspace: str = WORKSPACE_DEFAULT
) -> list[Interval]:
    """The stages that a version has had, oldest first, of every model that ever had the name."""
    return _history(connection, "stage_intervals", "stage", name, version, workspace)


def last_known(connection: Connection, model_ids: Iterable[str]) -> dict[str, LastKnown]:
    """What models are, or were last, by id; ids that are none are left out."""
    found = connection.execute(_LAST_KNOWN, [list(model_ids)]).fetchall()
    return {model_id: LastKnown(*row) for model_id, *row in found}


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    # Statements that belong together must not see a batch arrive between them.
    connection.begin()
    try:
        yield
    finally:
        connection.rollback()


def _history(
    connection: Connection, table: str, subject: str, name: str, version: int, workspace: str
) -> list[Interval]:
    sql = (
        f"SELECT {_ENDS.format(subject=subject)} FROM {table} "
        f"WHERE {_OF_NAME.format(subject=subject)}"
    )
    rows = connection.execute(
        sql, {"name": name, "version": version, "workspace": workspace}
    ).fetchall()
    return [interval_of(row) for row in rows]


def interval_of(row: Sequence[Any]) -> Interval:
    """An interval of its columns, in the order of the table's, the subject as one."""
    model_id, name, subject, from_ms, to_ms, topic, partition, *turns = row
    from_offset, from_event, from_actor, to_offset, to_event, to_actor = turns
    return Interval(
        model_id=model_id,
        name=name,
        subject=str(subject),
        valid_from_ms=from_ms,
        valid_to_ms=to_ms,
        began=Turn(topic, partition, from_offset, from_event, from_actor),
        ended=None if to_ms is None else Turn(topic, partition, to_offset, to_event, to_actor),
    )
