"""A filter as data: what every filter string becomes, and all that becomes SQL.

The tree can say more (OR, NOT, groups) than MLflow's clients may write: our own API and the audit
query bar use the whole language.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Integers from `least` on and below `below`; None: without end."""

    least: int | None
    below: int | None


Value = str | int | float | tuple[str, ...] | Span | None
"""A bound value; a tuple for IN and NOT IN; None for IS NULL and IS NOT NULL."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value as it was written. `text` keeps its quotes; `items` are the elements of a list.

    form: string ('…'), name (bare, or in " or `), number, list, null, other (a call, a sum), word
    (in the query bar: bare, with signs in it).
    """

    form: str
    text: str
    items: tuple[Constant, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison as it was written, before an entity has said what its names mean.

    field: e.g. "metrics.`a b`". operator: as written, with single blanks. value: None for IS NULL.
    """

    field: str
    operator: str
    value: Constant | None


@dataclass(frozen=True, slots=True)
class Field:
    """What a name means in one entity: its kind ("metric", "tag", "attribute", …) and its key."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field compared with a value; the operator is in capitals."""

    field: Field
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class And:
    """All terms hold; holds when there are none."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one term holds."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold; a comparison with a missing value does not hold."""

    term: Expression


Expression = Clause | Comparison | And | Or | Not


@dataclass(frozen=True, slots=True)
class Order:
    """One order_by clause, resolved.

    dataset: name and digest that a logged model's metric is narrowed to; "" for any.
    """

    field: Field
    ascending: bool
    dataset: tuple[str, str] = ("", "")
