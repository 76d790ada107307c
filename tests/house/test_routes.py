"""Every route names a permission, none is public by accident, everyday calls are served."""

from __future__ import annotations

import pytest

from house.sources import sources
from muniment_auth.permissions import Permission
from muniment_auth.policy import NOBODY
from muniment_auth.principal import local_principal
from muniment_auth.resources import SERVER
from muniment_services.api.app import ROUTES, build
from muniment_services.api.callers import LocalCallers
from muniment_services.api.hosts import HostCheck
from muniment_services.api.routes import RouteTable

PUBLIC = {
    "/health",
    "/healthz",
    "/readyz",
    "/version",
    "/.well-known/oauth-protected-resource",
    "/.well-known/databricks-config",
    "/login",
    "/login/callback",
    "/logout",
    "/api/3.0/mlflow/server-info",
    "/ajax-api/3.0/mlflow/server-info",
}
"""What may be answered to anyone."""

EVERYDAY = """
POST experiments/create · GET experiments/get · GET experiments/get-by-name
POST experiments/search · GET experiments/search · POST experiments/delete
POST experiments/restore · POST experiments/update · POST experiments/set-experiment-tag
POST experiments/delete-experiment-tag · POST runs/create · POST runs/update
POST runs/log-batch · POST runs/log-metric · POST runs/log-parameter · POST runs/set-tag
GET runs/get · POST runs/search · POST runs/delete · POST runs/restore
POST runs/delete-tag · GET metrics/get-history · GET metrics/get-history-bulk-interval
POST runs/log-inputs · POST runs/outputs · POST runs/log-model · GET artifacts/list
POST logged-models · GET logged-models/m-1 · PATCH logged-models/m-1
DELETE logged-models/m-1 · POST logged-models/search · PATCH logged-models/m-1/tags
DELETE logged-models/m-1/tags/k · POST logged-models/m-1/params
POST registered-models/create · GET registered-models/get · GET registered-models/search
POST model-versions/create · GET model-versions/get · GET model-versions/search
GET model-versions/get-download-uri · POST registered-models/get-latest-versions
GET registered-models/get-latest-versions · POST model-versions/transition-stage
POST registered-models/alias · GET registered-models/alias
DELETE registered-models/alias · PATCH registered-models/update
PATCH model-versions/update · POST registered-models/rename
POST registered-models/set-tag · DELETE registered-models/delete-tag
POST model-versions/set-tag · DELETE model-versions/delete-tag
DELETE registered-models/delete · DELETE model-versions/delete · PATCH traces/tr-1/tags
DELETE traces/tr-1/tags · POST traces/delete-traces · POST 3:traces · GET 3:traces/tr-1
GET 3:traces/get · GET 3:traces/batchGet · POST 3:traces/batchGetInfos
POST 3:traces/search · PATCH 3:traces/tr-1/tags · POST 3:traces/tr-1/assessments
GET 3:traces/tr-1/assessments/a-1 · PATCH 3:traces/tr-1/assessments/a-1
DELETE 3:traces/tr-1/assessments/a-1 · POST traces/link-to-run · GET 3:server-info
""".replace("\n", " · ").split(" · ")

ELSEWHERE = (
    ("GET", "/health"),
    ("GET", "/version"),
    ("POST", "/v1/traces"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a/b"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/a/b"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/a/b"),
    ("POST", "/api/2.0/mlflow-artifacts/mpu/create/a"),
    ("GET", "/get-artifact"),
    ("GET", "/model-versions/get-artifact"),
)

TABLE = RouteTable(ROUTES)
CALLS = [call.split(" ", 1) for call in EVERYDAY if call.strip()]


@pytest.mark.parametrize(("method", "path"), CALLS, ids=[" ".join(c) for c in CALLS])
@pytest.mark.parametrize("root", ["api", "ajax-api"])
def test_everyday_calls_have_a_route(root: str, method: str, path: str) -> None:
    version, _, rest = path.rpartition(":")
    full = f"/{root}/{version or '2'}.0/mlflow/{rest}"
    assert TABLE.find(method, full) is not None, full


@pytest.mark.parametrize(("method", "path"), ELSEWHERE)
def test_calls_outside_the_rest_prefix_have_a_route(method: str, path: str) -> None:
    assert TABLE.find(method, path) is not None


def test_only_what_is_meant_to_be_is_public() -> None:
    assert {route.path for route in ROUTES if route.permission is Permission.PUBLIC} == PUBLIC


def test_nobody_may_do_anything_else_without_signing_in() -> None:
    for route in ROUTES:
        allowed = NOBODY.decide(route.permission, SERVER).allowed
        assert allowed == (route.path in PUBLIC), route


def test_writes_do_not_ask_for_a_permission_to_read() -> None:
    searches = (
        "search",
        "batchGetInfos",
        "get-latest-versions",
        "metrics",
        "correlation",
        "search-datasets",
        "audit/export",
        "audit/hash",
        "audit/sql",
    )
    for route in ROUTES:
        if route.path == "/logout":
            continue  # Checks session and CSRF token itself; a form without scripts sends it.
        if route.method != "GET" and str(route.permission).endswith(":read"):
            assert route.path.endswith(searches), route


def test_every_route_is_behind_the_gateway() -> None:
    async def never() -> None:
        raise AssertionError

    gateway = build(never, HostCheck(()), LocalCallers(local_principal("t")))  # type: ignore[arg-type]
    assert gateway.table.routes == ROUTES
    assert gateway.paths_behind() == [], "FastAPI has routes that no policy covers"


def test_permissions_are_sorted_and_all_used() -> None:
    names = [permission.name for permission in Permission]
    assert names == sorted(names)
    assert {route.permission for route in ROUTES} == set(Permission)


def test_handlers_wait_for_the_log_by_way_of_the_services() -> None:
    # `Services.caught_up` knows what to do while the log cannot be asked; the fold's own does not.
    calls = [
        source.path
        for source in sources("services")
        if "/api/" in source.path and "fold.caught_up(" in source.text
    ]
    assert calls == ["services/muniment_services/api/services.py"]
