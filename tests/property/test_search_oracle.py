"""Run searches equal a plain-Python reading of MLflow's rules, in one page and in many."""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from muniment_projections.base import Connection
from muniment_projections.runs.reader import RunSearch, View, search_runs
from unit.projections.runs.samples import (
    Metric,
    Run,
    database,
    dataset,
    run_ids,
    set_experiment,
    store,
)

DOUBLE_MAX = 1.7976931348623157e308
EXPERIMENTS = ("0", "1")

TEXTS = ["", "a", "A", "ab", "aB%", "a_b", "b", "10", "9", "é", "x'y"]
NUMBERS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -2.5, 1e300, DOUBLE_MAX, 5e-324]
PATTERNS = ["%", "a%", "%B%", "_", "A_", "a\\_b", "", "%%"]

numbers = st.sampled_from([*NUMBERS, math.nan, math.nan])
text_maps = st.dictionaries(st.sampled_from(["p", "q x", "p.q"]), st.sampled_from(TEXTS))
datasets = st.builds(
    dataset, st.sampled_from(["a", "b"]), st.sampled_from(TEXTS), st.sampled_from([None, "a", "ab"])
)


def runs(prefix: str) -> st.SearchStrategy[list[Run]]:
    """Runs with unique ids and few distinct values, so that ties and gaps are common."""
    fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "experiment_id": st.sampled_from(EXPERIMENTS),
            "name": st.sampled_from(TEXTS[1:]),
            "user_id": st.sampled_from(TEXTS),
            "status": st.sampled_from(["RUNNING", "FINISHED"]),
            "start_time_ms": st.integers(0, 2),
            "end_time_ms": st.none() | st.integers(0, 2),
            "lifecycle": st.sampled_from(["active", "deleted"]),
            "lifecycle_changed_at_ms": st.integers(0, 2),
            "params": text_maps,
            "tags": text_maps,
            "metrics": st.fixed_dictionaries(
                {}, optional={key: st.builds(Metric, numbers) for key in ("m", "n.x")}
            ),
            "datasets": st.lists(datasets, max_size=2).map(tuple),
        }
    )
    return st.lists(
        st.tuples(st.integers(0, 99), fields), max_size=12, unique_by=lambda r: r[0]
    ).map(lambda rows: [Run(run_id=f"{number:02}{prefix}", **row) for number, row in rows])


# The rules, written plainly

Compare = Callable[[Any, Any], bool]

RELATIONS: dict[str, Compare] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def like(value: str, pattern: str, flags: int = 0) -> bool:
    regex = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
    return re.fullmatch(regex, value, flags | re.DOTALL) is not None


def clamped(value: float) -> float:
    return max(-DOUBLE_MAX, min(DOUBLE_MAX, value))


@dataclass(frozen=True)
class Clause:
    """A comparison: its text, and what it means."""

    text: str
    holds: Callable[[Run], bool]


def matches(value: str | None, comparator: str, right: str | tuple[str, ...]) -> bool:
    if comparator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (comparator == "IS NULL")
    if value is None:
        return False
    if isinstance(right, tuple):
        return (value in right) == (comparator == "IN")
    if comparator.upper() == "LIKE":
        return like(value, right)
    if comparator.upper() == "ILIKE":
        return like(value, right, re.IGNORECASE)
    return RELATIONS[comparator](value, right)


def metric_matches(metric: Metric | None, comparator: str, right: float) -> bool:
    if metric is None:
        return False
    if math.isnan(metric.value):
        return comparator == "!="
    return RELATIONS[comparator](clamped(metric.value), right)


StringTest = tuple[str, Callable[[str | None], bool]]


def quoted_key(key: str) -> str:
    return key if key.isidentifier() else f"`{key}`"


def string_tests(existence: bool = False, lists: bool = False) -> st.SearchStrategy[StringTest]:
    """A comparator and a right side, as text and as what they mean for one value."""
    literal = st.sampled_from([text for text in TEXTS if "'" not in text])
    pairs = st.one_of(
        st.tuples(st.sampled_from(["=", "!="]), literal),
        st.tuples(st.sampled_from(["LIKE", "ilike", "ILIKE"]), st.sampled_from(PATTERNS)),
    )
    options = [pairs.map(lambda pair: (f"{pair[0]} '{pair[1]}'", lambda v: matches(v, *pair)))]
    if existence:
        comparators = st.sampled_from(["IS NULL", "IS NOT NULL"])
        options.append(comparators.map(lambda word: (word, lambda v: matches(v, word, ""))))
    if lists:
        values = st.lists(st.sampled_from(["a", "ab", "00a", "01a", "50a"]), min_size=1).map(tuple)
        options.append(
            st.tuples(st.sampled_from(["IN", "NOT IN"]), values).map(
                lambda pair: (
                    f"{pair[0]} ({', '.join(map(repr, pair[1]))})",
                    lambda v: matches(v, *pair),
                )
            )
        )
    return st.one_of(options)


