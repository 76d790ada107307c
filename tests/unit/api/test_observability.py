"""/metrics and /api/v1/health: what they tell while the server starts, serves and is in trouble."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from harness.server import running_muniment
from muniment_auth.principal import local_principal
from muniment_schemas.ids import Offset
from muniment_services import bootstrap
from muniment_services.api.app import ROUTES
from muniment_services.api.callers import LocalCallers
from muniment_services.api.gateway import App, Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.api.observability import MEMORY_S_MAX
from muniment_services.api.routes import RouteTable
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.log.base import TopicPartition
from muniment_services.metrics import METHODS, NAMES, OTHER, UNKNOWN, Metrics
from muniment_services.startup import CATCHING_UP, SERVING
from muniment_services.state import Stopped

AT = TopicPartition("runs", 0)
SCRAPE_S_MAX = 5.0


async def no_fallback(scope: Any, _: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def gateway(services: Services | None, metrics: Metrics | None = None) -> Gateway:
    made = Gateway(
        RouteTable(ROUTES),
        HostCheck(()),
        LocalCallers(local_principal("tester")),
        cast(App, no_fallback),
        metrics=metrics,
    )
    made.services = services
    made.startup.enter(CATCHING_UP if services is None else SERVING)
    return made


async def ask(door: Gateway, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of the answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def take(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost:5000")]
    scope = {"type": "http", "method": method, "path": path, "query_string": b""}
    await door(scope | {"headers": headers}, receive, take)
    return sent[0]["status"], sent[1]["body"]


def families(text: bytes) -> dict[str, Metric]:
    """Families by the names under which they are exposed."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        found[family.name + ("_total" if family.type == "counter" else "")] = family
    return found


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    """The one sample with these labels among others."""
    (sample,) = (s for s in found[name].samples if labels.items() <= s.labels.items())
    return float(sample.value)


def run(folder: Path, test: Callable[[Services, Gateway], Awaitable[None]]) -> None:
    async def main() -> None:
        metrics = Metrics()
        async with bootstrap.services(Settings(data_dir=folder), metrics=metrics) as services:
            await test(services, gateway(services, metrics))

    asyncio.run(main())


def test_while_it_starts_metrics_are_told_and_health_is_red() -> None:
    async def main() -> None:
        door = gateway(None)
        status, text = await ask(door, "/metrics")
        assert status == 200
        found = families(text)
        assert NAMES.keys() <= found.keys()
        assert value(found, "muniment_ready") == value(found, "muniment_healthy") == 0
        status, body = await ask(door, "/api/v1/health")
        health = json.loads(body)
        assert (status, health["status"], health["phase"]) == (503, "red", CATCHING_UP)

    asyncio.run(main())


def _no_fold(services: Services) -> None:
    services.fold.failure = "the log has lost events"


def _no_projections(services: Services) -> None:
    services.runner.failure = "disk full"


def _damaged(services: Services) -> None:
    services.runner.damage = "the projections' file is damaged"


def _quarantined(services: Services) -> None:
    stopped = Stopped(AT, Offset(3), "RunCreated", "unknown version", held=2)
    services.fold.state.quarantine[("run", "r")] = stopped


def _stale(services: Services) -> None:
    services.fold.stale_since_ms = 1_700_000_000_000


@pytest.mark.parametrize(
    ("harm", "check", "says", "is_ready"),
    [
        (_no_fold, "log", "lost events", 0),
        (_no_projections, "projections", "disk full", 0),
        (_damaged, "projections", "damaged", 0),
        (_quarantined, "quarantine", "3 records of 1 histories", 1),
        (_stale, "freshness", "since 2023-11-14T22:13:20", 1),
    ],
)
def test_each_trouble_makes_its_own_check_red(
    tmp_path: Path, harm: Callable[[Services], None], check: str, says: str, is_ready: int
) -> None:
    async def test(services: Services, door: Gateway) -> None:
        assert (await ask(door, "/api/v1/health"))[0] == 200
        harm(services)
        status, body = await ask(door, "/api/v1/health")
        health = json.loads(body)
        red = {c["name"]: c["message"] for c in health["checks"] if c["status"] == "red"}
        assert (status, health["status"], list(red)) == (503, "red", [check])
        assert says in red[check]
        found = families((await ask(door, "/metrics"))[1])
        assert value(found, "muniment_healthy") == 0
        assert value(found, "muniment_ready") == is_ready
        assert ((await ask(door, "/readyz"))[0] == 200) == bool(is_ready)
        assert value(found, "muniment_stale") == (check == "freshness")
        assert value(found, "muniment_quarantined_records") == 3 * (check == "quarantine")

    run(tmp_path, test)


