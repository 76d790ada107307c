"""Conditions on a trace's spans, over the alias `s` of `trace_spans`."""

from __future__ import annotations

from muniment_projections.search.entities.base import PATTERNS_AND_LISTS, compare, shown
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import Predicate
from muniment_projections.search.tree import Comparison

COLUMNS = ("name", "status", "type")
CONTENT = "content"
ATTRIBUTE_PREFIX = "attributes."

_COMPARATORS = PATTERNS_AND_LISTS | {"RLIKE"}
_CONTENT_COMPARATORS = frozenset({"LIKE", "ILIKE"})


def check_span(key: str, operator: str) -> None:
    """Refuse keys that spans do not have, and comparators that the key does not take."""
    if key == ATTRIBUTE_PREFIX:
        raise SearchError("Span attribute name cannot be empty after 'attributes.'")
    if key == CONTENT:
        allowed = _CONTENT_COMPARATORS
    elif key in COLUMNS or key.startswith(ATTRIBUTE_PREFIX):
        allowed = _COMPARATORS
    else:
        raise SearchError(
            f"Invalid span attribute '{key}'. "
            f"Supported attributes: {', '.join(COLUMNS)}, attributes.<attribute_name>."
        )
    if operator not in allowed:
        raise SearchError(f"span.{key} comparator '{operator}' not one of '{shown(allowed)}'")


def span_condition(comparison: Comparison) -> Predicate:
    """What one span must be like."""
    key = comparison.field.key
    if not key.startswith(ATTRIBUTE_PREFIX):
        return compare(Predicate(f"s.{key}"), comparison.operator, comparison.value)
    if not isinstance(comparison.value, str):
        raise SearchError(f"span.{key} takes a single string, not {comparison.value}")
    pattern = _content_pattern(
        key.removeprefix(ATTRIBUTE_PREFIX).strip("`"), comparison.operator, comparison.value
    )
    return compare(Predicate("s.content"), comparison.operator, pattern)


def _content_pattern(name: str, operator: str, value: str) -> str:
    """A pattern on a span's JSON, where attribute values are JSON inside a JSON string."""
    if operator != "RLIKE":
        return f'%"{name}"{value}%'
    prefix = '"\\\\"' if value.startswith("^") else '"\\\\".*'
    suffix = '\\\\"' if value.endswith("$") else ""
    return f'"{name}": {prefix}{value.removeprefix("^").removesuffix("$")}{suffix}'
