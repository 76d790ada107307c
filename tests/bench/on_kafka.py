"""What the log on Kafka costs beside the embedded one: `python tests/bench/on_kafka.py`, one run.

Prints, each as medians of rounds that take turns:
- requests: log-metric and log-batch on the embedded log beside one broker, then three brokers;
- the wait for the fold: from a record's acknowledgement to its write's answer;
- append and fold: events and points a second through the log alone, and through CatchUp;
- replicas: server CPU per request with one, two and four of them (2 cores: cost, not throughput).

Brokers run with the server compiler (`LOAD_JAVA_OPTIONS`) on the same machine as everything else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "kafka"))

import psutil
from local_kafka import LOAD_JAVA_OPTIONS

from bench import against_mlflow as calls
from bench import load
from harness.brokers import cluster, fresh_prefix
from harness.server import Server, running_muniment
from harness.world import TestWorld
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Actor
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.run import Run
from muniment_services.domain.run_data import LogBatch
from muniment_services.domain.run_life import CreateRun
from muniment_services.log import opening
from muniment_services.log.base import EventLog, NewRecord, Record
from muniment_services.rebuild import CatchUp
from muniment_services.write import Caller, Outcome, record_of

ROUNDS = 3
METRIC_CALLS = 4_000
BATCH_CALLS = 300
FOLD_EVENTS = 60_000
FOLD_BATCHES = 3_000
POINTS = 1_000
WAIT_CALLS = 600
REPLICAS = (1, 2, 4)


def metric_latencies(url: str, connections: int, requests: int) -> load.Timing:
    api = calls.Api(url)
    experiment = api.experiment(f"bench-{time.time_ns()}")
    runs = [api.run(experiment, 1) for _ in range(connections)]
    per_connection = [
        [
            load.post(
                url, calls.API + "runs/log-metric", json.dumps(calls._metric(run, i)).encode()
            )
            for i in range(requests // connections)
        ]
        for run in runs
    ]
    return load.run(url, per_connection)


def show(name: str, values: Sequence[float], base: Sequence[float] | None, unit: str) -> None:
    line = f"  {name:34} {statistics.median(values):12,.4g} {unit}"
    if base is not None and base is not values:
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        line += f"   {statistics.median(ratios):.2f} of embedded"
        line += f" ({min(ratios):.2f} to {max(ratios):.2f})"
    print(line, flush=True)


def requests(servers: Mapping[str, Server]) -> None:
    """log-metric and log-batch on each server in turn."""
    measures: Mapping[str, tuple[str, Callable[[str], float]]] = {
        "log-metric, 1 connection": (
            "calls/s",
            lambda url: metric_latencies(url, 1, METRIC_CALLS // 8).per_second,
        ),
        "log-metric, 32 connections": (
            "calls/s",
            lambda url: metric_latencies(url, 32, METRIC_CALLS).per_second,
        ),
        "log-metric, 32 connections, p50": (
            "ms",
            lambda url: metric_latencies(url, 32, METRIC_CALLS).percentile_ms(0.5),
        ),
        "log-metric, 32 connections, p99": (
            "ms",
            lambda url: metric_latencies(url, 32, METRIC_CALLS).percentile_ms(0.99),
        ),
        "log-batch of 1,000 points": (
            "points/s",
            lambda url: calls.log_batch(url, BATCH_CALLS, 4),
        ),
    }
    for server in servers.values():  # Warm: imports at the first flush, the JIT compiler.
        metric_latencies(server.url, 32, METRIC_CALLS)
        calls.log_batch(server.url, BATCH_CALLS, 4)
    for title, (unit, measure) in measures.items():
        print(title, flush=True)
        found: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(ROUNDS):
            for name, server in servers.items():
                found[name].append(measure(server.url))
        base = next(iter(found.values()))
        for name, values in found.items():
            show(name, values, base, unit)


def caller() -> Caller:
    return Caller(
        actor=Actor(principal_id="bench", auth_method="local"),
        request_id="bench",
        workspace="default",
    )


def _id(outcome: Outcome) -> bytes:
    assert outcome.event is not None
    return outcome.event.envelope.aggregate_id.encode()


def a_batch(run_id: str, number: int, points: int) -> LogBatch:
    keys = [f"m{j % 10}" for j in range(points)]
    steps = [number * points + j // 10 for j in range(points)]
    return LogBatch(
        run_id=run_id, metrics=pack(keys, [j / 3 for j in range(points)], [7] * points, steps)
    )


async def wait_for_the_fold(settings: Settings) -> None:
    """How long a write waits after its record is durable, one at a time."""
    async with bootstrap.services(settings) as services:
        run = CreateRun(experiment_id="0", name="r", user_id="u", start_time_ms=1)
        run_id = (await services.writer.submit(caller(), run, _id)).decode()
        log = services.fold.log
        append, acknowledged = log.append, 0.0

        def timed(record: NewRecord) -> asyncio.Future[Record]:
            def note(_: asyncio.Future[Record]) -> None:
                nonlocal acknowledged
                acknowledged = time.perf_counter()

            future = append(record)
            future.add_done_callback(note)
            return future

        log.append = timed  # type: ignore[method-assign]
        waits, whole = [], []
        for number in range(WAIT_CALLS):
            began = time.perf_counter()
            await services.writer.submit(caller(), a_batch(run_id, number, 1), lambda _: b"")
            ended = time.perf_counter()
            waits.append((ended - acknowledged) * 1000)
            whole.append((ended - began) * 1000)
        print(
            f"  {settings.log:34} {statistics.median(waits):12.2f} ms of "
            f"{statistics.median(whole):.2f} ms a write, p99 {sorted(waits)[-6]:.2f} ms"
        )


async def append_and_fold(settings: Settings, events: int, points: int) -> None:
    """Events through the log alone, and from it into projections."""
    log = opening.open_log(settings)
    await log.start()
    news = await asyncio.to_thread(_events, log, events, points)
    began = time.perf_counter()
    for start in range(0, len(news), 2_000):
        await asyncio.gather(*[log.append(record) for record in news[start : start + 2_000]])
    appended = time.perf_counter() - began
    ends = await log.end_offsets()
    with tempfile.TemporaryDirectory() as folder:
        store = bootstrap.projections_store(Path(folder) / "p.duckdb", settings)
        store.belong_to(log.log_id)
        fold = CatchUp(log, bootstrap.codec(log), store)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.to_thread(fold.run, ends)
        folded, spent = time.perf_counter() - began, time.process_time() - cpu
        store.close()
    await log.close()
    kind = f"{points:,} points each" if points > 1 else "one point each"
    print(
        f"  {settings.log:9} {events:,} events, {kind}: append {len(news) / appended:,.0f} events/s"
        f" ({len(news) * points / appended:,.0f} points/s), fold {len(news) / folded:,.0f} events/s"
        f" ({len(news) * points / folded:,.0f} points/s; {len(news) * points / spent:,.0f} a CPU"
        " second)",
        flush=True,
    )


def _events(log: EventLog, events: int, points: int) -> list[NewRecord]:
    """Runs of 100 batches each, decided by the domain itself."""
    world = TestWorld()
    world.do(
        CreateExperiment(name="bench", artifact_location=None, artifact_root="mlflow-artifacts:")
    )
    codec = bootstrap.codec(log)
    run_id = ""
    for number in range(events):
        if number % 100 == 0:
            state = world.do(CreateRun(experiment_id="1", name="r", user_id="u", start_time_ms=1))
            assert isinstance(state, Run)
            run_id = state.run_id
            continue
        world.do(a_batch(run_id, number, points))
    return [record_of(event, codec, log) for event in world.events]


def replicas(bootstrap_servers: str, folder: Path) -> None:
    """Server CPU per log-metric, with so many replicas sharing the load."""
    for count in REPLICAS:
        prefix = fresh_prefix()
        with ExitStack() as stack:
            servers = [
                stack.enter_context(on_kafka(folder / f"r{count}-{i}", bootstrap_servers, prefix))
                for i in range(count)
            ]
            for server in servers:
                metric_latencies(server.url, 16, 800)
            before = [cpu_of(server) for server in servers]
            for server in servers:
                metric_latencies(server.url, 32, METRIC_CALLS // count)
            spent = sum(cpu_of(s) - b for s, b in zip(servers, before, strict=True))
            print(f"  {count} replicas {spent / METRIC_CALLS * 1e6:26,.0f} µs of CPU a call")


def cpu_of(server: Server) -> float:
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def on_kafka(folder: Path, bootstrap_servers: str, prefix: str) -> Iterator[Server]:
    arguments = ["--kafka-bootstrap", bootstrap_servers, "--kafka-prefix", prefix]
    with running_muniment(folder, extra_args=arguments) as server:
        yield server


PARTS = ("requests", "wait", "fold", "replicas")


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    chosen = parser.parse_args().parts or PARTS
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        if "requests" in chosen:
            # One cluster at a time: idle brokers cost the same two cores.
            for brokers in (1, 3):
                with cluster(
                    folder / f"b{brokers}", brokers, java_options=LOAD_JAVA_OPTIONS
                ) as made:
                    beside_the_embedded(folder / f"s{brokers}", brokers, made.bootstrap)
        one = stack.enter_context(cluster(folder / "one", 1, java_options=LOAD_JAVA_OPTIONS))
        if "wait" in chosen:
            print("wait for the fold")
            asyncio.run(wait_for_the_fold(settings(folder / "w-e")))
            asyncio.run(wait_for_the_fold(settings(folder / "w-k", one.bootstrap)))
        if "fold" in chosen:
            print("append and fold")
            for events, points in ((FOLD_EVENTS, 1), (FOLD_BATCHES, POINTS)):
                for at in (None, one.bootstrap):
                    where = settings(folder / f"f-{points}-{at is None}", at)
                    asyncio.run(append_and_fold(where, events, points))
        if "replicas" in chosen:
            print("replicas")
            replicas(one.bootstrap, folder)


def beside_the_embedded(folder: Path, brokers: int, bootstrap_servers: str) -> None:
    """The requests on a server with the embedded log and on one with Kafka, in turn."""
    folder.mkdir(parents=True)
    with (
        running_muniment(folder / "embedded") as embedded,
        on_kafka(folder / "kafka", bootstrap_servers, fresh_prefix()) as kafka,
    ):
        requests({"embedded": embedded, f"brokers: {brokers}": kafka})


def settings(folder: Path, bootstrap_servers: str | None = None) -> Settings:
    folder.mkdir(parents=True)
    if bootstrap_servers is None:
        return Settings(data_dir=folder)
    return Settings(
        data_dir=folder,
        log="kafka",
        kafka_bootstrap=tuple(bootstrap_servers.split(",")),
        kafka_prefix=fresh_prefix(),
    )


if __name__ == "__main__":
    main()
