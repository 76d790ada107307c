"""What all searchable entities have in common: MLflow's rules for names, values and comparators.

An entity is a table of names and columns with the few methods in which MLflow's endpoints differ;
the methods below are the rules of runs, on which upstream's other endpoints are built.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import parse_order
from muniment_projections.search.keyset import DOUBLE_MAX, SortKey
from muniment_projections.search.predicate import TRUE, Predicate
from muniment_projections.search.refusals import LIST_ILL_FORMED
from muniment_projections.search.tree import Clause, Comparison, Constant, Field, Order, Span, Value

Names = frozenset[str]

EQUALITY: Names = frozenset({"=", "!="})
NUMERIC: Names = EQUALITY | {">", ">=", "<", "<="}
PATTERNS: Names = EQUALITY | {"LIKE", "ILIKE"}
PATTERNS_AND_LISTS: Names = PATTERNS | {"IN", "NOT IN"}
EXISTENCE: Names = frozenset({"IS NULL", "IS NOT NULL"})

LIST_EMPTY = (
    "While parsing a list in the query,"
    " expected a non-empty list of string values, but got empty list"
)
_INTEGER = re.compile(r"-?\d{1,18}")


def shown(names: Collection[str]) -> str:
    """Names as Python prints a set, but always in the same order."""
    return "{" + ", ".join(repr(name) for name in sorted(names)) + "}"


def unquoted(text: str) -> str:
    """A key without one pair of quotes and then one pair of backticks."""
    for quote in ("'", '"'):
        if _is_quoted(text, quote):
            text = text[1:-1]
            break
    return text[1:-1] if _is_quoted(text, "`") else text


def _is_quoted(text: str, quote: str) -> bool:
    return len(text) >= 2 and text.startswith(quote) and text.endswith(quote)


def number(text: str) -> int | float:
    """A number as it was written; integers that 64 bits cannot hold as doubles."""
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def string(constant: Constant) -> str:
    """A quoted string's content, as it stands between the quotes.

    Raises SearchError when the constant has no quotes of strings.
    """
    if _is_quoted(constant.text, "'") or _is_quoted(constant.text, '"'):
        return constant.text[1:-1]
    raise SearchError(
        "Parameter value is either not quoted or unidentified quote types used for string value "
        f"{constant.text}. Use either single or double quotes."
    )


def strings(constant: Constant) -> tuple[str, ...]:
    """A list's elements; escapes are those of Python's literals, as upstream reads them.

    Raises SearchError for an empty list and for elements that are no strings.
    """
    if not constant.items:
        raise SearchError(LIST_EMPTY)
    try:
        values = tuple(ast.literal_eval(item.text) for item in constant.items)
    except (SyntaxError, ValueError) as e:
        raise SearchError(LIST_ILL_FORMED) from e
    if not all(isinstance(value, str) for value in values):
        raise SearchError(
            "While parsing a list in the query, expected string value, punctuation, "
            f"or whitespace, but got different type in list: {values}"
        )
    return values


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column that filters and orders can name.

    sql: over the alias `t`. nullable: NULL means that the attribute is missing.
    """

    sql: str
    type: Literal["text", "integer"] = "text"
    nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One searchable thing.

    table: holds `document`; source: what stands after FROM, the table as `t`. identifiers: the
    prefixes of names, to kinds. attributes, orderable: keys to columns. maps: kind to the MAP
    column that holds its keys. lists: attributes that take IN, None for all. order_default: when no
    order is given. tie_breakers: (attribute, ascending), appended unless named. extra: SQL
    expressions that a page returns beside each document.
    """

    name: str
    table: str
    source: str
    identifiers: Mapping[str, str]
    attributes: Mapping[str, Attribute]
    orderable: Mapping[str, Attribute]
    maps: Mapping[str, str]
    lists: Names | None
    order_default: tuple[str, ...] = ()
    tie_breakers: tuple[tuple[str, bool], ...] = ()
    extra: tuple[str, ...] = ()
    kinds_shown: tuple[str, ...] = ()
    key_aliases: Mapping[str, str] = field(default_factory=dict)

    tag_comparators: ClassVar[Names] = PATTERNS | EXISTENCE
    orderable_kinds: ClassVar[tuple[str, ...]] = ("attribute", "metric", "parameter", "tag")

    # Reading clauses

    def refused(self, text: str, pieces: Sequence[str]) -> str:
        """The message for the pieces of a filter that are no comparisons."""
        shown_pieces = ", ".join(f"'{piece}'" for piece in pieces)
        return f"Invalid clause(s) in filter string: {shown_pieces}"

    def read(self, clause: Clause) -> Comparison:
        """A clause with its names resolved and its value converted.

        Raises SearchError for unknown names and for values that do not suit them.
        """
        found = self.identify(clause.field, self.attributes)
        if clause.value is None:
            self.check_existence(found)
            return Comparison(self.meant(found), clause.operator, None)
        value = self.value(found, clause.value)
        return Comparison(self.meant(found), clause.operator.upper(), value)

    def meant(self, found: Field) -> Field:
        """The field that an alias stands for."""
        if found.kind != "attribute":
            return found
        return Field("attribute", self.key_aliases.get(found.key, found.key))

    def identify(self, text: str, keys: Collection[str]) -> Field:
        """The field that a name means; keys: the attributes that may be named here."""
        prefix, dot, rest = text.partition(".")
        kind = self.kind(prefix) if dot else "attribute"
        key = unquoted(rest if dot else prefix)
        if kind == "attribute":
            self.check_attribute(key, keys)
        return Field(kind, key)

    def kind(self, prefix: str) -> str:
        """The kind that a prefix stands for."""
        trimmed = prefix[1:-1] if _is_quoted(prefix, "`") else prefix
        if trimmed not in self.identifiers:
            raise SearchError(
                f"Invalid entity type '{trimmed}'. Valid values are {list(self.kinds_shown)}"
            )
        return self.identifiers[trimmed]

    def check_attribute(self, key: str, keys: Collection[str]) -> None:
        """Refuse keys that are no attributes."""
        if key not in keys:
            raise SearchError(
                f"Invalid attribute key '{key}' specified. Valid keys are '{shown(keys)}'"
            )

    def check_existence(self, found: Field) -> None:
        """Refuse IS NULL where MLflow does."""
        if found.kind not in ("tag", "parameter"):
            raise SearchError(
                "IS NULL / IS NOT NULL is only supported for tags and params, "
                f"not for '{found.kind}' '{found.key}'"
            )

    def value(self, found: Field, constant: Constant) -> Value:
        """The constant as the value that the field is compared with."""
        if found.kind == "metric":
            return self.metric_value(constant)
        if found.kind == "attribute":
            return self.attribute_value(found.key, constant)
        return self.quoted_value(found.kind, constant)

    def metric_value(self, constant: Constant) -> float:
        """Metrics are compared with numbers."""
        if constant.form != "number":
            raise SearchError(f"Expected numeric value type for metric. Found {constant.text}")
        return float(constant.text)

    def quoted_value(self, kind: str, constant: Constant) -> str:
        """Tags and params are compared with strings."""
        if constant.form in ("string", "name"):
            return string(constant)
        raise SearchError(
            f"Expected a quoted string value for {kind} (e.g. 'my-value'). "
            f"Got value {constant.text}"
        )

    def attribute_value(self, key: str, constant: Constant) -> Value:
        """Attributes are compared with what their column holds."""
        if self.attributes[key].type == "integer":
            if constant.form != "number":
                raise SearchError(
                    f"Expected numeric value type for numeric attribute: {key}. "
                    f"Found {constant.text}"
                )
            return number(constant.text)
        if constant.form in ("string", "name"):
            return string(constant)
        if constant.form == "list":
            self.check_list(key)
            return strings(constant)
        raise SearchError(
            f"Expected a quoted string value for attributes. Got value {constant.text}"
        )

    def check_list(self, key: str) -> None:
        """Refuse lists for attributes that take none."""
        if self.lists is not None and key not in self.lists:
            raise SearchError(
                f"Only {sorted(self.lists)} attributes support "
                "comparison with a list of quoted string values."
            )

    # Comparators

    def check(self, comparison: Comparison) -> Comparison:
        """Refuse comparators that the field does not take; the comparison, perhaps normalised."""
        kind, operator = comparison.field.kind, comparison.operator
        if kind == "metric" and operator not in NUMERIC:
            raise SearchError(f"Invalid comparator '{operator}' not one of '{shown(NUMERIC)}")
        if kind == "parameter" and operator not in PATTERNS | EXISTENCE:
            allowed = shown(PATTERNS | EXISTENCE)
            raise SearchError(f"Invalid comparator '{operator}' not one of '{allowed}'")
        if kind == "tag" and operator not in self.tag_comparators:
            allowed = shown(self.tag_comparators)
            raise SearchError(f"Invalid comparator '{operator}' not one of '{allowed}")
        if kind == "attribute":
            self.check_attribute_comparator(comparison)
        _refuse_mismatch(comparison)
        return comparison

    def check_attribute_comparator(self, comparison: Comparison) -> None:
        """Refuse comparators that the attribute's type does not take."""
        operator = comparison.operator
        shown_set = shown(PATTERNS_AND_LISTS)
        if self.attributes[comparison.field.key].type == "integer":
            if operator not in NUMERIC:
                raise SearchError(f"Invalid comparator '{operator}' not one of '{shown_set}")
        elif operator not in PATTERNS_AND_LISTS:
            raise SearchError(f"Invalid comparator '{operator}' not one of '{shown_set}'")

    # Translation

    def narrowing(self, comparisons: Sequence[Comparison]) -> tuple[list[Comparison], Predicate]:
        """The comparisons to translate, and what the entity adds on its own (prompts, spans)."""
        return list(comparisons), TRUE

    def condition(self, comparison: Comparison) -> Predicate:
        """A checked comparison as SQL; never NULL-sensitive: missing values do not match."""
        found = comparison.field
        if found.kind == "metric":
            assert isinstance(comparison.value, float)
            return metric_condition(self.metric(found.key), comparison.operator, comparison.value)
        return compare(self.expression(found), comparison.operator, comparison.value)

    def expression(self, found: Field) -> Predicate:
        """The SQL expression of an attribute or of a key in a map."""
        if found.kind == "attribute":
            return Predicate(self.attributes[found.key].sql)
        return Predicate(f"{self.maps[found.kind]}[?]", (found.key,))

    def metric(self, key: str) -> Predicate:
        """The SQL expression of a metric's latest value."""
        return Predicate(f"{self.maps['metric']}[?].value", (key,))

    # Orders

    def sort_keys(self, order_by: Sequence[str]) -> tuple[SortKey, ...]:
        """The keys that an order_by list sorts by, tie-breakers included.

        Raises SearchError for items that MLflow refuses, and for duplicates.
        """
        orders = [self.order(item) for item in order_by or self.order_default]
        fields = [order.field for order in orders]
        if len(set(fields)) < len(fields):
            raise SearchError(
                f"`order_by` contains duplicate fields: {list(order_by)}", internal=True
            )
        for key, ascending in self.tie_breakers:
            if Field("attribute", key) not in fields:
                orders.append(Order(Field("attribute", key), ascending))
        return tuple(self.sort_key(order) for order in orders)

    def order(self, item: str) -> Order:
        """One order_by item, resolved."""
        text, ascending = parse_order(item)
        found = self.identify(text, self.orderable)
        if found.kind not in self.orderable_kinds:
            raise SearchError(f"Invalid identifier type '{found.kind}'")
        return Order(self.meant(found), ascending)

    def sort_key(self, order: Order) -> SortKey:
        """An order as SQL."""
        if order.field.kind == "metric":
            return SortKey(self.metric(order.field.key), "double", order.ascending, True)
        if order.field.kind == "attribute":
            attribute = self.orderable[order.field.key]
            return SortKey(
                Predicate(attribute.sql), attribute.type, order.ascending, attribute.nullable
            )
        return SortKey(self.expression(order.field), "text", order.ascending, True)


