"""One page of any entity, by one statement: filter, visibility, order, cursor, then the documents.

Rows are sorted as narrow columns; only the page's own documents are read, by row id. The sort
values are materialised first, or each mention of one in the cursor's condition would look it up in
its map again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from muniment_projections.base import Connection
from muniment_projections.search import keyset
from muniment_projections.search.entities.base import Entity
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import TRUE, Predicate, all_of
from muniment_projections.search.sql import Compiled, compile_search

MAX_RESULTS_DEFAULT = 1000

Row = tuple[Any, ...]
"""A row as DuckDB gives it."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for.

    max_results: rows of a page at most; the endpoint has checked its limits. scope: what the
    request narrows to, over alias `t`. context: names the scope in page tokens. visible: the rows
    that the caller may see, over alias `t`.
    """

    filter: str = ""
    order_by: tuple[str, ...] = ()
    max_results: int = MAX_RESULTS_DEFAULT
    page_token: str | None = None
    scope: Predicate = TRUE
    context: tuple[str, ...] = ()
    visible: Predicate | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in order, the entity's extra columns of each, a token unless it is the last."""

    documents: list[bytes]
    extra: list[tuple[object, ...]]
    next_page_token: str | None


def search(connection: Connection, entity: Entity, wanted: Search) -> Page:
    """One page. Raises SearchError for a filter, order or token that is refused."""
    compiled = compile_search(
        entity, wanted.filter, wanted.order_by, wanted.page_token, wanted.context
    )
    query = statement(entity, compiled, wanted)
    rows = _fetched(connection, query)
    kept = rows[: max(wanted.max_results, 0)]
    extras = len(entity.extra)
    token = None
    if len(rows) > len(kept):
        token = _token(compiled, kept, wanted.page_token)
    return Page(
        [row[-1] for row in kept],
        [row[-1 - extras : -1] for row in kept],
        token,
    )


def statement(entity: Entity, compiled: Compiled, wanted: Search) -> Predicate:
    """The page's SQL: columns c0, v0, c1, …, the entity's extra ones, the document."""
    raw = keyset.raw_columns(compiled.keys)
    extra = [f"{sql} AS y{place}" for place, sql in enumerate(entity.extra)]
    where = all_of([wanted.scope, wanted.visible or TRUE, compiled.where])
    extra_names = [f"y{place}" for place in range(len(extra))]
    columns = [name for place in range(len(compiled.keys)) for name in (f"c{place}", f"v{place}")]
    order = keyset.order_sql(compiled.keys)
    text = f"""
WITH raw AS MATERIALIZED (
    SELECT {", ".join(["t.rowid AS place", raw.sql, *extra])} FROM {entity.source} WHERE {where.sql}
), keyed AS (
    SELECT {", ".join(["place", keyset.class_columns(compiled.keys), *extra_names])} FROM raw
), page AS (
    SELECT * FROM keyed WHERE {compiled.cursor.sql} ORDER BY {order} LIMIT ?
)
SELECT {", ".join([*columns, *extra_names, "stored.document"])}
FROM page JOIN {entity.table} AS stored ON stored.rowid = page.place ORDER BY {order}
"""
    limit = max(wanted.max_results, 0) + 1
    return Predicate(text, (*raw.parameters, *where.parameters, *compiled.cursor.parameters, limit))


def _token(compiled: Compiled, kept: Sequence[Row], given: str | None) -> str:
    """The token behind a page; an empty page (max_results 0) gives its own place again."""
    if not kept:
        return given or keyset.encode((), compiled.made_for)
    row = kept[-1]
    cursor = tuple((row[2 * place], row[2 * place + 1]) for place in range(len(compiled.keys)))
    return keyset.encode(cursor, compiled.made_for)


def _fetched(connection: Connection, query: Predicate) -> list[Row]:
    try:
        return connection.execute(query.sql, list(query.parameters)).fetchall()
    except duckdb.InvalidInputException as e:
        if "regexp_matches" not in query.sql:
            raise
        raise SearchError(f"Invalid regular expression in filter string: {e}") from e
