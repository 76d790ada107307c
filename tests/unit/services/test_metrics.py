"""What is counted: requests by template, appends and their failures, folds, and lag in time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from muniment_projections.base import Folded, Quarantine
from muniment_schemas.envelope import Actor
from muniment_services import bootstrap
from muniment_services.api.observability import lag_seconds
from muniment_services.config import Settings
from muniment_services.domain.errors import AlreadyExists
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.log.base import (
    RECORD_BYTES_MAX,
    LogBackpressure,
    LogUnavailable,
    RecordTooLarge,
)
from muniment_services.metrics import METHODS, NAMES, REQUEST_BUCKETS_S, Durations, Metrics
from muniment_services.write import Caller

Labels = tuple[tuple[str, str], ...]


def told(metrics: Metrics) -> dict[str, dict[Labels, float]]:
    """Every sample, by name and sorted labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in metrics.collect():
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def request(metrics: Metrics, method: str, route: str | None, status: int) -> None:
    watched = metrics.began()
    if route is not None:
        watched.route = route
    watched.status = status
    metrics.ended(watched, method)


def key(**labels: str) -> Labels:
    return tuple(sorted(labels.items()))


def item(void: str | None = None, quarantine: Quarantine | None = None) -> Folded:
    return Folded("runs", 0, 0, None, void, None, quarantine)  # type: ignore[arg-type]


def test_requests_are_counted_by_method_template_and_status() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        request(metrics, "GET", "/runs/{id}", status)
    assert told(metrics)["muniment_http_requests_total"] == {
        key(method="GET", route="/runs/{id}", status="200"): 2,
        key(method="GET", route="/runs/{id}", status="404"): 1,
    }
    counts = told(metrics)["muniment_http_request_seconds_count"]
    assert counts == {key(route="/runs/{id}"): 3}


def test_a_client_cannot_make_time_series() -> None:
    metrics = Metrics()
    for number in range(100):
        request(metrics, f"METHOD{number}", None, 404)
    for method in METHODS:
        request(metrics, method, None, 404)
    found = told(metrics)["muniment_http_requests_total"]
    assert len(found) == 1 + len(METHODS)
    assert found[key(method="other", route="unknown", status="404")] == 100


def test_who_leaves_is_counted_and_no_longer_in_progress() -> None:
    metrics = Metrics()
    watched = metrics.began()
    assert told(metrics)["muniment_http_requests_in_progress"] == {(): 1}
    metrics.ended(watched, "POST")
    assert told(metrics)["muniment_http_requests_in_progress"] == {(): 0}
    left = key(method="POST", route="unknown", status="499")
    assert told(metrics)["muniment_http_requests_total"] == {left: 1}


def test_buckets_hold_what_is_not_longer_than_their_limit() -> None:
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        durations.observe(seconds)
    buckets, total_s = durations.told()
    assert buckets == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]
    assert total_s == pytest.approx(8.65)
    assert list(REQUEST_BUCKETS_S) == sorted(REQUEST_BUCKETS_S)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LogUnavailable("gone"), "unavailable"),
        (LogBackpressure("full"), "backpressure"),
        (RecordTooLarge(RECORD_BYTES_MAX + 1), "too_large"),
        (None, "unavailable"),
    ],
)
def test_a_failed_append_is_counted_by_its_reason(error: Exception | None, reason: str) -> None:
    metrics = Metrics()
    metrics.append_failed(error)
    failures = told(metrics)["muniment_log_append_failures_total"]
    assert {labels for labels, count in failures.items() if count} == {key(reason=reason)}


def test_folds_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics()
    held = item("it is in quarantine", Quarantine("x", held=True))
    metrics.folded([item(), item(), item("the name is taken"), held], 1, 0)
    assert told(metrics)["muniment_fold_events_total"] == {
        key(outcome="applied"): 2,
        key(outcome="void"): 1,
        key(outcome="quarantined"): 1,
    }


def test_projections_are_as_old_as_the_newest_record_that_is_written() -> None:
    metrics = Metrics(started_ms=100)
    metrics.folded([item(), item()], 1_000, 0)
    metrics.folded([item()], 2_000, 0)
    assert metrics.state_ms() == 2_000
    assert [metrics.projections_ms(written) for written in range(4)] == [100, 100, 1_000, 2_000]
    metrics.folded([item()], 3_000, 3)
    assert [metrics.projections_ms(written) for written in (3, 4)] == [2_000, 3_000]


def test_an_event_after_a_quiet_night_is_no_nights_lag() -> None:
    metrics = Metrics(started_ms=0)
    metrics.folded([item()], 1_000, 0)
    metrics.level(9_000, 1)
    assert metrics.state_ms() == metrics.projections_ms(1) == 9_000
    metrics.folded([item()], 9_500, 1)
    assert metrics.projections_ms(1) == 9_000
    metrics.level(12_000, 1)
    assert metrics.projections_ms(1) == 9_000, "level in memory, and one event is not written"


def test_lag_in_time_is_nothing_when_nothing_is_behind() -> None:
    assert lag_seconds(0, 0, 5_000) == 0
    assert lag_seconds(1, 2_000, 5_000) == 3
    assert lag_seconds(1, 7_000, 5_000) == 0, "a clock of another machine is ahead"


def test_what_is_submitted_is_appended_and_folded(tmp_path: Path) -> None:
    metrics = Metrics()

    async def main() -> tuple[Mapping[str, Mapping[Labels, float]], int]:
        async with bootstrap.services(Settings(data_dir=tmp_path), metrics=metrics) as services:
            before = told(metrics)
            tries = [
                services.writer.submit(
                    Caller(
                        Actor(principal_id="t", auth_method="local"), os.urandom(4).hex(), "default"
                    ),
                    CreateExperiment(
                        name="same", artifact_location=None, artifact_root="mlflow-artifacts:"
                    ),
                    lambda _: b"",
                )
                for _ in range(5)
            ]
            results = await asyncio.gather(*tries, return_exceptions=True)
            lost = sum(isinstance(result, AlreadyExists) for result in results)
            return before, lost

    before, lost = asyncio.run(main())
    after = told(metrics)
    assert lost == 4
    appended = [each["muniment_log_append_seconds_count"][()] for each in (before, after)]
    outcomes = [each["muniment_fold_events_total"] for each in (before, after)]
    applied, void = ([each[key(outcome=o)] for each in outcomes] for o in ("applied", "void"))
    assert applied[1] == applied[0] + 1
    assert appended[0] == applied[0] > 0, "what a fresh log begins with"
    assert appended[1] - appended[0] == 1 + void[1] - void[0]


def test_every_name_has_a_help_text_and_our_prefix() -> None:
    assert all(name.startswith("muniment_") for name in NAMES)
    assert all(text.endswith((".", "labels.")) and len(text) > 20 for text in NAMES.values())
