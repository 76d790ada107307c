"""The registry at a moment, and between two: filters over the validity intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muniment_projections.base import Connection
from muniment_projections.registry.reader import Interval, interval_of
from muniment_projections.search.predicate import TRUE, Predicate, all_of, one_of
from muniment_schemas.envelope import WORKSPACE_DEFAULT

STAGE = "stage"
ALIAS = "alias"
MODEL = "model"
VERSION = "version"

SAME_NAME_MAX = 1000
"""Models that may have had one name within one millisecond."""

_STAGES_AT = """
SELECT version, stage FROM stage_intervals AS i WHERE i.model_id = ? AND {at} ORDER BY version
"""

_ALIASES_AT = """
SELECT alias, version FROM alias_intervals AS i WHERE i.model_id = ? AND {at} ORDER BY alias
"""

_TABLES: Mapping[str, tuple[str, str, str]] = {
    MODEL: ("model_intervals", "name", "NULL"),
    VERSION: ("version_intervals", "version", "version"),
    STAGE: ("stage_intervals", "stage", "version"),
    ALIAS: ("alias_intervals", "alias", "version"),
}
"""Kind of fact to its table, the column that tells it, and the version that it is about."""

_ENDS = """
i.model_id, i.name, {subject}, i.valid_from_ms, i.valid_to_ms, i.from_topic, i.from_partition,
i.from_offset, i.from_event_id, i.from_actor, i.to_offset, i.to_event_id, i.to_actor
"""


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
class When:
    """A moment: a time in ms since 1970, or behind the event at an offset of the catalog."""

    at_ms: int
    offset: int | None = None

    def holds(self) -> Predicate:
        """Which rows of an interval table `i` held then."""
        if self.offset is not None:
            begins, ends, value = "i.from_offset", "i.to_offset", self.offset
        else:
            begins, ends, value = "i.valid_from_ms", "i.valid_to_ms", self.at_ms
        return Predicate(f"({begins} <= ? AND ({ends} IS NULL OR {ends} > ?))", (value, value))


@dataclass(frozen=True, slots=True)
class Standing:
    """Something that held of a model. version: None for its name. interval.subject: the name, the
    number, the stage or the alias."""

    version: int | None
    interval: Interval


@dataclass(frozen=True, slots=True)
class Asked:
    """Which facts. models: their ids; None: of all. subject: the name, stage or alias. workspace:
    of the models; None: of any."""

    kind: str
    models: Sequence[str] | None = None
    subject: str | None = None
    workspace: str | None = None

    def predicate(self) -> Predicate:
        """As a condition over an interval table `i`."""
        _, column, _ = _TABLES[self.kind]
        parts = []
        if self.models is not None:
            parts.append(one_of("i.model_id", self.models))
        if self.subject is not None:
            parts.append(Predicate(f"i.{column} = ?", (self.subject,)))
        if self.workspace is not None:
            inside = "i.model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = ?)"
            parts.append(Predicate(inside, (self.workspace,)))
        return all_of(parts) if parts else TRUE


def held(connection: Connection, asked: Asked, when: When, rows_max: int) -> list[Standing]:
    """What held at a moment, the oldest first."""
    return _standings(connection, asked.kind, all_of([asked.predicate(), when.holds()]), rows_max)


def ever(connection: Connection, asked: Asked, rows_max: int) -> list[Standing]:
    """What ever held, the oldest first."""
    return _standings(connection, asked.kind, asked.predicate(), rows_max)


def turned(
    connection: Connection, asked: Asked, one: When, other: When, rows_max: int
) -> tuple[list[Standing], list[Standing]]:
    """What held at the first moment and not at the second, and the other way round."""
    first, second = one.holds(), other.holds()
    lost = Predicate(f"{first.sql} AND NOT {second.sql}", first.parameters + second.parameters)
    won = Predicate(f"{second.sql} AND NOT {first.sql}", second.parameters + first.parameters)
    return (
        _standings(connection, asked.kind, all_of([asked.predicate(), lost]), rows_max),
        _standings(connection, asked.kind, all_of([asked.predicate(), won]), rows_max),
    )


def model_at(
    connection: Connection, name: str, when: When, workspace: str = WORKSPACE_DEFAULT
) -> ModelThen | None:
    """The model that had a name at a moment, as it was then; None when there was none.

    Several statements: in a transaction of the caller's, so that no batch arrives between them.
    """
    asked = Asked(MODEL, subject=name, workspace=workspace)
    named = held(connection, asked, when, SAME_NAME_MAX)
    return None if not named else state_at(connection, named[-1].interval.model_id, name, when)


def state_at(connection: Connection, model_id: str, name: str, when: When) -> ModelThen:
    """A model as it was at a moment, which had this name then."""
    at = when.holds()
    of_model = [model_id, *at.parameters]
    aliases: dict[str, int] = dict(
        connection.execute(_ALIASES_AT.format(at=at.sql), of_model).fetchall()
    )
    versions = tuple(
        VersionThen(version, stage, tuple(a for a, target in aliases.items() if target == version))
        for version, stage in connection.execute(_STAGES_AT.format(at=at.sql), of_model).fetchall()
    )
    return ModelThen(model_id, name, versions, aliases)


def models_at(
    connection: Connection, when: When, workspace: str, after: str, rows_max: int
) -> list[tuple[str, str]]:
    """(id, name) of the models that there were in a workspace, by name, from behind a name on."""
    at = when.holds()
    sql = f"""
SELECT i.model_id, i.name FROM model_intervals AS i
WHERE {at.sql} AND i.name > ?
  AND i.model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = ?)
ORDER BY i.name LIMIT ?
"""
    return connection.execute(sql, [*at.parameters, after, workspace, rows_max]).fetchall()


def _standings(
    connection: Connection, kind: str, where: Predicate, rows_max: int
) -> list[Standing]:
    table, subject, version = _TABLES[kind]
    about = version if version == "NULL" else f"i.{version}"
    sql = f"""
SELECT {about}, {_ENDS.format(subject=f"i.{subject}")} FROM {table} AS i
WHERE {where.sql} ORDER BY i.from_offset, 1 LIMIT ?
"""
    found = connection.execute(sql, [*where.parameters, rows_max]).fetchall()
    return [Standing(number, interval_of(row)) for number, *row in found]