def _refuse_mismatch(comparison: Comparison) -> None:
    """A list belongs to IN and NOT IN, and they to it; MLflow's own answer is a fault of SQL."""
    listed = isinstance(comparison.value, tuple)
    if listed != (comparison.operator in ("IN", "NOT IN")):
        raise SearchError(
            f"Invalid comparator '{comparison.operator}' for "
            f"{'a list of values' if listed else 'a single value'}"
        )


_SQL_OPERATORS: Final = {
    "=": "=",
    "!=": "!=",
    ">": ">",
    ">=": ">=",
    "<": "<",
    "<=": "<=",
    "LIKE": "LIKE",
    "ILIKE": "ILIKE",
}


def compare(left: Predicate, operator: str, value: Value) -> Predicate:
    """`left operator value`, with the value bound."""
    if operator in EXISTENCE:
        return Predicate(f"{left.sql} {operator}", left.parameters)
    if isinstance(value, tuple):
        assert operator in ("IN", "NOT IN")
        marks = ", ".join("?" * len(value))
        return Predicate(f"{left.sql} {operator} ({marks})", (*left.parameters, *value))
    assert not isinstance(value, Span), "only the trail has spans"
    if operator == "RLIKE":
        return Predicate(f"regexp_matches({left.sql}, ?)", (*left.parameters, value))
    return Predicate(f"{left.sql} {_SQL_OPERATORS[operator]} ?", (*left.parameters, value))


def metric_condition(metric: Predicate, operator: str, value: float) -> Predicate:
    """A metric compared with a number: NaN differs from all numbers, and is in no other relation.

    Infinite metrics compare as the largest double. DuckDB sorts NaN above all numbers and
    infinities beyond the largest, so that only two cases need more than a plain comparison.
    """
    left = metric
    if abs(value) >= DOUBLE_MAX:
        clamped = (
            f"CASE {metric.sql} WHEN 'Infinity'::DOUBLE THEN {DOUBLE_MAX!r} "
            f"WHEN '-Infinity'::DOUBLE THEN -{DOUBLE_MAX!r} ELSE {metric.sql} END"
        )
        left = Predicate(clamped, metric.parameters * 2)
    plain = compare(left, operator, value)
    if operator not in (">", ">="):
        return plain
    return Predicate(
        f"{plain.sql} AND NOT isnan({metric.sql})", plain.parameters + metric.parameters
    )
