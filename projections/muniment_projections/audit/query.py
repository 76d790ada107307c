"""What the words of the trail's query bar mean: fields, and their comparisons as SQL.

Values are bound, never text. In values of `field:value`, `*` stands for any characters; numbers and
times may be ranges, `a..b`, both ends included, of which either may be `*`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from muniment_projections.search.bar import FREE, HAS, parse_bar
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import Predicate, all_of, any_of
from muniment_projections.search.sql import expression
from muniment_projections.search.tree import (
    And,
    Clause,
    Comparison,
    Constant,
    Expression,
    Field,
    Not,
    Or,
    Span,
    Value,
)

Kind = Literal["text", "integer", "time", "actor", "resource", "free"]

TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "action": "action",
        "agent": "user_agent",
        "auth": "auth_method",
        "client": "client_address",
        "code": "error_code",
        "comment": "comment",
        "event": "event_id",
        "id": "resource_id",
        "kind": "resource_kind",
        "method": "method",
        "name": "resource_name",
        "oauth_client": "client_id",
        "outcome": "outcome",
        "permission": "permission",
        "reason": "reason",
        "request": "request_id",
        "route": "route",
        "token": "token_id",
        "topic": "topic",
        "trace": "traceparent",
        "type": "type",
        "workspace": "workspace",
    }
)
"""Fields that hold texts, and their columns."""

INTEGERS: Mapping[str, str] = MappingProxyType(
    {
        "bytes_in": "bytes_in",
        "bytes_out": "bytes_out",
        "duration_us": "duration_us",
        "offset": '"offset"',
        "partition": '"partition"',
        "status": "status",
        "version": "resource_version",
    }
)
"""Fields that hold integers."""

FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        **{name: Field("text", column) for name, column in TEXTS.items()},
        **{column: Field("text", column) for column in TEXTS.values() if column != "request"},
        **{name: Field("integer", column) for name, column in INTEGERS.items()},
        "time": Field("time", "at_ms"),
        "actor": Field("actor", "actor"),
        "resource": Field("resource", "resource"),
        FREE: Field("free", FREE),
    }
)
"""Every field that a query may name, and what it means."""

FREE_COLUMNS = (
    "action", "comment", "error_code", "reason", "resource_id", "resource_name", "route", "type",
    "user_agent",
)  # fmt: skip
"""Where free text is looked for, whatever its capitals."""

RESOURCE_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "model": "registered_model",
        "models": "registered_model",
        "registered_models": "registered_model",
        "prompt": "registered_model",
        "prompts": "registered_model",
        "experiments": "experiment",
        "runs": "run",
        "traces": "trace",
        "logged_models": "logged_model",
        "artifacts": "artifact",
        "principals": "principal",
        "credentials": "credential",
        "workspaces": "workspace",
        "packs": "pack",
        **{
            kind: kind
            for kind in (
                "registered_model", "experiment", "run", "trace", "logged_model", "artifact",
                "principal", "credential", "workspace", "access", "promotion_policy", "schema",
                "pack",
            )
        },
    }
)  # fmt: skip
"""What may stand before the slash in `resource:models/fraud`."""

COMPARISONS: Final = frozenset({"=", "!=", "<", "<=", ">", ">="})
PATTERNS: Final = frozenset({"LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"})
LISTS: Final = frozenset({"IN", "NOT IN"})
EXISTENCE: Final = frozenset({"IS NULL", "IS NOT NULL"})

ANY = "*"
INTEGER_MAX = 2**63 - 1

Actors = Callable[[str], Sequence[str]]
"""A name, or a pattern of names, to the ids of the principals that have it."""

_VERSION = re.compile(r"(.+)/(\d{1,9})")
_FORMS: Final = (
    ("%Y-%m-%d", timedelta(days=1)),
    ("%Y-%m-%dT%H:%M", timedelta(minutes=1)),
    ("%Y-%m-%dT%H:%M:%S", timedelta(seconds=1)),
    ("%Y-%m-%dT%H:%M:%S.%f", timedelta(milliseconds=1)),
)
"""How a time may be written, and the span that each means."""


def compile_query(text: str, actors: Actors) -> Predicate:
    """A query as a condition over `audit_events AS t`. Raises SearchError."""
    return expression(_Trail(actors), parse_bar(text))


def actor_patterns(text: str) -> set[str]:
    """The names, ids and patterns of them that a query asks for as actors. Raises SearchError."""
    trail = _Trail(lambda _: ())
    return {
        value
        for clause in _clauses(parse_bar(text))
        if (comparison := trail.read(clause)).field.kind == "actor"
        for value in _texts(comparison.value)
    }


def _clauses(tree: Expression) -> Iterator[Clause]:
    match tree:
        case Clause():
            yield tree
        case And(terms) | Or(terms):
            for term in terms:
                yield from _clauses(term)
        case Not(term):
            yield from _clauses(term)


def _texts(value: Value) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


@dataclass(frozen=True, slots=True)
class _Trail:
    """The fields of the trail."""

    actors: Actors

    def read(self, clause: Clause) -> Comparison:
        """What a comparison names."""
        found = FIELDS.get(clause.field.lower().strip("`")) if clause.field != FREE else None
        if clause.field == FREE:
            found = FIELDS[FREE]
        if found is None:
            raise SearchError(_unknown(clause))
        operator = " ".join(clause.operator.upper().split())
        return Comparison(found, operator, _value(found, operator, clause))

    def check(self, comparison: Comparison) -> Comparison:
        """The comparison, if its field can be compared so."""
        kind, operator = comparison.field.kind, comparison.operator
        allowed = {HAS} | EXISTENCE
        if kind in ("text", "actor"):
            allowed |= PATTERNS | LISTS | {"=", "!="}
        elif kind in ("integer", "time"):
            allowed |= COMPARISONS | LISTS
        elif kind == "resource":
            allowed |= {"=", "!="}
        if operator not in allowed:
            raise SearchError(
                f"'{comparison.field.key}' cannot be compared by {operator}; it takes "
                f"{', '.join(sorted(allowed))}."
            )
        return comparison

    def condition(self, comparison: Comparison) -> Predicate:
        """The comparison as SQL."""
        match comparison.field.kind:
            case "free":
                return _free(str(comparison.value))
            case "actor":
                return self._actor(comparison)
            case "resource":
                return _resource(comparison)
            case "text":
                return _text(f"t.{comparison.field.key}", comparison)
        return _number(f"t.{comparison.field.key}", comparison)

    def _actor(self, comparison: Comparison) -> Predicate:
        by_id = _text("t.actor", comparison)
        if comparison.operator in EXISTENCE | PATTERNS:
            return by_id
        named = [one for text in _texts(comparison.value) for one in self.actors(text)]
        if not named:
            return by_id
        marks = ", ".join("?" * len(named))
        if comparison.operator in ("!=", "NOT IN"):
            return all_of([by_id, Predicate(f"t.actor NOT IN ({marks})", tuple(named))])
        return any_of([by_id, Predicate(f"t.actor IN ({marks})", tuple(named))])


def _unknown(clause: Clause) -> str:
    names = sorted({"actor", "resource", "time", *TEXTS, *INTEGERS})
    close = difflib.get_close_matches(clause.field.lower(), names, 1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(names)}."
    shown = "" if clause.value is None else clause.value.text
    return (
        f"There is no field '{clause.field}' (at '{clause.field}{clause.operator}{shown}'). {hint}"
    )


def _value(field: Field, operator: str, clause: Clause) -> Value:
    constant = clause.value
    if constant is None:
        return None
    if operator in LISTS:
        return tuple(_bare(item) for item in constant.items)
    text = _bare(constant)
    if field.kind == "integer" and operator in (HAS, *COMPARISONS):
        return _span(text, clause, _integer_span)
    if field.kind == "time" and operator in (HAS, *COMPARISONS):
        return _span(text, clause, _time_span)
    return text


def _bare(constant: Constant) -> str:
    text = constant.text
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"`":
        return text[1:-1]
    return text


def _span(text: str, clause: Clause, read: Callable[[str], Span]) -> Span:
    first, dots, last = text.partition("..")
    try:
        if not dots:
            return read(text)
        least = None if first in ("", ANY) else read(first).least
        below = None if last in ("", ANY) else read(last).below
    except (ValueError, OverflowError):
        wanted = "a number" if read is _integer_span else "a time as 2026-01-31 or 2026-01-31T12:00"
        raise SearchError(
            f"'{clause.field}{clause.operator}{text}' needs {wanted}, or a range of two, as a..b."
        ) from None
    return Span(least, below)


def _integer_span(text: str) -> Span:
    number = int(text)
    if abs(number) >= INTEGER_MAX:
        raise ValueError(text)
    return Span(number, number + 1)


def _time_span(text: str) -> Span:
    if text.isdecimal() and len(text) < len(str(INTEGER_MAX)):
        return Span(int(text), int(text) + 1)
    for form, length in _FORMS:
        for zone in ("", "%z"):
            if zone and length.days:
                continue
            try:
                found = datetime.strptime(text, form + zone)
            except ValueError:
                continue
            begin = found if found.tzinfo else found.replace(tzinfo=UTC)
            return Span(_ms(begin), _ms(begin + length))
    raise ValueError(text)


def _ms(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def _like(pattern: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace(ANY, "%")


def matched(sql: str, pattern: str) -> Predicate:
    """Whether a column has a value, or one that a pattern (`*` for any characters) means."""
    if ANY in pattern:
        return Predicate(f"{sql} LIKE ? ESCAPE '\\'", (_like(pattern),))
    return Predicate(f"{sql} = ?", (pattern,))


def _text(column: str, comparison: Comparison) -> Predicate:
    operator, value = comparison.operator, comparison.value
    if operator in EXISTENCE:
        return Predicate(f"{column} {operator}")
    if isinstance(value, tuple):
        marks = ", ".join("?" * len(value))
        return Predicate(f"{column} {operator} ({marks})", value)
    if operator == HAS:
        return matched(column, str(value))
    return Predicate(f"{column} {operator} ?", (str(value),))


def _number(column: str, comparison: Comparison) -> Predicate:
    operator, value = comparison.operator, comparison.value
    if operator in EXISTENCE:
        return Predicate(f"{column} {operator}")
    if isinstance(value, tuple):
        read = _time_span if comparison.field.kind == "time" else _integer_span
        clause = Clause(comparison.field.key, f" {operator} ", None)
        spans = [_within(column, _span(text, clause, read)) for text in value]
        found = any_of(spans)
        return found if operator == "IN" else Predicate(f"NOT ({found.sql})", found.parameters)
    assert isinstance(value, Span)
    match operator:
        case "!=":
            inside = _within(column, value)
            return Predicate(f"NOT ({inside.sql})", inside.parameters)
        case "<":
            return Predicate(f"{column} < ?", (value.least,))
        case "<=":
            return Predicate(f"{column} < ?", (value.below,))
        case ">":
            return Predicate(f"{column} >= ?", (value.below,))
        case ">=":
            return Predicate(f"{column} >= ?", (value.least,))
    return _within(column, value)


def _within(column: str, span: Span) -> Predicate:
    parts = []
    if span.least is not None:
        parts.append(Predicate(f"{column} >= ?", (span.least,)))
    if span.below is not None:
        parts.append(Predicate(f"{column} < ?", (span.below,)))
    return all_of(parts) if parts else Predicate(f"{column} IS NOT NULL")


def _free(text: str) -> Predicate:
    bare = _bare(Constant("word", text))
    pattern = _like(bare.strip(ANY))
    return any_of(
        Predicate(f"t.{column} ILIKE ? ESCAPE '\\'", (f"%{pattern}%",)) for column in FREE_COLUMNS
    )


def _resource(comparison: Comparison) -> Predicate:
    if comparison.operator in EXISTENCE:
        return Predicate(f"t.resource_kind {comparison.operator}")
    found = about(str(comparison.value))
    if comparison.operator == "!=":
        return Predicate(f"NOT coalesce({found.sql}, FALSE)", found.parameters)
    return found


def about(text: str) -> Predicate:
    """Whether a row is about `models/NAME`, `runs/ID` or the like: its own resource is that, or one
    of those that a call touched besides."""
    head, slash, tail = text.partition("/")
    kind = RESOURCE_KINDS.get(head.lower().replace("-", "_")) if slash else None
    wanted = tail if kind is not None else text
    own = [_own(wanted)]
    versioned = _VERSION.fullmatch(wanted) if kind in (None, "registered_model") else None
    if versioned is not None:
        name, number = versioned.groups()
        exact = Predicate("t.resource_version = ?", (int(number),))
        own.append(all_of([_own(name), exact]))
    same_kind = [] if kind is None else [Predicate("t.resource_kind = ?", (kind,))]
    return any_of([all_of([*same_kind, any_of(own)]), _touched(f"{kind or ANY}/{wanted}")])


def _touched(pattern: str) -> Predicate:
    if ANY not in pattern:
        return Predicate("list_contains(t.touched, ?)", (pattern,))
    return Predicate(
        "(t.touched IS NOT NULL AND"
        " len(list_filter(t.touched, lambda x: x LIKE ? ESCAPE '\\')) > 0)",
        (_like(pattern),),
    )


def _own(wanted: str) -> Predicate:
    return any_of([matched("t.resource_name", wanted), matched("t.resource_id", wanted)])
