"""Steps back of recorded times are found, whatever the batches, starts and rollbacks."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from muniment_projections.audit.apply import AuditProjection
from muniment_projections.audit.reports.extent import StepBack, steps_back
from muniment_projections.base import Folded
from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG, RUNS, Actor, Envelope

ANA = Actor(principal_id="ana", auth_method="bearer")

Times = list[tuple[str, int]]
"""Topic and recorded time, in the order of folding."""


def folded(times: Times) -> list[Folded]:
    ends: dict[str, int] = {}
    found = []
    for topic, at_ms in times:
        offset = ends[topic] = ends.get(topic, -1) + 1
        envelope = Envelope(
            event_id=f"{topic}-{offset}",
            type="RunDeleted",
            aggregate_kind="run",
            aggregate_id="1",
            actor=ANA,
            request_id="r",
            recorded_at_ms=at_ms,
        )
        found.append(Folded(topic, 0, offset, e.RunDeleted(envelope=envelope), None, None))
    return found


def expected(times: Times) -> set[StepBack]:
    """The largest step of each topic, the first of equal ones."""
    found: dict[str, StepBack] = {}
    newest: dict[str, int] = {}
    for item, (topic, at_ms) in zip(folded(times), times, strict=True):
        back = newest.get(topic, at_ms) - at_ms
        known = found.get(topic)
        if back > 0 and (known is None or back > known.back_ms):
            found[topic] = StepBack(topic, 0, item.offset, back)
        newest[topic] = max(newest.get(topic, at_ms), at_ms)
    return set(found.values())


@given(
    st.lists(st.tuples(st.sampled_from([CATALOG, RUNS]), st.integers(1, 50)), max_size=20),
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["as it is", "anew", "rolled back"]))),
)
def test_the_largest_step_of_each_topic_is_found(
    times: Times, cuts: Sequence[tuple[int, str]]
) -> None:
    connection, projection = duckdb.connect(), AuditProjection()
    projection.create(connection)
    left, steps = folded(times), list(cuts)
    while left:
        size, way = steps.pop(0) if steps else (len(left), "as it is")
        batch, left = left[:size], left[size:]
        if way == "anew":
            projection = AuditProjection()
        if way == "rolled back":
            connection.begin()
            projection.apply(connection, batch)
            connection.rollback()
        projection.apply(connection, batch)
    assert set(steps_back(connection)) == expected(times)