def test_lag_is_what_the_log_has_and_we_do_not(tmp_path: Path) -> None:
    async def test(services: Services, door: Gateway) -> None:
        await services.fold.caught_up()
        await services.runner.fresh()
        found = families((await ask(door, "/metrics"))[1])
        assert {s.value for s in found["muniment_fold_lag_events"].samples} == {0}
        ends = dict(services.fold.ends)
        services.fold.ends = {**ends, AT: Offset(ends[AT] + 7)}
        found = families((await ask(door, "/metrics"))[1])
        assert value(found, "muniment_fold_lag_events", projection="state") == 7
        assert value(found, "muniment_fold_lag_events", projection="runs") == 7
        assert 0 <= value(found, "muniment_fold_lag_seconds", projection="state") < SCRAPE_S_MAX
        names = {s.labels["projection"] for s in found["muniment_fold_lag_events"].samples}
        assert names == {"state", *(p.name for p in bootstrap.projections())}

    run(tmp_path, test)


def test_a_scrape_does_not_wait_for_readers(tmp_path: Path) -> None:
    async def test(services: Services, door: Gateway) -> None:
        held = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_: Any) -> None:
            asyncio.run_coroutine_threadsafe(held.wait(), loop).result()

        readers = [asyncio.create_task(services.runner.read(hold)) for _ in range(8)]
        await asyncio.sleep(0)  # All of them are asked for.
        began = loop.time()
        status, text = await ask(door, "/metrics")
        took_s = loop.time() - began
        held.set()
        await asyncio.gather(*readers)
        assert (status, MEMORY_S_MAX <= took_s < MEMORY_S_MAX + 2) == (200, True)
        assert families(text)["muniment_projections_memory_bytes"].samples == []

    run(tmp_path, test)


def call(url: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(url + path, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SCRAPE_S_MAX) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_running_server_tells_everything_under_bounded_labels(tmp_path: Path) -> None:
    with running_muniment(tmp_path / "data") as server:
        assert call(server.url, "/api/v1/health")[0] == 200
        for number in range(30):
            assert call(server.url, f"/nothing/{number}")[0] == 404
            assert call(server.url, f"/{number}", f"VERB{number}")[0] in (400, 404)
            assert call(server.url, f"/api/2.0/mlflow/runs/get?run_id={number}")[0] == 404
            assert call(server.url, f"/api/2.0/mlflow/logged-models/m-{number}")[0] == 404
        status, text = call(server.url, "/metrics")
    assert status == 200
    found = families(text)
    assert NAMES.keys() <= found.keys()
    assert "process_resident_memory_bytes" in found
    absent = {name for name in NAMES if not found[name].samples}
    # Nobody has made a snapshot, and there are no witnesses.
    assert absent <= {"muniment_snapshot_age_seconds", "muniment_witness_cosigning"}
    assert {name for name, family in found.items() if name.startswith("muniment_")} == NAMES.keys()
    samples = [s for family in found.values() for s in family.samples]
    assert {s.labels["route"] for s in samples if "route" in s.labels} <= {
        UNKNOWN,
        *(route.path for route in ROUTES),
    }
    assert {s.labels["method"] for s in samples if "method" in s.labels} <= {*METHODS, OTHER}
    template = "/api/2.0/mlflow/logged-models/{model_id}"
    assert value(found, "muniment_http_requests_total", route=template, status="404") == 30
    allowed = {"method", "route", "status", "le", "reason", "topic", "partition", "projection"}
    allowed |= {"outcome", "version", "log", "witness"}
    assert {label for s in samples for label in s.labels} <= allowed
    assert value(found, "muniment_ready") == value(found, "muniment_healthy") == 1