def text_clause(
    name: str,
    read: Callable[[Run], Sequence[str | None]],
    existence: bool = False,
    lists: bool = False,
) -> st.SearchStrategy[Clause]:
    """A clause that holds when it does for one of the values that are read."""
    return string_tests(existence, lists).map(
        lambda test: Clause(f"{name} {test[0]}", lambda run: any(map(test[1], read(run))))
    )


def keyed(mapping: str, prefixes: Sequence[str]) -> st.SearchStrategy[Clause]:
    names = st.tuples(st.sampled_from(prefixes), st.sampled_from(["p", "q x", "p.q", "none"]))
    return names.flatmap(
        lambda pair: text_clause(
            f"{pair[0]}.{quoted_key(pair[1])}",
            lambda run: [getattr(run, mapping).get(pair[1])],
            existence=True,
        )
    )


def metric_clause() -> st.SearchStrategy[Clause]:
    literals = st.sampled_from(
        ["0", "1.0", "-2.5", "1e300", "1.7976931348623157e308", "1e400", "-1e999", "5e-324"]
    )
    return st.tuples(
        st.sampled_from(["m", "n.x", "none"]), st.sampled_from(sorted(RELATIONS)), literals
    ).map(
        lambda parts: Clause(
            f"metrics.`{parts[0]}` {parts[1]} {parts[2]}",
            lambda run: metric_matches(run.metrics.get(parts[0]), parts[1], float(parts[2])),
        )
    )


def time_clause() -> st.SearchStrategy[Clause]:
    def holds(run: Run, field: str, comparator: str, right: float) -> bool:
        value = getattr(run, field)
        return value is not None and RELATIONS[comparator](value, right)

    names = [("start_time", "start_time_ms"), ("attributes.end_time", "end_time_ms")]
    return st.tuples(
        st.sampled_from([*names, ("Created", "start_time_ms")]),
        st.sampled_from(sorted(RELATIONS)),
        st.sampled_from(["0", "1", "0.5", "-1"]),
    ).map(
        lambda parts: Clause(
            f"{parts[0][0]} {parts[1]} {parts[2]}",
            lambda run: holds(run, parts[0][1], parts[1], float(parts[2])),
        )
    )


def dataset_values(run: Run, key: str) -> list[str | None]:
    if key == "context":
        return [item.tags.get("mlflow.data.context") for item in run.datasets]
    return [getattr(item, key) for item in run.datasets]


def dataset_clause() -> st.SearchStrategy[Clause]:
    return st.sampled_from(["name", "digest", "context"]).flatmap(
        lambda key: text_clause(f"dataset.{key}", lambda run: dataset_values(run, key), lists=True)
    )


clauses = st.one_of(
    keyed("params", ["params", "param", "parameters"]),
    keyed("tags", ["tags", "tag"]),
    metric_clause(),
    time_clause(),
    dataset_clause(),
    text_clause("attributes.run_name", lambda run: [run.name]),
    text_clause("run_id", lambda run: [run.run_id], lists=True),
    text_clause("status", lambda run: [run.status]),
    text_clause("attr.user_id", lambda run: [run.user_id]),
)


@dataclass(frozen=True)
class OrderBy:
    """An order_by item: its text without a direction, and the value that it reads."""

    name: str
    value: Callable[[Run], object]


ORDERS = [
    OrderBy("metrics.m", lambda run: number(run.metrics.get("m"))),
    OrderBy("metrics.`n.x`", lambda run: number(run.metrics.get("n.x"))),
    OrderBy("metrics.none", lambda run: None),
    OrderBy("params.p", lambda run: run.params.get("p")),
    OrderBy("tags.`q x`", lambda run: run.tags.get("q x")),
    OrderBy("run_name", lambda run: run.name),
    OrderBy("attribute.end_time", lambda run: run.end_time_ms),
    OrderBy("start_time", lambda run: run.start_time_ms),
    OrderBy("run_id", lambda run: run.run_id),
    OrderBy("user_id", lambda run: run.user_id),
]

orders = st.lists(
    st.tuples(
        st.sampled_from([ORDERS[0], *ORDERS]), st.sampled_from(["", " ASC", " desc", " DESC"])
    ),
    max_size=3,
    unique_by=lambda pair: pair[0].name,
)
Ordered = list[tuple[OrderBy, str]]


def number(metric: Metric | None) -> float | None:
    return None if metric is None else metric.value


