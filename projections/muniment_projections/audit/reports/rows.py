"""Rows of the trail by a condition, a few columns of each: what most reports begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muniment_projections.audit.query import matched
from muniment_projections.base import Connection
from muniment_projections.search.predicate import Predicate

PLACE = ("topic", "partition", "offset")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A time from `least_ms` until just before `below_ms`; None leaves an end open."""

    least_ms: int | None = None
    below_ms: int | None = None

    def covers(self, at_ms: int) -> bool:
        """Whether a time lies in it."""
        least, below = self.least_ms, self.below_ms
        return (least is None or at_ms >= least) and (below is None or at_ms < below)

    def predicates(self) -> list[Predicate]:
        """As conditions over `audit_events AS t`."""
        found = []
        if self.least_ms is not None:
            found.append(Predicate("t.at_ms >= ?", (self.least_ms,)))
        if self.below_ms is not None:
            found.append(Predicate("t.at_ms < ?", (self.below_ms,)))
        return found


def select(
    connection: Connection,
    columns: Sequence[str],
    where: Predicate,
    rows_max: int,
    newest_first: bool = False,
) -> list[Row]:
    """Columns of the events that fit, in the order in which they were recorded."""
    direction = "DESC" if newest_first else "ASC"
    order = ", ".join(f't."{name}" {direction}' for name in ("at_ms", *PLACE))
    named = ", ".join(f't."{name}"' for name in columns)
    sql = f"SELECT {named} FROM audit_events AS t WHERE {where.sql} ORDER BY {order} LIMIT ?"
    return connection.execute(sql, [*where.parameters, rows_max]).fetchall()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many events fit, by who did what and how it came out, each the most frequent first."""

    actors: Mapping[str, int]
    actions: Mapping[str, int]
    outcomes: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())


def counts(connection: Connection, where: Predicate) -> Counts:
    """Counts of all events that fit, in one pass."""
    sql = f"""
SELECT t.actor, t.action, t.outcome, count(*) FROM audit_events AS t WHERE {where.sql}
GROUP BY ALL ORDER BY ALL
"""
    return counted(connection.execute(sql, list(where.parameters)).fetchall())


def counted(rows: Iterable[tuple[str, str, str, int]]) -> Counts:
    """Sums of (actor, action, outcome, how many)."""
    found: tuple[Counter[str], ...] = (Counter(), Counter(), Counter())
    for *values, number in rows:
        for counter, value in zip(found, values, strict=True):
            counter[value] += number
    return Counts(*(dict(counter.most_common()) for counter in found))


def in_any(column: str, values: Iterable[str]) -> Predicate:
    """Whether a list column has one of some values."""
    # Most rows have no list at all, which is told at once.
    sql = f"(t.{column} IS NOT NULL AND list_has_any(t.{column}, ?::VARCHAR[]))"
    return Predicate(sql, (list(values),))


def models_called(
    connection: Connection, pattern: str, workspace: str
) -> dict[str, tuple[str, ...]]:
    """Every registered model that ever had a name, or one that a pattern means: its id and all
    names that it ever had, the newest last."""
    name = matched("n.name", pattern)
    sql = f"""
SELECT m.model_id, list(m.name ORDER BY m.from_offset) FROM model_intervals AS m
WHERE m.model_id IN (SELECT n.model_id FROM model_intervals AS n WHERE {name.sql})
  AND m.model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = ?)
GROUP BY m.model_id ORDER BY min(m.from_offset)
"""
    found = connection.execute(sql, [*name.parameters, workspace]).fetchall()
    return {model_id: tuple(names) for model_id, names in found}


def checkpoints(connection: Connection) -> dict[tuple[str, int], int]:
    """Up to where the tables hold each topic-partition: the offset that comes next."""
    rows = connection.execute('SELECT topic, "partition", next_offset FROM checkpoints').fetchall()
    return {(topic, partition): offset for topic, partition, offset in rows}


def recorded_at(connection: Connection, topic: str, partition: int, offset: int) -> int | None:
    """When the event at a place was recorded, in ms since 1970; None: the trail has none there."""
    sql = 'SELECT at_ms FROM audit_events WHERE topic = ? AND "partition" = ? AND "offset" = ?'
    found = connection.execute(sql, [topic, partition, offset]).fetchone()
    return None if found is None else int(found[0])
