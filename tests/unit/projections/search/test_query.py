"""The whole language: OR, NOT and parentheses, which MLflow's clients may not write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from muniment_projections.base import Connection
from muniment_projections.search.entities.runs import RUNS
from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import DEPTH_MAX, parse_query
from muniment_projections.search.sql import compile_query
from muniment_projections.search.tree import And, Clause, Constant, Not, Or
from unit.projections.runs.samples import Metric, Run, database

RUNS_STORED = [
    Run(run_id="a", params={"p": "1"}, metrics={"m": Metric(1.0)}),
    Run(run_id="b", params={"p": "2"}),
    Run(run_id="c", metrics={"m": Metric(3.0)}),
]


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with database(RUNS_STORED) as opened:
        yield opened


def found(connection: Connection, text: str) -> str:
    where = compile_query(RUNS, text)
    rows = connection.execute(
        f"SELECT t.run_id FROM {RUNS.source} WHERE {where.sql} ORDER BY 1", list(where.parameters)
    ).fetchall()
    return "".join(run_id for (run_id,) in rows)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", "abc"),
        ("params.p = '1' OR metrics.m > 2", "ac"),
        ("NOT params.p = '1'", "bc"),
        ("not not params.p = '1'", "a"),
        ("params.p = '1' OR params.p = '2' AND metrics.m > 2", "a"),
        ("(params.p = '1' OR params.p = '2') AND NOT (metrics.m > 2 OR metrics.m < 2)", "b"),
        ("params.p IS NULL or run_id IN ('b')", "bc"),
    ],
)
def test_query(connection: Connection, text: str, ids: str) -> None:
    assert found(connection, text) == ids


def test_and_binds_closer_than_or_and_not_closest() -> None:
    def clause(name: str) -> Clause:
        return Clause(name, "=", Constant("number", "1"))

    tree = parse_query("NOT a = 1 AND b = 1 OR c = 1")
    assert tree == Or((And((Not(clause("a")), clause("b"))), clause("c")))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("run_id = 'a' OR", "at its end"),
        ("(run_id = 'a'", "at its end"),
        ("run_id = 'a') AND x", r"at '\) AND x'"),
        ("run_id AND", "at 'AND'"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, where: str) -> None:
    with pytest.raises(SearchError, match=f"could not be read {where}"):
        parse_query(text)


def test_nesting_is_bounded() -> None:
    deep = "(" * DEPTH_MAX + "run_id = 'a'" + ")" * DEPTH_MAX
    parse_query(deep)
    with pytest.raises(SearchError, match="nests at most"):
        parse_query(f"({deep})")
    with pytest.raises(SearchError, match="nests at most"):
        parse_query("NOT " * (DEPTH_MAX + 1) + "run_id = 'a'")