def rank(value: object) -> int:
    """Numbers and texts, then NaN, then what is missing."""
    if value is None:
        return 2
    return 1 if isinstance(value, float) and math.isnan(value) else 0


def compare_runs(wanted: Ordered, left: Run, right: Run) -> int:
    for item, direction in wanted:
        a, b = item.value(left), item.value(right)
        if rank(a) != rank(b):
            return rank(a) - rank(b)
        if rank(a):
            continue
        if isinstance(a, float) and isinstance(b, float):
            a, b = clamped(a), clamped(b)
        if a != b:
            first = -1 if RELATIONS["<"](a, b) else 1
            return -first if "desc" in direction.lower() else first
    if (
        all(item.name != "start_time" for item, _ in wanted)
        and left.start_time_ms != right.start_time_ms
    ):
        return -1 if left.start_time_ms > right.start_time_ms else 1
    return -1 if left.run_id < right.run_id else int(left.run_id > right.run_id)


Stages = dict[str, tuple[str, int]]
"""Experiment id to lifecycle and when it changed."""


def lifecycle(run: Run, stages: Stages) -> str:
    stage, changed = stages[run.experiment_id]
    return stage if changed >= run.lifecycle_changed_at_ms else run.lifecycle


def expected(
    found: Sequence[Run], stages: Stages, filters: Sequence[Clause], view: View, wanted: Ordered
) -> list[Run]:
    kept = [
        run
        for run in found
        if view in ("all", lifecycle(run, stages)) and all(clause.holds(run) for clause in filters)
    ]
    return sorted(kept, key=functools.cmp_to_key(functools.partial(compare_runs, wanted)))


# The comparison

stages = st.fixed_dictionaries(
    {
        experiment: st.tuples(st.sampled_from(["active", "deleted"]), st.integers(0, 2))
        for experiment in EXPERIMENTS
    }
)
views = st.sampled_from(["active", "deleted", "all"])
conjunctions: st.SearchStrategy[list[Clause]] = st.just([]) | st.lists(clauses, max_size=2)


def prepared(found: Sequence[Run], experiment_stages: Stages) -> Connection:
    connection = database(found)
    for experiment, (stage, changed) in experiment_stages.items():
        set_experiment(connection, experiment, stage, changed)
    return connection


def request(
    filters: Sequence[Clause], view: View, wanted: Ordered, size: int, token: str | None = None
) -> RunSearch:
    return RunSearch(
        experiment_ids=EXPERIMENTS,
        filter=" AND ".join(clause.text for clause in filters),
        view=view,
        order_by=tuple(item.name + direction for item, direction in wanted),
        max_results=size,
        page_token=token,
    )


@settings(max_examples=examples(150))
@given(runs("a"), stages, conjunctions, views, orders, st.integers(1, 5))
def test_search_equals_the_rules_and_pages_join_to_the_whole(
    found: list[Run],
    experiment_stages: Stages,
    filters: list[Clause],
    view: View,
    wanted: Ordered,
    size: int,
) -> None:
    connection = prepared(found, experiment_stages)
    right = expected(found, experiment_stages, filters, view, wanted)

    whole = search_runs(connection, request(filters, view, wanted, 100))
    assert run_ids(whole.documents) == [run.run_id for run in right]
    assert whole.lifecycles == [lifecycle(run, experiment_stages) for run in right]
    assert whole.next_page_token is None

    pages: list[str] = []
    token: str | None = None
    for _ in range(len(right) // size + 1):
        page = search_runs(connection, request(filters, view, wanted, size, token))
        pages += run_ids(page.documents)
        token = page.next_page_token
        if token is None:
            break
    assert token is None
    assert pages == [run.run_id for run in right]


@settings(max_examples=examples(100))
@given(runs("a"), runs("b"), conjunctions, orders, st.integers(1, 4))
def test_runs_that_arrive_between_pages_are_neither_skipped_nor_do_they_repeat_others(
    found: list[Run], arriving: list[Run], filters: list[Clause], wanted: Ordered, size: int
) -> None:
    experiment_stages: Stages = dict.fromkeys(EXPERIMENTS, ("active", 0))
    connection = prepared(found, experiment_stages)
    first = search_runs(connection, request(filters, "all", wanted, size))
    store(connection, arriving)
    if first.next_page_token is None:
        return
    last = next(run for run in found if run.run_id == run_ids(first.documents)[-1])
    behind = [
        run.run_id
        for run in expected([*found, *arriving], experiment_stages, filters, "all", wanted)
        if compare_runs(wanted, last, run) < 0
    ]
    rest = search_runs(connection, request(filters, "all", wanted, 100, first.next_page_token))
    assert run_ids(rest.documents) == behind
