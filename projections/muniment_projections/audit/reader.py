"""Questions to the trail: pages of events, counts by facet, and what came since a place in the log.

Rows are ordered by the time at which the server recorded them, and by topic, partition and offset
where that is the same: so an order is total, the same on every replica, and a page's last row says
where the next begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from muniment_projections.base import Connection
from muniment_projections.search import keyset
from muniment_projections.search.keyset import SortKey
from muniment_projections.search.predicate import TRUE, Predicate, all_of

FACETS = ("action", "actor", "outcome", "resource_kind")
FACET_VALUES_MAX = 50
"""Values of one facet that are told, the most frequent first."""

PLACE = ("at_ms", "topic", "partition", "offset")
"""What rows are ordered by."""

Next = Mapping[tuple[str, int], int]
"""(topic, partition) to the offset that comes next."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question. where: over `audit_events AS t`. asked: what a page token must be made for."""

    where: Predicate
    asked: str = ""
    newest_first: bool = True
    max_results: int = 100
    page_token: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Rows with all columns of the table, and a token unless it is the last page."""

    rows: pa.Table
    next_page_token: str | None


def events(connection: Connection, wanted: Wanted) -> EventPage:
    """One page. Raises PageTokenInvalid."""
    keys = _keys(not wanted.newest_first)
    made_for = keyset.digest(["audit", wanted.asked, wanted.newest_first])
    after = TRUE
    if wanted.page_token:
        after = _after(keyset.decode(wanted.page_token, keys, made_for), wanted.newest_first)
    where = all_of([wanted.where, after])
    direction = "DESC" if wanted.newest_first else "ASC"
    order = ", ".join(f't."{column}" {direction}' for column in PLACE)
    sql = f"SELECT t.* FROM audit_events AS t WHERE {where.sql} ORDER BY {order} LIMIT ?"
    found = _table(connection, Predicate(sql, (*where.parameters, wanted.max_results + 1)))
    rows = found.slice(0, wanted.max_results)
    token = None
    if len(found) > len(rows) and len(rows):
        last = rows.slice(len(rows) - 1).select(PLACE).to_pylist()[0]
        cursor = tuple((keyset.PRESENT, last[column]) for column in PLACE)
        token = keyset.encode(cursor, made_for)
    return EventPage(rows, token)


def _keys(ascending: bool) -> tuple[SortKey, ...]:
    integer = [SortKey(Predicate("at_ms"), "integer", ascending)]
    text = SortKey(Predicate("topic"), "text", ascending)
    return (*integer, text, *integer, *integer)


def _after(cursor: keyset.Cursor, newest_first: bool) -> Predicate:
    if not cursor:
        return TRUE
    at_ms, topic, partition, offset = (value for _, value in cursor)
    sign = "<" if newest_first else ">"
    # The first half is what row groups are skipped by; the second says it exactly.
    return Predicate(
        f"t.at_ms {sign}= ? AND (t.at_ms {sign} ?"
        f' OR (t.topic, t."partition", t."offset") {sign} (?, ?, ?))',
        (at_ms, at_ms, topic, partition, offset),
    )


def facets(connection: Connection, where: Predicate) -> dict[str, list[tuple[str, int]]]:
    """For each facet its values and how many events have each, the most frequent first."""
    sets = ", ".join(f"({name})" for name in FACETS)
    sql = f"""
SELECT {", ".join(FACETS)}, grouping({", ".join(FACETS)}) AS facet, count(*) AS events
FROM audit_events AS t WHERE {where.sql} GROUP BY GROUPING SETS ({sets})
ORDER BY events DESC, {", ".join(FACETS)}
"""
    found: dict[str, list[tuple[str, int]]] = {name: [] for name in FACETS}
    for *values, mask, count in connection.execute(sql, list(where.parameters)).fetchall():
        # The mask has a bit for every column that is not grouped by, the first column's highest.
        place = next(i for i in range(len(FACETS)) if not mask >> (len(FACETS) - 1 - i) & 1)
        value, listed = values[place], found[FACETS[place]]
        if value is not None and len(listed) < FACET_VALUES_MAX:
            listed.append((value, count))
    return found


@dataclass(frozen=True, slots=True)
class Look:
    """What a tail saw. beyond: rows of this database up to which nothing is left to see."""

    rows: pa.Table
    beyond: int


def since(
    connection: Connection, where: Predicate, places: Next, beyond: int, rows_max: int
) -> Look:
    """The oldest events from the given offsets on, all columns.

    What is of a topic-partition that is not named counts from its beginning. A topic-partition's
    own events come in the order of their offsets. beyond: of the last look at the same database,
    so that what it has seen is not read again; 0 for a first look.
    """
    count = connection.execute("SELECT count(*) FROM audit_events").fetchall()[0][0]
    named = " OR ".join('(t.topic = ? AND t."partition" = ? AND t."offset" < ?)' for _ in places)
    bounds: list[Any] = [v for (topic, part), at in places.items() for v in (topic, part, at)]
    unseen = f"NOT ({named})" if named else "TRUE"
    sql = f"""
SELECT t.* FROM audit_events AS t WHERE t.rowid >= ? AND {unseen} AND ({where.sql})
ORDER BY t.rowid LIMIT ?
"""
    query = Predicate(sql, (beyond, *bounds, *where.parameters, rows_max))
    rows = _table(connection, query)
    return Look(rows, count if len(rows) < rows_max else beyond)


def _table(connection: Connection, query: Predicate) -> pa.Table:
    return connection.sql(query.sql, params=list(query.parameters)).to_arrow_table()
