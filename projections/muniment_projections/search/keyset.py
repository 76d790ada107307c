"""Pages by the last row's sort values: no OFFSET, and no row skipped or repeated.

A sort key becomes two columns. Its class says whether there is a value (0), NaN (1) or nothing (2)
and always ascends, so that what is missing comes last in both directions; its value is NULL unless
the class is 0. A page token holds those columns of a page's last row, and the next page is what
sorts strictly after them: rows that arrive in between change neither side of the cursor.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from muniment_projections.search.errors import PageTokenInvalid
from muniment_projections.search.predicate import TRUE, Bound, Predicate, any_of

PRESENT, NAN, MISSING = 0, 1, 2

TOKEN_CHARACTERS_MAX = 100_000
"""Longer tokens are not decoded: a row's sort values are tags of 8,000 characters at most."""

INTEGER_MAX = 2**63 - 1
DOUBLE_MAX = 1.7976931348623157e308

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Halves of characters, which JSON can write and UTF-8 cannot."""

Cursor = tuple[tuple[int, str | int | float | None], ...]
"""(class, value) of each sort key in one row."""


@dataclass(frozen=True, slots=True)
class SortKey:
    """What rows are ordered by.

    expression: SQL over the entity's source. nullable: whether it can be NULL (doubles always can).
    """

    expression: Predicate
    type: Literal["text", "integer", "double"]
    ascending: bool = True
    nullable: bool = False

    @property
    def classed(self) -> bool:
        """Whether rows may lack the value, so that the class takes part in the order."""
        return self.nullable or self.type == "double"


def raw_columns(keys: Sequence[SortKey]) -> Predicate:
    """The keys' expressions as columns x0, x1, …"""
    parts = [f"{key.expression.sql} AS x{place}" for place, key in enumerate(keys)]
    return Predicate(
        ", ".join(parts), tuple(value for key in keys for value in key.expression.parameters)
    )


def class_columns(keys: Sequence[SortKey]) -> str:
    """Columns c0, v0, c1, v1, … computed from x0, x1, …"""
    return ", ".join(_class_and_value(key, place) for place, key in enumerate(keys))


def _class_and_value(key: SortKey, place: int) -> str:
    raw = f"x{place}"
    if key.type == "double":
        return (
            f"CASE WHEN {raw} IS NULL THEN {MISSING} WHEN isnan({raw}) THEN {NAN}"
            f" ELSE {PRESENT} END AS c{place},"
            f" CASE WHEN isnan({raw}) THEN NULL WHEN {raw} > {DOUBLE_MAX!r} THEN {DOUBLE_MAX!r}"
            f" WHEN {raw} < -{DOUBLE_MAX!r} THEN -{DOUBLE_MAX!r} ELSE {raw} END AS v{place}"
        )
    if key.nullable:
        missing = f"CASE WHEN {raw} IS NULL THEN {MISSING} ELSE {PRESENT} END"
        return f"{missing} AS c{place}, {raw} AS v{place}"
    return f"{PRESENT} AS c{place}, {raw} AS v{place}"


def order_sql(keys: Sequence[SortKey]) -> str:
    """What stands after ORDER BY, over the class columns."""
    parts: list[str] = []
    for place, key in enumerate(keys):
        if key.classed:
            parts.append(f"c{place}")
        parts.append(f"v{place} {'ASC' if key.ascending else 'DESC'} NULLS LAST")
    return ", ".join(parts)


def after(keys: Sequence[SortKey], cursor: Cursor) -> Predicate:
    """The condition, over the class columns, that a row sorts strictly after the cursor.

    An empty cursor stands before all rows.
    """
    if not cursor:
        return TRUE
    alternatives: list[Predicate] = []
    same = TRUE
    for place, (key, (found, value)) in enumerate(zip(keys, cursor, strict=True)):
        alternatives += [_also(same, later) for later in _later(key, place, found, value)]
        same = _also(same, _same(key, place, found, value))
    return any_of(alternatives)


def _also(same: Predicate, more: Predicate) -> Predicate:
    if same == TRUE:
        return more
    return Predicate(f"{same.sql} AND {more.sql}", same.parameters + more.parameters)


def _later(key: SortKey, place: int, found: int, value: Bound) -> list[Predicate]:
    later: list[Predicate] = []
    if key.classed and found < MISSING:
        later.append(Predicate(f"c{place} > ?", (found,)))
    if found == PRESENT:
        operator = ">" if key.ascending else "<"
        later.append(Predicate(f"c{place} = {PRESENT} AND v{place} {operator} ?", (value,)))
    return later


def _same(key: SortKey, place: int, found: int, value: Bound) -> Predicate:
    if found != PRESENT:
        return Predicate(f"c{place} = ?", (found,))
    if key.classed:
        return Predicate(f"c{place} = {PRESENT} AND v{place} = ?", (value,))
    return Predicate(f"v{place} = ?", (value,))


def digest(parts: Sequence[object]) -> str:
    """What a token must have been made for (entity, filter, order, scope), shortened."""
    text = json.dumps(parts, sort_keys=True, default=list)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def encode(cursor: Cursor, made_for: str) -> str:
    """A page token: base64 of JSON, opaque to clients."""
    content = {"after": cursor, "for": made_for}
    return base64.b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()


def decode(token: str, keys: Sequence[SortKey], made_for: str) -> Cursor:
    """The cursor in a token.

    Raises PageTokenInvalid: with MLflow's messages when it does not decode, and when it was made
    for another search or does not fit its sort keys.
    """
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise PageTokenInvalid("Invalid page token, could not base64-decode")
    try:
        decoded = base64.b64decode(token)
    except (binascii.Error, ValueError) as e:
        raise PageTokenInvalid("Invalid page token, could not base64-decode") from e
    try:
        parsed = json.loads(decoded)
    except (ValueError, RecursionError) as e:
        raise PageTokenInvalid(f"Invalid page token, decoded value={decoded!r}") from e
    if not isinstance(parsed, dict) or not isinstance(parsed.get("after"), list):
        raise PageTokenInvalid(f"Invalid page token, parsed value={parsed}")
    if parsed.get("for") != made_for:
        raise PageTokenInvalid(
            "Invalid page token: it was made for another filter, order or scope. "
            "Search without a token first."
        )
    cursor = tuple(_entry(entry) for entry in parsed["after"])
    if not cursor:
        return cursor
    if len(cursor) != len(keys) or not all(map(_fits, keys, cursor)):
        raise PageTokenInvalid(f"Invalid page token, parsed value={parsed}")
    return cursor


def _entry(entry: object) -> tuple[int, str | int | float | None]:
    match entry:
        case [int(found), (str() | int() | float() | None) as value]:
            return found, value
    raise PageTokenInvalid(f"Invalid page token, parsed value={entry}")


def _fits(key: SortKey, entry: tuple[int, object]) -> bool:
    found, value = entry
    if found == NAN:
        return key.type == "double" and value is None
    if found == MISSING:
        return key.classed and value is None
    if found != PRESENT or isinstance(value, bool):
        return False
    if key.type == "text":
        return isinstance(value, str) and not _SURROGATE.search(value)
    if key.type == "integer":
        return isinstance(value, int) and abs(value) <= INTEGER_MAX
    return isinstance(value, float) and math.isfinite(value)
