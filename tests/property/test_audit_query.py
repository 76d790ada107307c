"""The query bar against a filter in plain Python, on generated trails and queries.

The oracle knows the language in words only: it is given the tree that the query was written from,
never what the parser made of it. So it tells both that a query is read as it was meant, and that
its SQL finds what it should.
"""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muniment_projections.audit import reader, tables
from muniment_projections.audit.query import FREE_COLUMNS, compile_query
from muniment_projections.audit.reader import Wanted
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import TRUE

DAY_MS = 86_400_000
FIRST_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
NAMES = {"p1": "ana", "p2": "bob", "p3": "ana lee"}
MODELS = ("fraud", "fraud-v2", "churn", "100%_sure", None)

Row = dict[str, Any]

COMPARED: dict[str, Callable[[int, int], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Asked:
    """A piece of a query: its text, and what it means."""

    text: str
    holds: Any


def glob(pattern: str, text: str | None) -> bool:
    if text is None:
        return False
    escaped = fnmatch.translate(pattern.replace("[", "[[]").replace("?", "[?]"))
    return re.fullmatch(escaped, text, re.DOTALL) is not None


rows = st.fixed_dictionaries(
    {
        "at_ms": st.integers(0, 40).map(lambda n: FIRST_MS + n * DAY_MS // 4),
        "actor": st.sampled_from(sorted(NAMES)),
        "action": st.sampled_from(["model.read", "model.transition", "run.log", "audit.read"]),
        "outcome": st.sampled_from(["success", "denied", "failed", "allowed"]),
        "status": st.sampled_from([None, 200, 403, 404, 500]),
        "resource_kind": st.sampled_from(["registered_model", "run", None]),
        "resource_name": st.sampled_from(MODELS),
        "resource_id": st.sampled_from(["m1", "m2", None]),
        "resource_version": st.sampled_from([None, 1, 2]),
        "reason": st.sampled_from([None, "Disk full", "not permitted", 'it\'s "odd"']),
        "touched": st.sampled_from([None, ["run/r1", "registered_model/fraud"], ["artifact/a/b"]]),
    }
)


def _text(name: str, column: str, values: list[str]) -> st.SearchStrategy[Asked]:
    def quoted(value: str) -> Asked:
        given = f'"{value}"' if re.search(r"[\s()']", value) else value
        return Asked(f"{name}:{given}", lambda row: glob(value, row[column]))

    return st.sampled_from(values).map(quoted)


def _actor(pattern: str) -> Asked:
    def holds(row: Row) -> bool:
        return glob(pattern, row["actor"]) or glob(pattern, NAMES[row["actor"]])

    return Asked(f'actor:"{pattern}"', holds)


def _status(sign: str, number: int) -> Asked:
    test = COMPARED[sign]
    return Asked(
        f"status {sign} {number}",
        lambda row: row["status"] is not None and test(row["status"], number),
    )


def _between(first: int, last: int) -> Asked:
    def day(number: int) -> str:
        at = datetime.fromtimestamp((FIRST_MS + number * DAY_MS) / 1000, UTC)
        return at.strftime("%Y-%m-%d")

    def holds(row: Row) -> bool:
        return bool(first <= (row["at_ms"] - FIRST_MS) // DAY_MS <= last)

    return Asked(f"time:{day(first)}..{day(last)}", holds)


def _resource(name: str, version: int | None) -> Asked:
    def holds(row: Row) -> bool:
        own = row["resource_kind"] == "registered_model" and (
            (glob(name, row["resource_name"]) or glob(name, row["resource_id"]))
            and version in (None, row["resource_version"])
        )
        shown = name if version is None else f"{name}/{version}"
        among = any(glob(f"registered_model/{shown}", one) for one in row["touched"] or ())
        return own or among

    return Asked(f"resource:models/{name}{'' if version is None else f'/{version}'}", holds)


def _free(text: str) -> Asked:
    def holds(row: Row) -> bool:
        return any(text.lower() in (row.get(column) or "").lower() for column in FREE_COLUMNS)

    return Asked(f'"{text}"', holds)


leaves = st.one_of(
    _text("action", "action", ["model.*", "run.log", "*.read", "m*n"]),
    _text("outcome", "outcome", ["denied", "success"]),
    _text("reason", "reason", ["Disk full", "*permitted", "*", "it's*"]),
    _text("name", "resource_name", ["fraud", "fraud*", "100%_sure", "1*e"]),
    st.sampled_from(["ana", "ana*", "p2", "*e"]).map(_actor),
    st.builds(
        _status,
        st.sampled_from(["=", "!=", ">=", "<", ">", "<="]),
        st.sampled_from([200, 403, 404]),
    ),
    st.builds(_between, st.integers(0, 5), st.integers(3, 9)),
    st.builds(_resource, st.sampled_from(["fraud", "fraud*", "m1"]), st.sampled_from([None, 1])),
    st.sampled_from(["disk", "FRAUD", "model.r", "100%"]).map(_free),
    st.sampled_from(
        [
            Asked("reason IS NULL", lambda row: row["reason"] is None),
            Asked("kind IS NOT NULL", lambda row: row["resource_kind"] is not None),
            Asked("kind IN ('run')", lambda row: row["resource_kind"] == "run"),
            Asked(
                "outcome NOT IN (denied, failed)",
                lambda row: row["outcome"] not in ("denied", "failed"),
            ),
            Asked("reason LIKE '%full'", lambda row: (row["reason"] or "").endswith("full")),
        ]
    ),
)


def _joined(word: str, terms: list[Asked]) -> Asked:
    texts = [f"({term.text})" for term in terms]
    if word == "OR":
        return Asked(" OR ".join(texts), lambda row: any(term.holds(row) for term in terms))
    return Asked(word.join(texts), lambda row: all(term.holds(row) for term in terms))


def _negated(sign: str, term: Asked) -> Asked:
    return Asked(f"{sign}({term.text})", lambda row: not term.holds(row))


queries = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            _joined, st.sampled_from([" ", " AND ", "OR"]), st.lists(inner, min_size=2, max_size=3)
        ),
        st.builds(_negated, st.sampled_from(["-", "NOT "]), inner),
    ),
    max_leaves=6,
)

CONNECTION = duckdb.connect()
CONNECTION.execute(tables.CREATE)
REQUIRED = {
    "topic": "access",
    "event_id": "e",
    "type": "ApiCalled",
    "auth_method": "local",
    "workspace": "default",
    "request_id": "r",
}


def stored(trail: list[Row]) -> list[Row]:
    """The rows as they are put into the table, which they are all of."""
    CONNECTION.execute("DELETE FROM audit_events")
    whole = [
        {**REQUIRED, "partition": place % 2, "offset": place, **row}
        for place, row in enumerate(trail)
    ]
    if whole:
        columns = sorted(whole[0])
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join([f"({', '.join('?' * len(columns))})"] * len(whole))
        values = [row[name] for row in whole for name in columns]
        CONNECTION.execute(f"INSERT INTO audit_events ({names}) VALUES {marks}", values)
    return whole


def named(pattern: str) -> list[str]:
    return [one for one, name in NAMES.items() if glob(pattern, name)]


@given(st.lists(rows, max_size=12), queries)
@settings(deadline=None, max_examples=100)
def test_a_query_finds_what_a_filter_in_plain_python_finds(trail: list[Row], asked: Asked) -> None:
    whole = stored(trail)
    where = compile_query(asked.text, named)
    found = reader.events(CONNECTION, Wanted(where, max_results=100)).rows.to_pylist()
    assert sorted(row["offset"] for row in found) == [
        row["offset"] for row in whole if asked.holds(row)
    ], asked.text


@given(st.lists(rows, max_size=15), st.integers(1, 5), st.booleans())
@settings(deadline=None, max_examples=20)
def test_pages_are_the_whole_in_order(trail: list[Row], size: int, newest_first: bool) -> None:
    whole = stored(trail)
    found: list[Row] = []
    token = None
    while True:
        wanted = Wanted(TRUE, "q", newest_first, size, token)
        page = reader.events(CONNECTION, wanted)
        found += page.rows.to_pylist()
        token = page.next_page_token
        if token is None:
            break
    order = sorted(whole, key=lambda r: (r["at_ms"], r["topic"], r["partition"], r["offset"]))
    if newest_first:
        order.reverse()
    assert [row["offset"] for row in found] == [row["offset"] for row in order]


@given(st.lists(rows, max_size=12))
@settings(deadline=None, max_examples=20)
def test_facets_count_every_event_once(trail: list[Row]) -> None:
    whole = stored(trail)
    for name, values in reader.facets(CONNECTION, TRUE).items():
        column = [row[name] for row in whole if row[name] is not None]
        assert dict(values) == {value: column.count(value) for value in set(column)}


@given(st.lists(rows, max_size=12), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_a_tail_sees_every_event_once_from_any_place(trail: list[Row], size: int) -> None:
    whole = stored(trail)
    places: dict[tuple[str, int], int] = {("access", 0): 4}
    seen: list[int] = []
    beyond = 0
    while True:
        look = reader.since(CONNECTION, TRUE, dict(places), beyond, size)
        beyond = look.beyond
        if not len(look.rows):
            break
        for row in look.rows.to_pylist():
            places[(row["topic"], row["partition"])] = row["offset"] + 1
            seen.append(row["offset"])
    due = [row["offset"] for row in whole if row["partition"] == 1 or row["offset"] >= 4]
    assert sorted(seen) == due


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=200)
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    found = TRUE
    with suppress(SearchError):
        found = compile_query(text, named)
    assert found.sql.count("?") == len(found.parameters), "a value has become text"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("actor:a ) b", "from character 9 on, at ') b'"),
        ("(actor:a", "missing at its end"),
        ("colour:red", "There is no field 'colour' (at 'colour:red')"),
        ("actr:ana", "Did you mean actor?"),
        ("status:many", "'status:many' needs a number"),
        ("time:yesterday", "'time:yesterday' needs a time as"),
        ("status LIKE '4%'", "'status' cannot be compared by LIKE"),
        ("(" * 60 + "a" + ")" * 60, "nests at most"),
    ],
)
def test_a_refusal_points_at_the_place(text: str, said: str) -> None:
    with pytest.raises(SearchError) as refused:
        compile_query(text, named)
    assert said in refused.value.message
