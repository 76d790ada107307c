"""What operators watch: Prometheus metrics and the health of the whole, red or green.

Neither waits for the log or for whoever writes the projections: both tell what this process knows
already, which is at most a second old (`fold.WATCH_S`). `/health` and `/readyz` are for probes and
are in `server.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import duckdb
import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from muniment_auth.permissions import Permission as P
from muniment_projections.base import Connection
from muniment_projections.runner import ProjectionsUnavailable
from muniment_projections.store import wal_of
from muniment_schemas.ids import Offset
from muniment_services.api import wire
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.api.services import Services
from muniment_services.clock import now_ms
from muniment_services.domain.commands import AggregateKey
from muniment_services.fold import FOLDED_TOPICS, Fold
from muniment_services.log.base import TopicPartition
from muniment_services.metrics import named
from muniment_services.proof.cosigner import states
from muniment_services.state import Stopped

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MEMORY_S_MAX = 1.0
"""A scrape waits at most so long for a free reader of the projections."""

MEMORY = "SELECT coalesce(sum(memory_usage_bytes), 0)::BIGINT FROM duckdb_memory()"

STATE = "state"
"""The `projection` of lag metrics that stands for what is in memory."""


class Check(msgspec.Struct, frozen=True):
    """One thing that can be wrong. message: what is, and what to do about it."""

    name: str
    status: str
    message: str


def checks(services: Services) -> tuple[Check, ...]:
    """All that can be wrong with a running server, whether or not it is."""
    fold, runner = services.fold, services.runner
    stopped = fold.state.quarantine
    return (
        _check("log", fold.failure, "every event that was read is folded"),
        _check("projections", runner.failure or runner.damage, "they can be written and read"),
        _check(
            "quarantine",
            f"{_records(stopped)} records of {len(stopped)} histories cannot be folded by this "
            "release; `muniment quarantine list` names them"
            if stopped
            else None,
            "it is empty",
        ),
        _check("proof", _unproved(services), "the heads of the log are signed"),
        _check("witnesses", _unwitnessed(services), "enough witnesses cosign the heads of the log"),
        _check("freshness", _stale(fold), "the log can be asked what is new"),
    )


def _check(name: str, problem: str | None, otherwise: str) -> Check:
    return Check(name, "green" if problem is None else "red", problem or otherwise)


def _unproved(services: Services) -> str | None:
    return None if services.prover is None else services.prover.problem


def _unwitnessed(services: Services) -> str | None:
    return None if services.cosigner is None else services.cosigner.problem


def _stale(fold: Fold) -> str | None:
    if fold.stale_since_ms is None:
        return None
    since = datetime.fromtimestamp(fold.stale_since_ms / 1000, UTC).isoformat(timespec="seconds")
    return f"the log cannot be asked what is new since {since}; answers may be older than that"


def _records(stopped: Mapping[AggregateKey, Stopped]) -> int:
    return sum(1 + history.held for history in stopped.values())


async def health(call: Call) -> Answer:
    """GET /api/v1/health: 200 when all checks are green, else 503. Not for probes: a restart mends
    hardly anything that is told here."""
    if call.started is None:
        return _starting(call)
    found = checks(call.started)
    is_green = all(check.status == "green" for check in found)
    told = {"status": "green" if is_green else "red", "checks": found}
    return Answer(wire.encode(told), 200 if is_green else 503)


def _starting(call: Call) -> Answer:
    phase = call.startup.phase
    check = Check("log", "red", f"the server is {phase}")
    told = {"status": "red", "phase": phase, "checks": (check,)}
    return Answer(wire.encode(told), 503, headers=((b"retry-after", b"1"),))


async def metrics(call: Call) -> Answer:
    """GET /metrics: everything in `metrics.NAMES`, and what is known of the process.

    Made in a thread, so that requests are answered meanwhile.
    """
    memory_bytes = None if call.started is None else await _memory_bytes(call.started)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(call.metrics)
    registry.register(_Gauges(call, memory_bytes))
    text = await asyncio.to_thread(generate_latest, registry)
    return Answer(text, content_type=CONTENT_TYPE)


async def _memory_bytes(services: Services) -> int | None:
    """What DuckDB holds; None when no reader is free in time, or the file cannot be read."""
    try:
        async with asyncio.timeout(MEMORY_S_MAX):
            return await services.runner.read(_memory)
    except (TimeoutError, ProjectionsUnavailable, duckdb.Error):
        return None  # The sample is left out; what is wrong is told by `muniment_healthy`.


def _memory(connection: Connection) -> int:
    ((found,),) = connection.execute(MEMORY).fetchall()
    return int(found)


class _Gauges(Collector):
    """What can be asked for at a scrape. While the server starts most families have no sample."""

    def __init__(self, call: Call, memory_bytes: int | None) -> None:
        self._services = call.started
        self._is_serving = call.startup.is_serving
        self._metrics = call.metrics
        self._memory_bytes = memory_bytes

    def collect(self) -> Iterable[Metric]:
        """Runs beside the event loop: mappings that grow are copied, in one step, before use."""
        services = self._services
        yield from self._of_health(services)
        yield from _of_log(services)
        yield from _of_offsets(services)
        yield from self._of_lag(services)
        yield from self._of_projections(services)

    def _of_health(self, services: Services | None) -> Iterable[Metric]:
        found = {} if services is None else {c.name: c.status == "green" for c in checks(services)}
        is_ready = self._is_serving and found.get("log", False) and found.get("projections", False)
        yield _gauge("muniment_ready", is_ready)
        yield _gauge("muniment_healthy", bool(found) and all(found.values()))
        yield _gauge("muniment_stale", not found.get("freshness", True))
        prover = None if services is None else services.prover
        yield _gauge("muniment_proof_signing", None if prover is None else prover.problem is None)
        yield _gauge(
            "muniment_proof_unsigned_events", None if prover is None else prover.forest.unsigned
        )
        cosigning = GaugeMetricFamily(*named("muniment_witness_cosigning"), labels=("witness",))
        cosigner = None if services is None else services.cosigner
        for name, holds in ({} if cosigner is None else states(cosigner)).items():
            cosigning.add_metric((name,), float(holds))
        yield cosigning
        stopped = None if services is None else dict(services.fold.state.quarantine)
        yield _gauge("muniment_quarantined_records", None if stopped is None else _records(stopped))

    def _of_lag(self, services: Services | None) -> Iterable[Metric]:
        events = GaugeMetricFamily(*named("muniment_fold_lag_events"), labels=("projection",))
        seconds = GaugeMetricFamily(*named("muniment_fold_lag_seconds"), labels=("projection",))
        if services is not None:
            now = now_ms()
            for name, lag, complete_ms in self._lags(services):
                events.add_metric((name,), lag)
                seconds.add_metric((name,), lag_seconds(lag, complete_ms, now))
        yield events
        yield seconds

    def _lags(self, services: Services) -> Iterable[tuple[str, int, int]]:
        ends, runner = services.fold.ends, services.runner
        yield STATE, _behind(ends, services.fold.state.next_offsets), self._metrics.state_ms()
        checkpoints = {
            TopicPartition(topic, partition): Offset(offset)
            for (topic, partition), offset in runner.store.checkpoints.items()
        }
        lag = _behind(ends, checkpoints)
        complete_ms = self._metrics.projections_ms(runner.written)
        for name in services.projections:
            yield name, lag, complete_ms  # They are written in one transaction.

    def _of_projections(self, services: Services | None) -> Iterable[Metric]:
        yield _gauge("muniment_projections_memory_bytes", self._memory_bytes)
        yield _gauge(
            "muniment_projections_file_bytes", None if services is None else _file_bytes(services)
        )
        newest_ms = None if services is None else services.snapshotter.newest_at_ms
        age_s = None if newest_ms is None else max(0, now_ms() - newest_ms) / 1000
        yield _gauge("muniment_snapshot_age_seconds", age_s)


def lag_seconds(events: int, complete_ms: int, at_ms: int) -> float:
    """`muniment_fold_lag_seconds`: 0 when no events are behind, else the time since `complete_ms`.

    complete_ms: the recorded time of the newest record that was folded (written, for a
    projection), or the last time at which nothing was behind, whichever is later: so one event
    after a quiet night is not a night's lag. Clocks of other machines that are ahead give 0.
    """
    return max(0, at_ms - complete_ms) / 1000 if events else 0.0


def _behind(
    ends: Mapping[TopicPartition, Offset], following: Mapping[TopicPartition, Offset]
) -> int:
    folded = dict(following)
    return sum(
        max(0, end - folded.get(at, 0)) for at, end in ends.items() if at.topic in FOLDED_TOPICS
    )


def _of_log(services: Services | None) -> Iterable[Metric]:
    log = None if services is None else services.fold.log
    in_flight_bytes = None if log is None else log.in_flight_bytes
    in_flight_records = None if log is None else log.in_flight_records
    yield _gauge("muniment_log_in_flight_bytes", in_flight_bytes)
    yield _gauge("muniment_log_in_flight_records", in_flight_records)
    yield CounterMetricFamily(
        *named("muniment_log_producer_restarts_total"),
        value=0 if log is None else log.producer_restarts,
    )


def _of_offsets(services: Services | None) -> Iterable[Metric]:
    labels = ("topic", "partition")
    ends = GaugeMetricFamily(*named("muniment_log_end_offset"), labels=labels)
    following = GaugeMetricFamily(*named("muniment_fold_next_offset"), labels=labels)
    if services is not None:
        fold = services.fold
        for family, offsets in ((ends, fold.ends), (following, fold.state.next_offsets)):
            for at, offset in dict(offsets).items():
                family.add_metric((at.topic, str(at.partition)), offset)
    yield ends
    yield following


def _file_bytes(services: Services) -> int | None:
    path = services.runner.store.path
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None  # A rebuild is putting another file in its place at this moment.
    wal = wal_of(path)
    try:
        return size + wal.stat().st_size
    except FileNotFoundError:
        return size


def _gauge(name: str, value: float | None) -> Metric:
    """A gauge with one sample, or with none when the value is not known."""
    family = GaugeMetricFamily(*named(name), labels=())
    if value is not None:
        family.add_metric((), float(value))
    return family


ROUTES = (
    Route("GET", "/metrics", P.SERVER_READ, metrics),
    Route("GET", "/api/v1/health", P.SERVER_READ, health),
)
