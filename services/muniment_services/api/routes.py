"""What a route is, and what its handler is given.

Every route names the permission that it needs; there is no route without one, and the gateway asks
the policy before the handler runs. MLflow's REST API is served under `/api` and `/ajax-api` alike.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from muniment_auth.permissions import Permission
from muniment_auth.policy import Access
from muniment_auth.principal import Principal
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Fields, from_body, from_json, from_query
from muniment_services.authority import Authority, View
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup
from muniment_services.write import Caller

if TYPE_CHECKING:
    from muniment_services.api.callers import Callers
    from muniment_services.api.services import Services

BODY_BYTES_MAX = 20 * 1024 * 1024
"""Largest JSON body: the largest dataset profile MLflow takes (16 MiB), quoted, and its frame."""

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's answer. `body` is bytes, or a stream of chunks."""

    body: bytes | AsyncIterator[bytes] = b"{}"
    status: int = 200
    content_type: str = "application/json"
    headers: Headers = ()


@dataclass(slots=True)
class Call:
    """One request, as a handler sees it."""

    started: Services | None
    startup: Startup
    metrics: Metrics
    callers: Callers
    principal: Principal
    caller: Caller
    authority: Authority
    method: str
    path_params: Mapping[str, str]
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = field(default=None)

    @property
    def access(self) -> Access:
        """What the caller holds, for handlers that decide by it themselves."""
        self.authority.asked = True
        return self.authority.access

    @property
    def services(self) -> Services:
        """What the application consists of. Raises ApiError (503) while the server is starting."""
        if self.started is None:
            raise starting(self.startup)
        return self.started

    def deletion_params(self, fields: Fields) -> dict[str, Any]:
        """Typed parameters of a DELETE: MLflow's clients put them into the body, Databricks' into
        the query.
        """
        if self.query and not self.body:
            return from_query(self.query, fields)
        return self.params(fields)

    @property
    def world(self) -> View:
        """Current state as far as this caller may read it, by the permission of the route."""
        return self.authority.reading(self.services.fold.state)

    async def look_up(self, kind: str, aggregate_id: str) -> None:
        """Have `world` tell of a run, trace or logged model, as of everything in the log now.

        Takes the same work for one that is hidden from this caller as for one that is not there.
        """
        await self.services.caught_up()
        await self.services.fold.look_up(((kind, aggregate_id),), self.authority.knows)

    async def readable(self, kind: str, ids: Iterable[str]) -> list[str]:
        """Those of some runs, traces or logged models that this caller may read, in their order.

        They are as of everything that was in the log. Where nothing is hidden from the caller, ids
        of what is not there may be among them.
        """
        wanted = list(ids)
        if self.authority.reads_all:
            return wanted
        services = self.services
        await services.caught_up()
        may_read = self.authority.may_read
        await services.fold.look_up([(kind, aggregate_id) for aggregate_id in wanted], may_read)
        return [i for i in wanted if may_read(services.fold.state, kind, i)]

    @property
    def content_type(self) -> str | None:
        """The request's Content-Type, if any."""
        value = self.headers.get(b"content-type")
        return None if value is None else value.decode("latin-1")

    def params(self, fields: Fields) -> dict[str, Any]:
        """Typed parameters: of a read's query, else of the JSON body.

        As in MLflow, a read without a query may have a body, and only POST and PUT must name their
        content type.
        """
        if self.method in ("GET", "HEAD") and (self.query or not self.body):
            return from_query(self.query, fields)
        if self.method in ("POST", "PUT"):
            return from_body(self.body, self.content_type, fields)
        return from_json(self.body, fields)


def starting(startup: Startup) -> ApiError:
    """What a request hears that comes before the server can answer it."""
    return ApiError(
        "TEMPORARILY_UNAVAILABLE",
        f"The server is {startup.phase}; try again.",
        ((b"retry-after", b"1"),),
    )


Handler = Callable[[Call], Awaitable[Answer | bytes]]


@dataclass(frozen=True, slots=True)
class Route:
    """One (method, path) of the API.

    path: full path; `{name}` takes one segment, `{name:path}` all that is left.
    streams: the handler reads `call.stream` itself instead of a body of at most BODY_BYTES_MAX.
    """

    method: str
    path: str
    permission: Permission
    handler: Handler
    streams: bool = False


def mlflow(
    method: str, path: str, permission: Permission, handler: Handler, version: str = "2.0"
) -> tuple[Route, ...]:
    """A route of MLflow's REST API with its `/ajax-api` twin. path: what follows `mlflow/`."""
    return tuple(
        Route(method, f"/{root}/{version}/mlflow/{path}", permission, handler)
        for root in ("api", "ajax-api")
    )


class RouteTable:
    """Finds the route of a request. Exact paths by one look-up, templates by pattern."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            methods = by_path.setdefault(route.path, {})
            assert route.method not in methods, f"two routes for {route.method} {route.path}"
            methods[route.method] = route
        for path, methods in by_path.items():
            if "{" in path:
                self._patterns.append((re.compile(_pattern(path), re.DOTALL), methods))
            else:
                self._exact.update({(method, path): r for method, r in methods.items()})

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """The route and its path parameters, or None."""
        route = self._exact.get((method, path))
        if route is not None:
            return route, {}
        for pattern, methods in self._patterns:
            matched = pattern.fullmatch(path)
            if matched is not None and method in methods:
                return methods[method], matched.groupdict()
        return None

    def methods(self, path: str) -> list[str]:
        """The methods that a path answers to; empty when there is no such path."""
        found = {method for method, exact in self._exact if exact == path}
        for pattern, methods in self._patterns:
            if pattern.fullmatch(path):
                found.update(methods)
        return sorted(found)


def _pattern(path: str) -> str:
    escaped = re.escape(path).replace(r"\{", "{").replace(r"\}", "}")
    whole = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", escaped)
    return re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", whole)
