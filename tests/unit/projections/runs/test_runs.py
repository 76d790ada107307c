"""The runs projection: what a batch leaves in the table, and what readers see of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import pytest

from muniment_projections.base import Connection, Folded
from muniment_projections.runs.apply import RunsProjection
from muniment_projections.runs.reader import (
    RunSearch,
    find_documents,
    find_lifecycles,
    search_runs,
)
from muniment_projections.search.errors import PageTokenInvalid, SearchError
from muniment_projections.search.predicate import Predicate
from muniment_schemas.events import LoggedModelDeleted
from unit.projections.runs.samples import (
    Metric,
    Run,
    database,
    dataset,
    envelope,
    folded,
    run_ids,
    set_experiment,
    store,
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with database() as opened:
        yield opened


def found(connection: Connection, **wanted: object) -> list[str]:
    request = msgspec.convert({"experiment_ids": ("0", "1"), **wanted}, RunSearch)
    return run_ids(search_runs(connection, request).documents)


def test_a_row_holds_all_of_the_state(connection: Connection) -> None:
    run = Run(
        run_id="r",
        end_time_ms=5,
        params={"lr": "0.1", "é": ""},
        tags={"k": "v"},
        metrics={"m": Metric(-math.inf, 7, -3), "n": Metric(2.0, 1, 1)},
        datasets=(dataset("d", "1", "train"), dataset("d", "2")),
    )
    store(connection, [Run(run_id="empty"), run])
    row = connection.execute(
        "SELECT end_time_ms, params, tags, metrics, datasets, document FROM runs WHERE run_id = 'r'"
    ).fetchone()
    assert row is not None
    end, params, tags, metrics, datasets, document = row
    assert (end, params, tags) == (5, run.params, run.tags)
    assert metrics["m"] == {"value": -math.inf, "timestamp_ms": 7, "step": -3}
    assert datasets == [
        {"name": "d", "digest": "1", "context": "train"},
        {"name": "d", "digest": "2", "context": None},
    ]
    assert msgspec.msgpack.decode(document, type=Run) == run


def test_the_last_state_of_a_batch_replaces_the_row(connection: Connection) -> None:
    store(connection, [Run(run_id="a"), Run(run_id="b")])
    store(connection, [Run(run_id="a", name="one"), Run(run_id="a", name="two")])
    rows = connection.execute("SELECT run_id, name FROM runs ORDER BY 1").fetchall()
    assert rows == [("a", "two"), ("b", "run")]


def test_void_events_and_other_aggregates_change_nothing(connection: Connection) -> None:
    other = LoggedModelDeleted(envelope=envelope("m-1", "logged_model"))
    batch = [folded(Run(run_id="a"), void="late"), Folded("runs", 0, 1, other, None, None)]
    RunsProjection().apply(connection, batch)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_failed_batch_leaves_no_trace_behind(connection: Connection) -> None:
    connection.begin()
    with pytest.raises(Exception, match="int"):
        store(connection, [Run(run_id="a", start_time_ms=2**70)])
    connection.rollback()
    store(connection, [Run(run_id="a")])
    assert found(connection) == ["a"]


def test_an_experiments_later_change_decides_the_lifecycle(connection: Connection) -> None:
    store(
        connection,
        [
            Run(run_id="active", lifecycle_changed_at_ms=10),
            Run(run_id="deleted", lifecycle="deleted", lifecycle_changed_at_ms=20),
            Run(run_id="elsewhere", experiment_id="1", lifecycle_changed_at_ms=10),
        ],
    )
    set_experiment(connection, "0", "deleted", 15)
    assert found(connection, view="active") == ["elsewhere"]
    assert found(connection, view="deleted") == ["active", "deleted"]
    set_experiment(connection, "0", "active", 30)
    assert found(connection, view="active") == ["active", "deleted", "elsewhere"]
    assert find_lifecycles(connection, ["deleted", "nope"]) == {"deleted": "active"}


def test_within_one_millisecond_the_experiment_wins(connection: Connection) -> None:
    store(connection, [Run(run_id="r", lifecycle="active", lifecycle_changed_at_ms=15)])
    for changed_at_ms, expected in ((14, "active"), (15, "deleted")):
        set_experiment(connection, "0", "deleted", changed_at_ms)
        page = search_runs(connection, RunSearch(("0",), view="all"))
        assert page.lifecycles == [expected]


def test_only_the_experiments_asked_for(connection: Connection) -> None:
    store(connection, [Run(run_id="a"), Run(run_id="b", experiment_id="1")])
    assert found(connection, experiment_ids=("1", "99")) == ["b"]
    assert found(connection, experiment_ids=("99",)) == []
    assert found(connection, experiment_ids=()) == []
    with pytest.raises(SearchError):
        found(connection, experiment_ids=(), filter="nope")


def test_orders_put_nan_behind_numbers_and_missing_last(connection: Connection) -> None:
    values = {"nan": math.nan, "inf": math.inf, "ninf": -math.inf, "one": 1.0}
    store(connection, [Run(run_id=name, metrics={"m": Metric(v)}) for name, v in values.items()])
    store(connection, [Run(run_id="absent")])
    assert found(connection, order_by=["metrics.m"]) == ["ninf", "one", "inf", "nan", "absent"]
    assert found(connection, order_by=["metrics.m DESC"]) == ["inf", "one", "ninf", "nan", "absent"]


@pytest.mark.parametrize("order_by", ["metrics.m", "metrics.m DESC", "params.p", "end_time DESC"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_go_on_across_numbers_nan_and_what_is_missing(
    connection: Connection, order_by: str, size: int
) -> None:
    numbers = [1.0, math.inf, 1.0, math.nan, math.nan]
    measured = [Run(run_id=f"m{n}", metrics={"m": Metric(v)}) for n, v in enumerate(numbers)]
    named = [Run(run_id=f"p{n}", params={"p": "same"}, end_time_ms=n // 2) for n in range(3)]
    store(connection, [*measured, *named])
    whole = found(connection, order_by=[order_by])
    assert len(whole) == 8
    joined: list[str] = []
    token: str | None = None
    for _ in whole:
        wanted = RunSearch(("0",), order_by=(order_by,), max_results=size, page_token=token)
        page = search_runs(connection, wanted)
        joined += run_ids(page.documents)
        token = page.next_page_token
        if token is None:
            break
    assert joined == whole


def test_nan_differs_from_all_numbers_and_infinity_is_the_largest_double(
    connection: Connection,
) -> None:
    values = {"nan": math.nan, "inf": math.inf, "one": 1.0}
    store(connection, [Run(run_id=name, metrics={"m": Metric(v)}) for name, v in values.items()])
    for text, names in {
        "metrics.m != 1": ["inf", "nan"],
        "metrics.m = 0": [],
        "metrics.m > 1": ["inf"],
        "metrics.m >= 1.7976931348623157e308": ["inf"],
        "metrics.m < 1e400": ["inf", "one"],
        "metrics.m != 1e400": ["inf", "nan", "one"],
    }.items():
        assert found(connection, filter=text, order_by=["run_id"]) == names, text


def test_ties_go_to_the_newest_and_then_the_first_id(connection: Connection) -> None:
    store(connection, [Run(run_id=i, start_time_ms=t) for i, t in [("b", 1), ("a", 1), ("c", 2)]])
    assert found(connection) == ["c", "a", "b"]
    assert found(connection, order_by=["status"]) == ["c", "a", "b"]
    assert found(connection, order_by=["start_time"]) == ["a", "b", "c"]


def test_params_sort_as_strings(connection: Connection) -> None:
    store(connection, [Run(run_id=v, params={"p": v}) for v in ("9", "10", "")])
    assert found(connection, order_by=["params.p ASC"]) == ["", "10", "9"]


def test_visibility_is_part_of_the_query(connection: Connection) -> None:
    store(connection, [Run(run_id=str(n), user_id="ab"[n % 2]) for n in range(6)])
    mine = Predicate("t.user_id = ?", ("b",))
    first = search_runs(connection, RunSearch(("0",), max_results=2), visible=mine)
    assert run_ids(first.documents) == ["1", "3"]
    rest = RunSearch(("0",), max_results=2, page_token=first.next_page_token)
    second = search_runs(connection, rest, visible=mine)
    assert (run_ids(second.documents), second.next_page_token) == (["5"], None)


def test_a_token_belongs_to_its_search(connection: Connection) -> None:
    store(connection, [Run(run_id="a"), Run(run_id="b")])
    token = search_runs(connection, RunSearch(("0",), max_results=1)).next_page_token
    for other in (
        RunSearch(("0", "1"), page_token=token),
        RunSearch(("0",), view="all", page_token=token),
        RunSearch(("0",), filter="status = 'FINISHED'", page_token=token),
        RunSearch(("0",), order_by=("run_id",), page_token=token),
    ):
        with pytest.raises(PageTokenInvalid):
            search_runs(connection, other)


def test_documents_by_id(connection: Connection) -> None:
    store(connection, [Run(run_id="a"), Run(run_id="b", lifecycle="deleted")])
    documents = find_documents(connection, ["b", "nope", "a"])
    assert sorted(documents) == ["a", "b"]
    assert run_ids([documents["b"]]) == ["b"]
    assert find_documents(connection, []) == {}
