"""The metrics projection: points as they were logged, read as a set in MLflow's order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from muniment_projections.base import Connection, Folded
from muniment_projections.metrics.apply import MetricsProjection
from muniment_projections.metrics.reader import (
    ModelPoint,
    Point,
    history,
    history_bulk,
    latest_model_metrics,
    sample,
    wire_value,
)
from muniment_projections.search.errors import PageTokenInvalid
from muniment_schemas.columns import pack
from muniment_schemas.events import BatchLogged, MetricContext
from unit.projections.runs.samples import envelope

Row = tuple[str, float, int, int]
"""Key, value, timestamp, step."""


@pytest.fixture
def connection() -> Iterator[Connection]:
    with empty() as opened:
        yield opened


def empty() -> Connection:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    MetricsProjection().create(connection)
    return connection


def logged(
    run_id: str, rows: Sequence[Row], contexts: Sequence[MetricContext | None] = ()
) -> Folded:
    packed = pack(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        contexts,
    )
    event = BatchLogged(envelope=envelope(run_id), params={}, tags={}, metrics=packed)
    return Folded("runs", 0, 0, event, None, None)


def log(connection: Connection, *batch: Folded) -> None:
    MetricsProjection().apply(connection, batch)


def values(connection: Connection, key: str = "m") -> list[tuple[int, int, str]]:
    points = history(connection, "r", key).points
    return [(p.timestamp_ms, p.step, repr(p.value)) for p in points]


def test_points_of_many_events_land_on_their_runs_and_keys(connection: Connection) -> None:
    log(
        connection,
        logged("r", [("m", 1.5, 10, 0), ("n", 2.5, 10, 1)]),
        logged("s", [("n", 3.5, 11, -2), ("m", 4.5, 12, 3)]),
        logged("empty", []),
    )
    rows = connection.execute("FROM points ORDER BY value").fetchall()
    assert rows == [
        ("r", "m", 0, 10, 1.5),
        ("r", "n", 1, 10, 2.5),
        ("s", "n", -2, 11, 3.5),
        ("s", "m", 3, 12, 4.5),
    ]


def test_void_events_and_batches_without_metrics_add_nothing(connection: Connection) -> None:
    late = logged("r", [("m", 1.0, 0, 0)])
    none = BatchLogged(envelope=envelope("r"), params={"a": "1"}, tags={})
    log(
        connection,
        Folded("runs", 0, 0, late.event, "deleted", None),
        Folded("runs", 0, 1, none, None, None),
    )
    assert connection.execute("SELECT count(*) FROM points").fetchone() == (0,)


def test_values_are_stored_bit_for_bit(connection: Connection) -> None:
    stored = [math.inf, -math.inf, 5e-324, -0.0, 1.7976931348623157e308]
    log(connection, logged("r", [("m", v, 0, step) for step, v in enumerate(stored)]))
    assert [p.value for p in history(connection, "r", "m").points] == stored
    assert math.copysign(1, history(connection, "r", "m").points[3].value) == -1


def test_wire_values_are_finite_or_nan() -> None:
    assert wire_value(math.inf) == 1.7976931348623157e308
    assert wire_value(-math.inf) == -1.7976931348623157e308
    assert math.isnan(wire_value(math.nan))
    assert wire_value(-0.5) == -0.5


def test_a_history_is_a_set(connection: Connection) -> None:
    twice = [("m", math.nan, 0, 0), ("m", 0.0, 0, 0), ("m", -0.0, 0, 0), ("m", 1.0, 0, 0)]
    log(connection, logged("r", twice))
    log(connection, logged("r", twice))
    shown = [(time, step, value.lstrip("-")) for time, step, value in values(connection)]
    assert shown == [(0, 0, "0.0"), (0, 0, "nan"), (0, 0, "1.0")]


def test_a_history_is_ordered_by_time_step_value_with_nan_as_zero(connection: Connection) -> None:
    points = [(3.0, 2, 0), (1.0, 1, 9), (math.nan, 1, 1), (-1.0, 1, 1), (1.0, 1, 1), (0.5, 0, 5)]
    log(connection, logged("r", [("m", *point) for point in points]))
    assert values(connection) == [
        (0, 5, "0.5"),
        (1, 1, "-1.0"),
        (1, 1, "nan"),
        (1, 1, "1.0"),
        (1, 9, "1.0"),
        (2, 0, "3.0"),
    ]


def test_unknown_runs_and_keys_have_no_points(connection: Connection) -> None:
    log(connection, logged("r", [("m", 1.0, 0, 0)]))
    assert history(connection, "r", "x").points == []
    assert history(connection, "x", "m").points == []
    assert history_bulk(connection, [], "m", 10) == []


measured = st.tuples(
    st.just("m"),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0]),
    st.integers(0, 2),
    st.integers(-1, 3),
)


@settings(max_examples=examples(60))
@given(st.lists(measured, max_size=25), st.integers(1, 4))
def test_pages_of_a_history_join_to_the_whole(rows: list[Row], size: int) -> None:
    with empty() as connection:
        log(connection, logged("r", rows))
        whole = history(connection, "r", "m").points
        distinct = {(t, s, repr(v)) for _, v, t, s in rows}
        assert {(p.timestamp_ms, p.step, repr(p.value)) for p in whole} == distinct
        assert len(whole) == len(distinct)
        joined: list[Point] = []
        token: str | None = None
        for _ in range(len(whole) + 1):
            page = history(connection, "r", "m", size, token)
            joined += page.points
            token = page.next_page_token
            if token is None:
                break
        assert repr(joined) == repr(whole)


def test_a_historys_token_belongs_to_its_run_and_key(connection: Connection) -> None:
    log(connection, logged("r", [("m", 1.0, 0, 0), ("m", 2.0, 1, 1)]))
    token = history(connection, "r", "m", 1).next_page_token
    with pytest.raises(PageTokenInvalid):
        history(connection, "r", "n", 1, token)


def test_bulk_orders_by_run_first_and_cuts(connection: Connection) -> None:
    log(connection, logged("b", [("m", 1.0, 0, 0)]), logged("a", [("m", 2.0, 5, 0)] * 2))
    log(connection, logged("a", [("m", 3.0, 4, 9)]))
    points = history_bulk(connection, ["b", "a"], "m", 10)
    assert [(p.run_id, p.value) for p in points] == [("a", 3.0), ("a", 2.0), ("b", 1.0)]
    assert len(history_bulk(connection, ["b", "a"], "m", 2)) == 2


def sampled_indices(total: int, most: int) -> list[int]:
    """Upstream's rule: the first of each of `most` even buckets, the last of all in the last one's
    place."""
    if total <= most:
        return list(range(total))
    size, larger = divmod(total, most)
    starts = [b * size + min(b, larger) for b in range(most)]
    return [*starts[:-1], total - 1]


@settings(max_examples=examples(80))
@given(st.integers(0, 40), st.integers(1, 12))
def test_a_sample_is_even_and_keeps_both_ends(total: int, most: int) -> None:
    with empty() as connection:
        log(connection, logged("r", [("m", 1.0, 100 - step, step) for step in range(total)]))
        steps = [p.step for p in sample(connection, ["r"], "m", most)]
        assert steps == sampled_indices(total, most)


def test_samples_are_per_run_in_the_order_asked_and_within_the_interval(
    connection: Connection,
) -> None:
    log(connection, logged("a", [("m", float(s), 0, s) for s in range(10)]))
    log(connection, logged("b", [("m", math.nan, 0, 4), ("m", 0.0, 0, 4), ("n", 1.0, 0, 5)]))
    points = sample(connection, ["b", "none", "a"], "m", 3, 2, 8)
    assert [(p.run_id, p.step) for p in points] == [
        ("b", 4),
        ("b", 4),
        ("a", 2),
        ("a", 5),
        ("a", 8),
    ]
    assert [p.step for p in sample(connection, ["a"], "m", 3, 2, None)] == [0, 4, 9]
    assert [p.step for p in sample(connection, ["a"], "m", 0)] == [9]


def test_points_on_models_land_on_both(connection: Connection) -> None:
    model = MetricContext(model_id="m-1", dataset_name="d", dataset_digest="1")
    bare = MetricContext(model_id="m-2")
    dataset_only = MetricContext(dataset_name="d")
    rows = [("auc", 0.5, 1, 0), ("auc", 0.6, 2, 0), ("auc", 0.7, 3, 0), ("loss", 0.1, 4, 1)]
    log(
        connection,
        logged("plain", [("auc", 9.0, 0, 0)]),
        logged("r", rows, [model, None, bare, dataset_only]),
    )
    assert connection.execute("SELECT count(*) FROM points").fetchone() == (5,)
    assert connection.execute("FROM model_points ORDER BY value").fetchall() == [
        ("m-1", "r", "auc", 0, 1, 0.5, "d", "1"),
        ("m-2", "r", "auc", 0, 3, 0.7, None, None),
    ]


def test_a_models_latest_points_by_key_and_dataset(connection: Connection) -> None:
    train = MetricContext(model_id="m-1", dataset_name="train", dataset_digest="1")
    test = MetricContext(model_id="m-1", dataset_name="test", dataset_digest="2")
    bare = MetricContext(model_id="m-1")
    rows = [
        ("a", 1.0, 5, 0),
        ("a", 2.0, 5, 1),
        ("a", 3.0, 4, 9),
        ("a", 4.0, 1, 1),
        ("b", 5.0, 1, 1),
    ]
    log(connection, logged("r", rows, [train, train, train, test, bare]))
    assert latest_model_metrics(connection, ["m-1", "m-9"]) == {
        "m-1": [
            ModelPoint("a", "r", 1, 1, 4.0, "test", "2"),
            ModelPoint("a", "r", 5, 1, 2.0, "train", "1"),
            ModelPoint("b", "r", 1, 1, 5.0, None, None),
        ]
    }
