"""SQL text together with the values it binds. Values of users never become text.

Parameters are positional: a predicate's `?` stand in the order of its `parameters`, so predicates
can be joined as text as long as both are joined in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Bound = str | int | float | bool | list[str] | None


@dataclass(frozen=True, slots=True)
class Predicate:
    """A piece of SQL (a condition, or an expression) and the values of its `?`, in order."""

    sql: str
    parameters: tuple[Bound, ...] = ()


TRUE = Predicate("TRUE")


def _joined(word: str, parts: Iterable[Predicate], empty: str) -> Predicate:
    kept = [part for part in parts if part != TRUE or word != "AND"]
    if not kept:
        return Predicate(empty)
    if len(kept) == 1:
        return kept[0]
    text = f" {word} ".join(f"({part.sql})" for part in kept)
    return Predicate(text, tuple(value for part in kept for value in part.parameters))


def all_of(parts: Iterable[Predicate]) -> Predicate:
    """The conditions AND-ed; TRUE when there are none."""
    return _joined("AND", parts, "TRUE")


def any_of(parts: Iterable[Predicate]) -> Predicate:
    """The conditions OR-ed; FALSE when there are none."""
    return _joined("OR", parts, "FALSE")


def one_of(column: str, values: Iterable[str]) -> Predicate:
    """`column` (SQL of ours) is one of the values; FALSE when there are none."""
    listed = list(dict.fromkeys(values))
    if not listed:
        return Predicate("FALSE")
    marks = ", ".join("?" * len(listed))
    return Predicate(f"{column} IN ({marks})", tuple(listed))
