"""A condition is true of a run when a run search for it finds the run, and nothing is unknown."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.examples import examples
from muniment_projections.base import Connection
from muniment_projections.search.entities.runs import RUNS
from muniment_projections.search.errors import SearchError
from muniment_projections.search.sql import compile_query
from muniment_services import conditions
from muniment_services.domain.errors import Invalid
from muniment_services.domain.latest import Metric
from muniment_services.domain.run import Run
from unit.projections.runs.samples import database, store

DOUBLE_MAX = 1.7976931348623157e308
NUMBERS = [math.nan, math.inf, -math.inf, DOUBLE_MAX, 0.0, -0.0, 1.0, -2.5, 5e-324, 2.0**53]
LITERALS = [
    *("0", "1", "-1", "1.0", ".5", "-2.5", "5e-324", "1e400", "-1e999", "1.7976931348623157e308"),
    *("-1.7976931348623157e308", "9007199254740992", "9007199254740993", "9007199254740992.0"),
]
TIMES = [0, 1, 2**53, 2**53 + 1, 2**63 - 1]
TEXTS = [
    *("", "a", "A", "ab", "aB%", "a_b", "a\\_b", "é", "É", "e\u0301", "İ", "i", "i\u0307"),
    *(
        "\u017f",
        "s",
        "ß",
        "SS",
        "K",
        "k",
        "\u0391\u03a3",
        "\u03b1\u03c2",
        "\u03b1\u03c3",
        "a\nb",
        "\0",
        "👩\u200d👩",
        "x`y",
        "%",
        "_",
    ),
]
KEYS = ["p", "q x", "p.q", "", "É", "none", "a'b", "_%"]

texts = st.sampled_from(TEXTS) | st.text(
    st.characters(codec="utf-8", exclude_characters="'"), max_size=5
)
patterns = st.lists(
    st.sampled_from(["%", "_", "a", "B", "é", "\\", "İ", "\u03a3", "\u017f", "K"])
).map("".join)


def runs(whole: bool = False) -> st.SearchStrategy[Run]:
    """Runs whose values collide, with what is hard to compare among them.

    whole: nothing that a query may ask for is missing or NaN.
    """
    numbers = st.sampled_from(NUMBERS) | st.floats()
    if whole:
        numbers = numbers.filter(lambda number: not math.isnan(number))
    points = st.builds(Metric, value=numbers, timestamp_ms=st.just(0), step=st.just(0))

    def by_key(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        if whole:
            return st.fixed_dictionaries(dict.fromkeys(KEYS, values))
        return st.dictionaries(st.sampled_from(KEYS), values)

    return st.builds(
        Run,
        version=st.just(1),
        run_id=st.sampled_from(["a", "b", "é"]),
        experiment_id=st.just("0"),
        name=texts,
        user_id=texts,
        status=st.sampled_from(["RUNNING", "FINISHED"]),
        start_time_ms=st.sampled_from(TIMES),
        end_time_ms=st.sampled_from(TIMES) if whole else st.none() | st.sampled_from(TIMES),
        artifact_uri=texts,
        lifecycle=st.just("active"),
        lifecycle_changed_at_ms=st.just(0),
        params=by_key(texts),
        tags=by_key(texts),
        metrics=by_key(points),
    )


def quoted(key: str) -> str:
    return key if key.isidentifier() else f"`{key}`"


names = st.tuples(
    st.sampled_from(["params", "param", "parameters", "tags", "tag"]), st.sampled_from(KEYS)
).map(lambda pair: f"{pair[0]}.{quoted(pair[1])}")
attributes = st.sampled_from(
    ["run_name", "attributes.`Run Name`", "attr.user_id", "status", "artifact_uri", "run_id"]
)
equalities = st.sampled_from(["=", "!="])
comparisons = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
string_tests = (
    st.one_of(
        st.tuples(equalities | st.sampled_from(["LIKE", "ILIKE", "ilike"]), texts),
        st.tuples(st.sampled_from(["LIKE", "ILIKE", "like"]), patterns),
    )
    .filter(lambda pair: not pair[1].endswith("\\"))
    .map(lambda pair: f"{pair[0]} '{pair[1]}'")
)
# A backslash before the closing quote would quote that: no such query can be read.
lists = st.lists(st.sampled_from(["'a'", "'b'", '"é"']), min_size=1).map(", ".join)

clauses = st.one_of(
    st.tuples(names | attributes, string_tests),
    st.tuples(names, st.sampled_from(["IS NULL", "IS NOT NULL", "is null"])),
    st.tuples(
        st.sampled_from(KEYS).map(lambda key: f"metrics.{quoted(key)}"),
        st.tuples(comparisons, st.sampled_from(LITERALS)).map(" ".join),
    ),
    st.tuples(
        st.sampled_from(["start_time", "attribute.end_time", "Created"]),
        st.tuples(comparisons, st.sampled_from(LITERALS)).map(" ".join),
    ),
    st.tuples(
        st.just("run_id"),
        st.tuples(st.sampled_from(["IN", "NOT IN"]), lists).map(lambda p: f"{p[0]} ({p[1]})"),
    ),
).map(" ".join)


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        parts.map(lambda part: f"NOT ({part})"),
        st.tuples(st.sampled_from([" AND ", " or "]), st.lists(parts, min_size=2, max_size=3)).map(
            lambda pair: pair[0].join(f"({part})" for part in pair[1])
        ),
        st.tuples(parts, parts).map(lambda pair: f"NOT ({pair[0]}) AND {pair[1]}"),
    )


queries = st.recursive(clauses, joined, max_leaves=5)


@pytest.fixture(scope="module")
def connection() -> Connection:
    return database()


def found(connection: Connection, query: str, run: Run) -> bool:
    """Whether a search over the one run finds it."""
    connection.execute("DELETE FROM runs")
    store(connection, [run])  # type: ignore[list-item]
    where = compile_query(RUNS, query)
    rows = connection.execute(
        f"SELECT count(*) FROM {RUNS.source} WHERE {where.sql}", list(where.parameters)
    ).fetchone()
    assert rows is not None
    return bool(rows[0])


def simple(**fields: Any) -> Run:
    given = {name: fields.get(name, {}) for name in ("params", "tags")}
    metrics = {
        key: Metric(value=value, timestamp_ms=0, step=0)
        for key, value in fields.get("metrics", {}).items()
    }
    return Run(
        version=1, run_id="a", experiment_id="0", name="n", user_id="u", status="FINISHED",
        start_time_ms=fields.get("start_time_ms", 0), end_time_ms=None, artifact_uri="x",
        lifecycle="active", lifecycle_changed_at_ms=0, metrics=metrics, **given,
    )  # fmt: skip


@settings(max_examples=examples(400))
@given(query=queries, run=runs(whole=True))
@example(query="metrics.p = 1e400", run=simple(metrics={"p": math.inf}))
@example(query="metrics.p < 1e400", run=simple(metrics={"p": math.inf}))
@example(query="metrics.p = 1.7976931348623157e308", run=simple(metrics={"p": math.inf}))
@example(query="tags.p ILIKE 's'", run=simple(tags={"p": "\u017f"}))
@example(query="tags.p ILIKE 'i'", run=simple(tags={"p": "İ"}))
@example(query="tags.p ILIKE '\u03b1\u03c2'", run=simple(tags={"p": "\u0391\u03a3"}))
@example(query="start_time > 9007199254740992.0", run=simple(start_time_ms=2**53 + 1))
@example(query="start_time > 9007199254740992", run=simple(start_time_ms=2**53 + 1))
def test_a_condition_decides_as_a_search_does(connection: Connection, query: str, run: Run) -> None:
    assert conditions.holds(query, run) == found(connection, query, run)
    assert conditions.holds(f"NOT ({query})", run) != conditions.holds(query, run)


@settings(max_examples=examples(400))
@given(query=queries, run=runs())
def test_whatever_is_not_known_a_condition_never_says_what_a_search_denies(
    connection: Connection, query: str, run: Run
) -> None:
    """What is true whatever the unknown may be is true when a search takes it for something."""
    if conditions.holds(query, run):
        assert found(connection, query, run)
    if conditions.holds(f"NOT ({query})", run):
        assert not found(connection, query, run)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        *((f"metrics.{name} {operator} 0.5", False) for name in ("nan", "none")
          for operator in ("=", "!=", "<", "<=", ">", ">=")),
        *((f"NOT metrics.{name} {operator} 0.5", False) for name in ("nan", "none")
          for operator in ("=", "!=", "<", "<=", ">", ">=")),
        ("NOT (metrics.nan >= 0.5)", False),
        ("NOT (NOT (metrics.nan >= 0.5))", False),
        ("NOT params.none = 'a'", False),
        ("NOT tags.none LIKE 'a%'", False),
        ("NOT end_time > 5", False),
        ("NOT (metrics.nan > 1 AND metrics.good > 0)", False),
        ("NOT (metrics.nan > 1 AND metrics.good > 1)", True),
        ("NOT (metrics.nan > 1 OR metrics.good > 1)", False),
        ("metrics.nan > 1 OR metrics.good > 0", True),
        ("metrics.nan > 1 OR metrics.good > 1", False),
        ("metrics.good > 0 AND NOT metrics.nan > 1", False),
        ("NOT metrics.good > 1", True),
        ("params.none IS NULL", True),
        ("NOT params.none IS NULL", False),
        ("NOT params.none IS NOT NULL", True),
    ],
)  # fmt: skip
def test_what_is_not_known_does_not_hold_and_nor_does_its_opposite(
    condition: str, holds: bool
) -> None:
    run = simple(metrics={"nan": math.nan, "good": 0.4})
    assert conditions.holds(condition, run) is holds


@settings(max_examples=examples(200))
@given(text=texts, pattern=patterns)
def test_patterns_match_as_the_database_has_them(
    connection: Connection, text: str, pattern: str
) -> None:
    rows = connection.execute("SELECT ?::VARCHAR LIKE ?::VARCHAR", [text, pattern]).fetchone()
    assert rows == (conditions.like(text, pattern),)


def test_a_pattern_cannot_take_for_ever() -> None:
    """What backtracks over every `%` would not end on this one."""
    assert not conditions.like("a" * 6000, "%a" * 400 + "b")


@pytest.mark.parametrize(
    "query",
    [
        *("metrics.p <", "metrics.p = 'a'", "params.p > 'a'", "params.p RLIKE 'a'", "nobody = 'a'"),
        *("params.p NOT LIKE 'a'", "status IN ('a')", "metrics.p IS NULL", "start_time LIKE 'a'"),
        *("params.p = 1", "(params.p = 'a'", "NOT", "run_id IN ()"),
    ],
)
def test_what_no_search_takes_is_no_condition(query: str) -> None:
    with pytest.raises(SearchError):
        compile_query(RUNS, query)
    with pytest.raises(Invalid):
        conditions.check(query)


def test_datasets_are_for_searches_only() -> None:
    compile_query(RUNS, "dataset.name = 'a'")
    with pytest.raises(Invalid, match="metrics, params, tags and attributes"):
        conditions.check("dataset.name = 'a'")
