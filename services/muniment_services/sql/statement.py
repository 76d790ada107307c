"""What analysts may state: one SELECT over the published tables, and nothing that does more.

The database's own parser reads the statement; what it found is walked and compared with what is
allowed, so what nobody thought of is refused. This is the first of two walls: behind it the process
is in a database that can open no file but the tables' (`process.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, Final

import duckdb

STATEMENT_CHARACTERS_MAX = 10_000

QUERY_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
SOURCES: Final = frozenset(
    {"BASE_TABLE", "TABLE_FUNCTION", "SUBQUERY", "JOIN", "EXPRESSION_LIST", "EMPTY", "PIVOT"}
)
ORDERS: Final = frozenset({"ORDER_DEFAULT", "ASCENDING", "DESCENDING"})
MODIFIERS: Final = frozenset(
    {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
)
PARTS: Final = QUERY_NODES | SOURCES | ORDERS | MODIFIERS
"""Types of what is no expression."""

TABLE_FUNCTIONS: Final = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
"""Those that make rows of their arguments alone."""

FORBIDDEN_FUNCTIONS: Final = frozenset(
    {
        *("current_query", "current_setting", "currval", "getenv", "getvariable", "nextval"),
        *("pg_sleep", "setval", "sleep_ms", "which_secret", "write_log"),
    }
)
"""Scalar functions that tell of the process, change it or only take time."""


class Refused(Exception):
    """A statement that analysts may not state, or that cannot be read; the text says why."""


def check(connection: duckdb.DuckDBPyConnection, text: str, tables: Collection[str]) -> None:
    """Raises Refused unless `text` is one SELECT over `tables`. connection: any; it reads only."""
    if len(text) > STATEMENT_CHARACTERS_MAX:
        raise Refused(f"A statement has at most {STATEMENT_CHARACTERS_MAX} characters.")
    try:
        found = connection.extract_statements(text)
        if len(found) != 1:
            raise Refused(f"One SELECT at a time, please; these are {len(found)} statements.")
        if found[0].type != duckdb.StatementType.SELECT:
            raise Refused(f"Only SELECT is answered, not {found[0].type.name}.")
        rows = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchall()
    except duckdb.Error as error:
        raise Refused(str(error)) from None
    tree = json.loads(rows[0][0])
    if tree["error"]:
        raise Refused(f"Only SELECT is answered: {tree['error_message']}")
    _walk(tree["statements"], frozenset(tables))


def _walk(part: Any, names: frozenset[str]) -> None:
    """names: of tables and of what WITH has named around this part, in small letters."""
    if isinstance(part, list):
        for item in part:
            _walk(item, names)
    elif isinstance(part, dict):
        names = names | set(_named(part))
        _check_part(part, names)
        for value in part.values():
            _walk(value, names)


def _named(part: dict[str, Any]) -> Iterator[str]:
    for entry in part.get("cte_map", {}).get("map", ()):
        name = entry["key"].lower()
        if not name.isidentifier():
            raise Refused(f"WITH needs a plain name, not '{name}'.")
        yield name
    if part.get("type") == "RECURSIVE_CTE_NODE":
        yield part["cte_name"].lower()


def _check_part(part: dict[str, Any], names: frozenset[str]) -> None:
    kind = part.get("type")
    if "function_name" in part:
        _check_function(part)
    if not isinstance(kind, str) or "class" in part:
        return
    if kind not in PARTS:
        raise Refused(f"Only SELECT is answered, and this has a {kind}.")
    if kind == "BASE_TABLE":
        _check_table(part, names)
    if kind == "TABLE_FUNCTION":
        name = part["function"]["function_name"]
        if name not in TABLE_FUNCTIONS:
            raise Refused(f"There is no table function {name} here; tables are {_list(names)}.")


def _check_table(part: dict[str, Any], names: frozenset[str]) -> None:
    path = part["qualified_name"]["path"]
    if len(path) != 1 or path[0].lower() not in names:
        raise Refused(f"There is no table {'.'.join(path)}; tables are {_list(names)}.")
    if part["at_clause"] is not None:
        raise Refused("Tables are as they are now: there is no AT here.")


def _check_function(part: dict[str, Any]) -> None:
    name = part["function_name"].lower()
    if name in FORBIDDEN_FUNCTIONS:
        raise Refused(f"There is no function {name} here.")


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
