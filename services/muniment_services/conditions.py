"""Conditions on a run, in the language of run searches, decided on the run's state.

The grammar, the names and the comparisons are those of a search for runs, and what all is known of
a condition decides as a search finds. What is not known is a gate's to refuse, where a search (as
MLflow's) takes it for false and NOT of it for true: here a comparison with what is not there, or
with NaN, is neither true nor false, nor is NOT of it, and only what is true holds. (Logic of three
values, Kleene's strong one, which is SQL's.) A property test compares both on the same runs.
"""

from __future__ import annotations

import math
import operator as operators
from collections.abc import Callable, Mapping
from functools import lru_cache

from muniment_projections.search.entities.runs import RUNS
from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import parse_query
from muniment_projections.search.keyset import DOUBLE_MAX
from muniment_projections.search.tree import (
    And,
    Clause,
    Comparison,
    Expression,
    Field,
    Not,
    Or,
)
from muniment_services.domain.errors import Invalid
from muniment_services.domain.run import Run

CONDITION_CHARS_MAX = 2000
PARSED_KEPT = 256

Actual = str | int | float


def check(condition: str) -> None:
    """Raise Invalid unless it is a condition that can be decided."""
    _parsed(condition)


def holds(condition: str, run: Run) -> bool:
    """Whether a condition is known to be true of a run. Raises Invalid for what cannot be read."""
    return _true(_parsed(condition), run) is True


@lru_cache(PARSED_KEPT)
def _parsed(condition: str) -> Expression:
    if len(condition) > CONDITION_CHARS_MAX:
        raise Invalid(f"A condition has at most {CONDITION_CHARS_MAX} characters.")
    try:
        return _resolved(parse_query(condition))
    except SearchError as error:
        raise Invalid(f"The condition cannot be read: {error.message}") from None


def _resolved(tree: Expression) -> Expression:
    match tree:
        case Clause():
            found = RUNS.check(RUNS.read(tree))
            if found.field.kind == "dataset":
                raise SearchError("A condition may look at metrics, params, tags and attributes.")
            return found
        case And(terms):
            return And(tuple(map(_resolved, terms)))
        case Or(terms):
            return Or(tuple(map(_resolved, terms)))
        case Not(term):
            return Not(_resolved(term))
    return tree


def _true(tree: Expression, run: Run) -> bool | None:
    """None: not known."""
    match tree:
        case Comparison():
            return _compares(tree, _actual(tree.field, run))
        case And(terms):
            found = {_true(term, run) for term in terms}
            return False if False in found else None if None in found else True
        case Or(terms):
            found = {_true(term, run) for term in terms}
            return True if True in found else None if None in found else False
        case Not(term):
            negated = _true(term, run)
            return None if negated is None else not negated
    raise AssertionError(f"{tree} is not resolved")


def _actual(field: Field, run: Run) -> Actual | None:
    match field.kind:
        case "metric":
            metric = run.metrics.get(field.key)
            return None if metric is None else metric.value
        case "parameter":
            return run.params.get(field.key)
        case "tag":
            return run.tags.get(field.key)
    attributes: Mapping[str, Actual | None] = {
        "run_id": run.run_id,
        "run_name": run.name,
        "status": run.status,
        "user_id": run.user_id,
        "artifact_uri": run.artifact_uri,
        "start_time": run.start_time_ms,
        "end_time": run.end_time_ms,
    }
    return attributes[field.key]


def _compares(comparison: Comparison, actual: Actual | None) -> bool | None:
    operator, value = comparison.operator, comparison.value
    if operator in ("IS NULL", "IS NOT NULL"):
        return (actual is None) == (operator == "IS NULL")
    if actual is None:
        return None
    if isinstance(value, tuple):
        return (actual in value) == (operator == "IN")
    if isinstance(actual, str):
        return _text_compares(operator, actual, str(value))
    assert isinstance(value, int | float)
    if comparison.field.kind == "metric":
        return _metric_compares(operator, float(actual), float(value))
    # Beside a number with a fraction, the database reads times as doubles too.
    return _ORDER[operator](float(actual) if isinstance(value, float) else actual, value)


def _metric_compares(operator: str, actual: float, value: float) -> bool | None:
    if math.isnan(actual):
        return None
    return _ORDER[operator](max(-DOUBLE_MAX, min(DOUBLE_MAX, actual)), value)


_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def _text_compares(operator: str, actual: str, value: str) -> bool:
    match operator:
        case "=":
            return actual == value
        case "!=":
            return actual != value
        case "LIKE":
            return like(actual, value)
        case "ILIKE":
            return like(_lower(actual), _lower(value))
    raise AssertionError(f"{operator} is for no text")


def _lower(text: str) -> str:
    """As the database lowers: each character by itself, and into one."""
    return "".join(c.lower()[0] for c in text)


def like(text: str, pattern: str) -> bool:
    """Whether a text is as a pattern says: % any characters, _ one; nothing escapes them.

    Takes time in proportion to both lengths' product at the most, whatever the pattern.
    """
    place = at = 0
    star = resumed = -1
    while place < len(text):
        if at < len(pattern) and pattern[at] == "%":
            star, resumed = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("_", text[place]):
            place += 1
            at += 1
        elif star >= 0:
            resumed += 1
            place, at = resumed, star + 1
        else:
            return False
    return not pattern[at:].strip("%")
