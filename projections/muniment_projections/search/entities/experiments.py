"""Experiments: attributes and tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from muniment_projections.search.entities.base import (
    EQUALITY,
    EXISTENCE,
    NUMERIC,
    PATTERNS,
    Attribute,
    Entity,
)
from muniment_projections.search.errors import SearchError
from muniment_projections.search.keyset import SortKey
from muniment_projections.search.tree import Clause, Comparison, Field, Order, Value

PREFIXES = ("attribute", "tag", "tags")
"""The prefixes of names in experiments and in the registry ("attributes" is refused)."""


class ExperimentEntity(Entity):
    """Stricter names than runs have, comparators in capitals only, ids compared as integers."""

    def refused(self, text: str, pieces: Sequence[str]) -> str:
        """Without quotes."""
        return f"Invalid clause(s) in filter string: {', '.join(pieces)}"

    def read(self, clause: Clause) -> Comparison:
        """Comparators stay as they were written: `like` is refused."""
        return replace(super().read(clause), operator=clause.operator)

    def kind(self, prefix: str) -> str:
        """Only the three prefixes, unquoted."""
        if prefix not in PREFIXES:
            raise SearchError(f"Invalid entity type '{prefix}'. Valid entity types are {PREFIXES}")
        return self.identifiers[prefix]

    def check_existence(self, found: Field) -> None:
        """Tags only."""
        if found.kind != "tag":
            raise SearchError(
                f"IS NULL / IS NOT NULL is only supported for tags, not for attribute '{found.key}'"
            )

    def check(self, comparison: Comparison) -> Comparison:
        """Ids take equality and lists and become canonical; numbers must be integers."""
        key, operator = comparison.field.key, comparison.operator
        if comparison.field.kind == "tag":
            if operator not in PATTERNS | EXISTENCE:
                raise SearchError(f"Invalid comparator for tag: {operator}")
        elif key == "experiment_id":
            if operator not in EQUALITY | {"IN", "NOT IN"}:
                raise SearchError(f"Invalid comparator for experiment_id: {operator}")
            comparison = replace(comparison, value=_canonical(comparison.value))
        elif isinstance(comparison.value, float) and operator in NUMERIC:
            raise SearchError(
                f"Invalid value for numeric attribute '{key}': {str(comparison.value)!r}"
            )
        return super().check(comparison)

    def sort_keys(self, order_by: Sequence[str]) -> tuple[SortKey, ...]:
        """A name given twice sorts once: the second adds nothing."""
        firsts = {self.order(item).field: item for item in reversed(order_by)}
        return super().sort_keys(tuple(reversed(firsts.values())))

    def order(self, item: str) -> Order:
        """Attributes only."""
        found = super().order(item)
        if found.field.kind != "attribute":
            raise SearchError(f"Invalid order_by entity: {found.field.kind}")
        return found


def _canonical(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple(_experiment_id(item) for item in value)
    return _experiment_id(str(value))


def _experiment_id(text: str) -> str:
    try:
        return str(int(text))
    except ValueError as e:
        raise SearchError(
            f"Invalid experiment ID '{text}'. Experiment ID must be a valid integer."
        ) from e


_ORDERABLE: Final = {
    "name": Attribute("t.name"),
    "experiment_id": Attribute("CAST(t.experiment_id AS BIGINT)", "integer"),
    "creation_time": Attribute("t.created_at_ms", "integer"),
    "last_update_time": Attribute("t.updated_at_ms", "integer", nullable=True),
}

EXPERIMENTS = ExperimentEntity(
    name="experiments",
    table="experiments",
    source="experiments AS t",
    identifiers={"attribute": "attribute", "tag": "tag", "tags": "tag"},
    attributes={**_ORDERABLE, "experiment_id": Attribute("t.experiment_id")},
    orderable=_ORDERABLE,
    maps={"tag": "t.tags"},
    lists=frozenset({"experiment_id"}),
    order_default=("creation_time DESC", "experiment_id ASC"),
    tie_breakers=(("experiment_id", False),),
)
