"""The registry as it was at a time, and what became of a version: filters over the intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from muniment_projections.base import Connection
from muniment_schemas.envelope import WORKSPACE_DEFAULT


@dataclass(frozen=True, slots=True)
class VersionThen:
    """A version at a point in time; aliases sorted."""

    version: int
    stage: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelThen:
    """A registered model at a point in time: its versions in order, and where aliases pointed."""

    model_id: str
    name: str
    versions: tuple[VersionThen, ...]
    aliases: Mapping[str, int]


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


_AT = "valid_from_ms <= $at_ms AND (valid_to_ms IS NULL OR valid_to_ms > $at_ms)"

_IN_WORKSPACE = "model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = $workspace)"

_MODEL_AT = f"""
SELECT model_id FROM model_intervals WHERE name = $name AND {_IN_WORKSPACE} AND {_AT}
ORDER BY from_offset DESC LIMIT 1
"""

_STAGES_AT = f"""
SELECT version, stage FROM stage_intervals WHERE model_id = $model_id AND {_AT} ORDER BY version
"""

_ALIASES_AT = f"""
SELECT alias, version FROM alias_intervals WHERE model_id = $model_id AND {_AT} ORDER BY alias
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


def registry_as_of(
    connection: Connection, name: str, at_ms: int, workspace: str = WORKSPACE_DEFAULT
) -> ModelThen | None:
    """The model that had a name at a time, as it was then; None when there was none.

    at_ms: milliseconds since 1970, by the servers' clocks.
    """
    with _snapshot(connection):
        return _as_of(connection, name, at_ms, workspace)


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


@contextmanager
def _snapshot(connection: Connection) -> Iterator[None]:
    # Statements that belong together must not see a batch arrive between them.
    connection.begin()
    try:
        yield
    finally:
        connection.rollback()


def _as_of(connection: Connection, name: str, at_ms: int, workspace: str) -> ModelThen | None:
    found = connection.execute(
        _MODEL_AT, {"name": name, "at_ms": at_ms, "workspace": workspace}
    ).fetchone()
    if found is None:
        return None
    then = {"model_id": found[0], "at_ms": at_ms}
    aliases: dict[str, int] = dict(connection.execute(_ALIASES_AT, then).fetchall())
    versions = tuple(
        VersionThen(version, stage, tuple(a for a, target in aliases.items() if target == version))
        for version, stage in connection.execute(_STAGES_AT, then).fetchall()
    )
    return ModelThen(found[0], name, versions, aliases)


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
    return [_interval(row) for row in rows]


def _interval(row: Sequence[Any]) -> Interval:
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
