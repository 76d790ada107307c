"""The application: all routes in one table, behind one gateway, with FastAPI to start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from muniment_services.api import (
    access,
    access_cut_off,
    access_explain,
    admin,
    artifact_views,
    artifacts,
    as_of,
    assessments,
    audit,
    audit_export,
    audit_reports,
    audit_sql,
    credentials,
    experiments,
    logged_models,
    login,
    metrics,
    model_versions,
    multipart,
    observability,
    otlp,
    privacy,
    promotion_policies,
    proof,
    quarantine,
    registered_models,
    registry_history,
    run_data,
    runs,
    server,
    snapshots,
    traces,
    traces_v2,
    transition_requests,
    workspaces,
)
from muniment_services.api.callers import Callers
from muniment_services.api.gateway import Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.api.recording import Recording
from muniment_services.api.routes import Route, RouteTable
from muniment_services.api.services import Services
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup, Stopped

ROUTES: tuple[Route, ...] = (
    *server.ROUTES,
    *observability.ROUTES,
    *admin.ROUTES,
    *access.ROUTES,
    *access_cut_off.ROUTES,
    *access_explain.ROUTES,
    *login.ROUTES,
    *credentials.ROUTES,
    *audit.ROUTES,
    *audit_export.ROUTES,
    *audit_sql.ROUTES,
    *audit_reports.ROUTES,
    *quarantine.ROUTES,
    *proof.ROUTES,
    *snapshots.ROUTES,
    *experiments.ROUTES,
    *runs.ROUTES,
    *run_data.ROUTES,
    *metrics.ROUTES,
    *logged_models.ROUTES,
    *registered_models.ROUTES,
    *model_versions.ROUTES,
    *registry_history.ROUTES,
    *as_of.ROUTES,
    *transition_requests.ROUTES,
    *workspaces.ROUTES,
    *promotion_policies.ROUTES,
    *privacy.ROUTES,
    *traces.ROUTES,
    *traces_v2.ROUTES,
    *assessments.ROUTES,
    *otlp.ROUTES,
    *artifacts.ROUTES,
    *artifact_views.ROUTES,
    *multipart.ROUTES,
)
"""Every route that is served, each with the permission that it needs."""

Lifespan = Callable[[], AbstractAsyncContextManager[Services]]


def build(
    lifespan: Lifespan,
    hosts: HostCheck,
    callers: Callers,
    startup: Startup | None = None,
    measured: Metrics | None = None,
    workspaces_on: bool = False,
    recording: Recording | None = None,
) -> Gateway:
    """The ASGI application. lifespan: starts everything, yields it, and stops it again.

    It begins to answer at once, probes and refusals first; what needs the services is answered 503
    until `lifespan` has yielded them. A start that fails is noted in `startup.failure`.
    """

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        ending = asyncio.Event()
        serving = asyncio.create_task(_serve(gateway, lifespan, ending))
        try:
            yield
        finally:
            gateway.startup.stop()
            ending.set()
            await serving
            await gateway.close()

    rest = FastAPI(lifespan=run, title="muniment", docs_url=None, redoc_url=None, openapi_url=None)
    table = RouteTable(ROUTES)
    gateway = Gateway(table, hosts, callers, rest, startup, measured, workspaces_on, recording)
    return gateway


async def _serve(gateway: Gateway, lifespan: Lifespan, ending: asyncio.Event) -> None:
    try:
        async with lifespan() as services:
            gateway.open(services)
            gateway.startup.serve()
            await ending.wait()
            gateway.services = None
    except Stopped:
        return
    except Exception as error:  # noqa: BLE001
        # The edge of this task: whoever runs the process ends it and says why.
        gateway.services = None
        gateway.startup.fail(error)
