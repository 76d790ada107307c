"""What this process counts of itself, and the names under which all of it is told to Prometheus.

Made once per process. Counting happens on the event loop, in plain numbers and without locks: a
request costs about a microsecond. `collect` copies them and may run in any thread. What is not
counted but can be asked for (lag, sizes, health) is in `api/observability.py`.

Labels take values from sets that we know: a client cannot make new time series.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from muniment_projections.base import Folded
from muniment_services.clock import now_ms
from muniment_services.log.base import LogBackpressure, RecordTooLarge
from muniment_services.release import release

NAMES: Mapping[str, str] = {
    "muniment_http_requests_total": "Requests answered, by method, route template and status.",
    "muniment_http_request_seconds": "Time from a request's arrival to the end of its answer.",
    "muniment_http_requests_in_progress": "Requests that are being answered now.",
    "muniment_log_append_seconds": "Time from an append to its being durable in the log.",
    "muniment_log_append_failures_total": "Appends that the log did not take, by reason.",
    "muniment_log_in_flight_bytes": "Bytes appended and not yet durable.",
    "muniment_log_in_flight_records": "Records appended and not yet durable.",
    "muniment_log_producer_restarts_total": "Times that the Kafka producer had to be replaced.",
    "muniment_log_end_offset": "Where a topic-partition ended when the log was last asked.",
    "muniment_fold_next_offset": "Offset of the next record to be folded into memory.",
    "muniment_fold_lag_events": "Events of the log that are not in memory or a projection yet.",
    "muniment_fold_lag_seconds": "How long memory or a projection is behind; 0: not at all.",
    "muniment_fold_events_total": "Events folded since the start, by outcome.",
    "muniment_trail_calls_total": "Calls that are in the trail, as calls of their own.",
    "muniment_trail_lost_total": "Calls answered that are not in the trail; 0 in strict mode.",
    "muniment_quarantined_records": "Records that this release cannot fold, and those behind them.",
    "muniment_ready": "1 when /readyz answers 200.",
    "muniment_healthy": "1 when /api/v1/health answers 200.",
    "muniment_stale": "1 while the log cannot be asked what is new.",
    "muniment_proof_signing": "1 while the heads of the log are signed; absent: proofs are off.",
    "muniment_proof_unsigned_events": "Events in the trees that no signed head covers yet.",
    "muniment_witness_cosigning": "1 while a witness cosigns the heads of the log, by witness.",
    "muniment_projections_memory_bytes": "Memory that DuckDB holds for the projections.",
    "muniment_projections_file_bytes": "Size of the projections' file and its write-ahead log.",
    "muniment_snapshot_age_seconds": "Time since the newest known snapshot; absent: there is none.",
    "muniment_build_info": "1; the release and the kind of log are in the labels.",
}
"""Every metric of ours with its help text."""

TRAIL_CALLS = "muniment_trail_calls_total"
TRAIL_LOST = "muniment_trail_lost_total"

REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
APPEND_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"
"""The `method` of a request whose method is none of METHODS."""

UNKNOWN = "unknown"
"""The `route` of a request that has none, or was refused before it was looked for."""

UNANSWERED = 499
"""The `status` of a request whose client went away first. Source: nginx."""

APPLIED, VOID, QUARANTINED = "applied", "void", "quarantined"

Buckets = list[tuple[str, float]]


class Durations:
    """A histogram of seconds."""

    __slots__ = ("_counts", "_limits_s", "_sum_s")

    def __init__(self, limits_s: Sequence[float]) -> None:
        """limits_s: upper limits of the buckets, rising; what is longer has a bucket of its own."""
        self._limits_s = limits_s
        self._counts = [0] * (len(limits_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._limits_s, seconds)] += 1
        self._sum_s += seconds

    def told(self) -> tuple[Buckets, float]:
        """Cumulative counts by upper limit, as Prometheus wants them, and the sum in seconds."""
        limits = (*map(str, self._limits_s), "+Inf")
        return list(zip(limits, accumulate(list(self._counts)), strict=True)), self._sum_s


class Watched:
    """A request under way. Whoever learns its route and status notes them here."""

    __slots__ = ("began_s", "route", "status")

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self.route = UNKNOWN
        self.status = UNANSWERED


class Metrics:
    """Counts of one process. log: the kind of log that it is on, for `muniment_build_info`."""

    def __init__(self, log: str = "embedded", started_ms: int | None = None) -> None:
        """started_ms: from when on the fold is followed; now, if not given."""
        self._log = log
        self._process = ProcessCollector(registry=None)
        self._in_progress = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._request_s: dict[str, Durations] = {}
        self._append_s = Durations(APPEND_BUCKETS_S)
        self._append_failures = dict.fromkeys(("unavailable", "backpressure", "too_large"), 0)
        self._outcomes = dict.fromkeys((APPLIED, VOID, QUARANTINED), 0)
        self._trail = dict.fromkeys((TRAIL_CALLS, TRAIL_LOST), 0)
        self._folded = 0
        self._state_ms = self._written_ms = now_ms() if started_ms is None else started_ms
        self._unwritten: deque[tuple[int, int]] = deque()

    def began(self) -> Watched:
        """A request has arrived. `ended` follows, whatever happens."""
        self._in_progress += 1
        return Watched()

    def ended(self, request: Watched, method: str) -> None:
        """A request is over: answered, or left by its client."""
        self._in_progress -= 1
        key = (method if method in METHODS else OTHER, request.route, request.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        durations = self._request_s.get(request.route)
        if durations is None:
            durations = self._request_s[request.route] = Durations(REQUEST_BUCKETS_S)
        durations.observe(time.perf_counter() - request.began_s)

    def appended(self, seconds: float) -> None:
        """A record became durable so long after its append."""
        self._append_s.observe(seconds)

    def append_failed(self, error: BaseException | None) -> None:
        """A record was not taken. error: why; None when the append was cancelled."""
        if isinstance(error, LogBackpressure):
            reason = "backpressure"
        elif isinstance(error, RecordTooLarge):
            reason = "too_large"
        else:
            reason = "unavailable"
        self._append_failures[reason] += 1

    def trail_recorded(self) -> None:
        """A call is in the trail."""
        self._trail[TRAIL_CALLS] += 1

    def trail_lost(self) -> None:
        """A call was answered that is not."""
        self._trail[TRAIL_LOST] += 1

    def folded(self, batch: Sequence[Folded], recorded_ms: int, written: int) -> None:
        """A batch is in memory, and the projections will get it.

        recorded_ms: time of its newest record. written: how many the projections hold of all that
        was told here.
        """
        outcomes = self._outcomes
        for item in batch:
            if item.void is None:
                outcomes[APPLIED] += 1
            elif item.quarantine is None:
                outcomes[VOID] += 1
            else:
                outcomes[QUARANTINED] += 1
        self._folded += len(batch)
        self._state_ms = max(self._state_ms, recorded_ms)
        self._forget(written)
        self._unwritten.append((self._folded, self._state_ms))

    def level(self, at_ms: int, written: int) -> None:
        """At this time, all that was in the log was in memory. written: see `folded`."""
        self._state_ms = max(self._state_ms, at_ms)
        self._forget(written)
        if not self._unwritten:
            self._written_ms = self._state_ms

    def state_ms(self) -> int:
        """As of when memory is complete: the recorded time of the newest record that was folded,
        or the last time at which nothing was left to fold, if that is later."""
        return self._state_ms

    def projections_ms(self, written: int) -> int:
        """As of when the projections are complete, as `state_ms`. written: see `folded`."""
        complete_ms = self._written_ms
        for folded, state_ms in list(self._unwritten):
            if folded > written:
                return complete_ms
            complete_ms = state_ms
        return complete_ms

    def _forget(self, written: int) -> None:
        while self._unwritten and self._unwritten[0][0] <= written:
            _, self._written_ms = self._unwritten.popleft()

    def collect(self) -> Iterable[Metric]:
        """All counts, and what prometheus_client knows of the process. Changes nothing."""
        yield from self._of_requests()
        append_s = HistogramMetricFamily(*named("muniment_log_append_seconds"), labels=())
        append_s.add_metric((), *self._append_s.told())
        yield append_s
        yield _counts("muniment_log_append_failures_total", "reason", self._append_failures)
        yield _counts("muniment_fold_events_total", "outcome", self._outcomes)
        for name, count in self._trail.items():
            yield CounterMetricFamily(*named(name), value=count)
        build = GaugeMetricFamily(*named("muniment_build_info"), labels=("version", "log"))
        build.add_metric((release(), self._log), 1)
        yield build
        yield from self._process.collect()

    def _of_requests(self) -> Iterable[Metric]:
        # `dict` copies in one step of the interpreter, so that the loop may count on meanwhile.
        requests = CounterMetricFamily(
            *named("muniment_http_requests_total"), labels=("method", "route", "status")
        )
        for (method, route, status), count in dict(self._requests).items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(*named("muniment_http_request_seconds"), labels=("route",))
        for route, durations in dict(self._request_s).items():
            seconds.add_metric((route,), *durations.told())
        yield seconds
        yield GaugeMetricFamily(
            *named("muniment_http_requests_in_progress"), value=self._in_progress
        )


def named(name: str) -> tuple[str, str]:
    """A metric's name and its help text."""
    return name, NAMES[name]


def _counts(name: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(*named(name), labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family
