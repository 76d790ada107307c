"""The fast way through the hot routes takes nothing that the careful way would read otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment_services.api.errors import ApiError
from muniment_services.api.run_data import (
    careful_batch,
    careful_metric,
    careful_pair,
    quick_batch,
    quick_metric,
    quick_pair,
)
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import INT64_MAX, INT64_MIN

Read = Callable[[bytes], object]

texts = st.text(st.characters(codec="utf-8"), max_size=8)
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
int64s = st.integers(INT64_MIN, INT64_MAX)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
optional_texts = texts | st.none()

metrics = st.fixed_dictionaries(
    {"key": keys, "value": numbers, "timestamp": int64s},
    optional={
        "step": int64s,
        "model_id": optional_texts,
        "dataset_name": optional_texts,
        "dataset_digest": optional_texts,
    },
)
pairs = st.fixed_dictionaries({"key": keys}, optional={"value": texts})
runs = st.fixed_dictionaries({"run_id": keys}, optional={"run_uuid": texts})
batch_metrics = st.builds(
    lambda metric, run: {**metric, **run},
    metrics,
    st.fixed_dictionaries({}, optional={"run_id": optional_texts}),
)
batches = st.fixed_dictionaries(
    {"run_id": keys},
    optional={
        "metrics": st.lists(batch_metrics, max_size=3),
        "params": st.lists(pairs, max_size=3),
        "tags": st.lists(pairs, max_size=3),
    },
)

# What a body can hold in the place of what belongs there.
odd = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.just(float("nan")),
    st.just(float("inf")),
    st.sampled_from(["", "1", "-2", "1.5", "nan", "1e400", "x", "\ud800"]),
    st.just([]),
    st.just({}),
)


def together(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


ROUTES = {
    "log-metric": (quick_metric, careful_metric, st.builds(together, runs, metrics)),
    "log-parameter": (quick_pair, careful_pair, st.builds(together, runs, pairs)),
    "log-batch": (quick_batch, careful_batch, batches),
}
names = st.sampled_from(sorted(ROUTES))


def outcome(read: Read, body: bytes) -> tuple[str, object]:
    """The command, whose metrics are bytes, so that NaN equals itself; or the refusal."""
    try:
        return "read", read(body)
    except (ApiError, Invalid) as error:
        return "refused", error.message


@given(names, st.data(), st.booleans())
def test_a_clean_body_goes_the_fast_way_to_the_same_command(
    name: str, data: st.DataObject, escaped: bool
) -> None:
    quick, careful, bodies = ROUTES[name]
    body = json.dumps(data.draw(bodies), ensure_ascii=escaped).encode()
    assert outcome(quick, body) == outcome(careful, body)


@given(names, st.data(), odd, st.booleans())
def test_an_odd_body_is_read_alike_or_left_to_the_careful_way(
    name: str, data: st.DataObject, value: object, inside: bool
) -> None:
    quick, careful, bodies = ROUTES[name]
    content = data.draw(bodies)
    places = [content]
    if inside:
        places += [item for part in content.values() if isinstance(part, list) for item in part]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from([*place, "runId", "datasetName", "unknown"]))] = value
    body = json.dumps(content).encode()
    quickly = outcome(quick, body)
    assert quickly in (("read", None), outcome(careful, body))


@pytest.mark.parametrize("name", sorted(ROUTES))
@given(body=st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode()))
def test_any_bytes_are_refused_as_the_clients_mistake(name: str, body: bytes) -> None:
    quick, careful, _ = ROUTES[name]
    assert quick(body) is None
    assert outcome(careful, body)[0] == "refused"


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_a_body_nested_beyond_all_depth_is_refused(name: str) -> None:
    quick, careful, _ = ROUTES[name]
    body = b"[" * 200_000
    assert quick(body) is None
    assert outcome(careful, body)[0] == "refused"
