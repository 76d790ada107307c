"""A search as SQL: the only place where trees become text. All values are bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from muniment_projections.search import keyset
from muniment_projections.search.entities.base import Entity
from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import parse_filter, parse_query
from muniment_projections.search.keyset import SortKey
from muniment_projections.search.predicate import TRUE, Predicate, all_of, any_of
from muniment_projections.search.tree import And, Clause, Comparison, Expression, Not, Or


@dataclass(frozen=True, slots=True)
class Compiled:
    """A search, ready for its statement.

    where: the filter over the entity's source. keys: what it sorts by. cursor: that a row comes
    after the page token's, over the key columns. made_for: the digest that the next token carries.
    """

    where: Predicate
    keys: tuple[SortKey, ...]
    cursor: Predicate
    made_for: str


ORDER_BY_MAX = 100
"""Sort keys of one search; a hundred are slow, more of them serve nobody."""


def compile_search(
    entity: Entity,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    page_token: str | None = None,
    context: Sequence[str] = (),
) -> Compiled:
    """An MLflow client's filter, order and page token as SQL.

    context: what else a token must have been made for (experiment ids, view). Raises SearchError.
    """
    if len(order_by) > ORDER_BY_MAX:
        raise SearchError(f"A search has at most {ORDER_BY_MAX} sort keys, not {len(order_by)}.")
    where = compile_filter(entity, filter_text)
    keys = entity.sort_keys(order_by)
    made_for = keyset.digest([entity.name, filter_text, list(order_by), list(context)])
    cursor = TRUE
    if page_token:
        cursor = keyset.after(keys, keyset.decode(page_token, keys, made_for))
    return Compiled(where, keys, cursor, made_for)


def compile_filter(entity: Entity, text: str) -> Predicate:
    """A filter as MLflow reads it: comparisons that must all hold. Raises SearchError."""
    read = [entity.read(clause) for clause in parse_filter(text, entity.refused)]
    comparisons, added = entity.narrowing([entity.check(comparison) for comparison in read])
    return all_of([*(entity.condition(c) for c in comparisons), added])


def compile_query(entity: Entity, text: str) -> Predicate:
    """A filter in the whole language (AND, OR, NOT, parentheses). Raises SearchError."""
    return expression(entity, parse_query(text))


class Conditions(Protocol):
    """What comparisons mean: an `Entity`, or the fields of the trail."""

    def read(self, clause: Clause) -> Comparison:
        """What a comparison names. Raises SearchError."""

    def check(self, comparison: Comparison) -> Comparison:
        """The comparison, if it can be made. Raises SearchError."""

    def condition(self, comparison: Comparison) -> Predicate:
        """The comparison as SQL."""


def expression(entity: Conditions, tree: Expression) -> Predicate:
    """Any tree as a condition; a comparison with a missing value counts as false under NOT."""
    match tree:
        case Clause():
            return entity.condition(entity.check(entity.read(tree)))
        case Comparison():
            return entity.condition(tree)
        case And(terms):
            return all_of([expression(entity, term) for term in terms])
        case Or(terms):
            return any_of([expression(entity, term) for term in terms])
        case Not(term):
            inner = expression(entity, term)
            return Predicate(f"NOT coalesce({inner.sql}, FALSE)", inner.parameters)
