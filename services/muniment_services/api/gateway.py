"""The door: one ASGI application that every request passes.

In this order: check Host and Origin, learn who calls, find the route, ask the policy, read the body
within its limit, call the handler, map errors, have the call in the trail, answer. Nothing is
answered without having passed here, nothing that no handler asked the policy about, and nothing
that the trail should hold and does not. The FastAPI application behind it starts and stops things.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
)
from contextlib import suppress
from typing import Any

import structlog

from muniment_auth.permissions import Permission
from muniment_auth.policy import EVERYTHING, Access
from muniment_auth.policy import NOBODY as NOTHING
from muniment_auth.principal import NOBODY, Principal
from muniment_auth.resources import SERVER
from muniment_services.api.callers import Callers
from muniment_services.api.errors import ApiError, ErrorAnswer, expected, internal
from muniment_services.api.hosts import HostCheck
from muniment_services.api.recording import REFUSED, Attempt, Recording
from muniment_services.api.routes import (
    BODY_BYTES_MAX,
    Answer,
    Call,
    Headers,
    Route,
    RouteTable,
    starting,
)
from muniment_services.api.services import Services
from muniment_services.audit_levels import Level, Levels
from muniment_services.authority import Authority, Denied
from muniment_services.clients import Proxies
from muniment_services.clock import now_ms
from muniment_services.domain import workspace as workspaces
from muniment_services.domain.errors import NotFound
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup
from muniment_services.trail import TrailUnavailable
from muniment_services.write import Caller

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

IDEMPOTENCY_KEY_BYTES_MAX = 255

CLOSED = 499
"""What a request is recorded with whose client went away before it had arrived whole."""

BODY_S_MAX = 60
"""A JSON body is there so soon, or it is not waited for. Artifacts may take as long as they do."""

WORKSPACE_HEADER = b"x-mlflow-workspace"

SAID_ONCE = (b"host", b"authorization", b"idempotency-key", WORKSPACE_HEADER)
"""Headers of which one request has one value."""

OF_THE_SERVER = frozenset({Permission.AUDIT_READ, Permission.SERVER_ADMIN, Permission.SERVER_READ})
"""Permissions that are asked on the server as a whole, before the handler is called."""

_UNKNOWN = (
    "No API found for '{method} {path}'. muniment serves MLflow's tracking and registry API; this "
    "part of it is not served."
)

_SECURITY: Headers = ((b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"SAMEORIGIN"))
_log = structlog.get_logger("muniment.api")


class Disconnected(Exception):
    """The client went away before its request had arrived whole."""


class Gateway:
    """Routes requests to handlers. `services` is set once the server has started."""

    def __init__(
        self,
        table: RouteTable,
        hosts: HostCheck,
        callers: Callers,
        fallback: App,
        startup: Startup | None = None,
        metrics: Metrics | None = None,
        workspaces_on: bool = False,
        recording: Recording | None = None,
    ) -> None:
        self.table = table
        self.services: Services | None = None
        self.startup = startup or Startup()
        self.metrics = metrics or Metrics()
        self._hosts = hosts
        self._callers = callers
        issuers = callers.issuers()
        self._sole_issuer = issuers[0].urls if len(issuers) == 1 else ()
        self._workspaces_on = workspaces_on
        self._fallback = fallback
        self._recording = recording or Recording(Levels(), Proxies())

    def open(self, services: Services) -> None:
        """Serve all routes, and take muniment's own tokens and sessions, from now on."""
        self._callers.open(services)
        self.services = services

    async def close(self) -> None:
        """Release connections to identity providers."""
        await self._callers.close()

    def paths_behind(self) -> list[str]:
        """Paths that the application behind the gateway answers itself; no policy covers those."""
        return [route.path for route in getattr(self._fallback, "routes", ())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        watched = self.metrics.began()
        attempt = Attempt(scope, os.urandom(8).hex(), watched)
        attempt.origin = self._recording.origin(attempt)
        try:
            await self._serve(attempt, receive, send)
        except Disconnected:
            watched.status = CLOSED
            with suppress(ApiError, TrailUnavailable):  # There is nobody to tell it to.
                await self._record(attempt, Answer(b"", CLOSED))
        except Exception as error:  # noqa: BLE001
            # The edge of the process: whatever happens, the client gets MLflow's error shape.
            refusal = await self._refusal(attempt, error)
            watched.status = refusal.status
            await _send_error(send, refusal, attempt.request_id)
        finally:
            self.metrics.ended(watched, scope["method"])

    async def _refusal(self, attempt: Attempt, error: Exception) -> ErrorAnswer:
        """The answer to a request that raised, recorded unless that is what failed."""
        refusal = expected(error)
        if refusal is None:
            path = attempt.scope["path"]
            _log.error("request failed", request_id=attempt.request_id, path=path, exc_info=error)
            refusal = internal(attempt.request_id)
        try:
            await self._record(attempt, Answer(refusal.body, refusal.status), refusal)
        except (ApiError, TrailUnavailable) as unrecorded:
            told = expected(unrecorded)
            assert told is not None
            return told
        return refusal

    async def _record(
        self, attempt: Attempt, answer: Answer, refusal: ErrorAnswer | None = None
    ) -> None:
        """Have the request in the trail, unless it is already, or is none of the trail's business.

        Raises TrailUnavailable, or ApiError while there is no log to write to: nothing may then be
        told of the answer.
        """
        if attempt.told:
            return
        attempt.told = True
        level = self._recording.level(attempt, answer.status)
        if level is Level.NONE:
            return
        if self.services is None:
            raise starting(self.startup)
        await self._recording.tell(self.services.trail, attempt, level, answer, refusal)

    async def _serve(self, attempt: Attempt, receive: Receive, send: Send) -> None:
        scope, watched, request_id = attempt.scope, attempt.watched, attempt.request_id
        headers = attempt.headers
        if len(headers) != len(scope["headers"]):
            _refuse_contradiction(scope["headers"])
        method, path = scope["method"], scope["path"]
        self._hosts.check(method, path, headers)
        found = self.table.find(method, path)
        if found is None and method == "HEAD":
            found = self.table.find("GET", path)
        attempt.route = None if found is None else found[0]
        is_public = found is not None and found[0].permission is Permission.PUBLIC
        principal = NOBODY if is_public else await self._caller(method, path, headers)
        attempt.principal = principal
        if found is None:
            self._refuse_method(path)
            raise ApiError("ENDPOINT_NOT_FOUND", _UNKNOWN.format(method=method, path=path))
        route, path_params = found
        watched.route = route.path
        authority = attempt.authority = self._authority(principal, route.permission)
        if not is_public:
            self._enter_workspace(authority, headers)
            self._admit(authority)
        bare_groups = principal.issuer in self._sole_issuer
        origin = attempt.origin
        caller = _request(scope, headers, request_id, principal, authority, bare_groups, origin)
        call = Call(
            started=self.services,
            startup=self.startup,
            metrics=self.metrics,
            callers=self._callers,
            principal=principal,
            caller=caller,
            authority=authority,
            method=method,
            path_params=path_params,
            query=scope["query_string"],
            headers=headers,
        )
        if route.streams:
            call.stream = _chunks(receive)
        elif method not in ("GET", "HEAD") or headers.get(b"content-length", b"0") != b"0":
            call.body = attempt.body = await _body(receive, headers)
            if caller.idempotency_key is not None:
                call.caller = dataclasses.replace(caller, request=caller.request + call.body)
        if method not in ("GET", "HEAD") and not is_public:
            await self._register(principal)
        stale = self._stale(route)
        answer = await route.handler(call)
        if isinstance(answer, bytes):
            answer = Answer(answer)
        refused = answer.status >= REFUSED
        assert authority.asked or refused, f"{route.path} answers without having asked the policy"
        if stale := stale or self._stale(route):
            answer = dataclasses.replace(answer, headers=(*answer.headers, stale))
        try:
            await self._record(attempt, answer)
        except BaseException:
            if isinstance(answer.body, AsyncGenerator):
                await answer.body.aclose()
            raise
        watched.status = answer.status
        if answer.endless and isinstance(answer.body, AsyncGenerator):
            answer = dataclasses.replace(answer, body=_until_left(receive, answer.body))
        await _send(send, answer, request_id, head=method == "HEAD")

    def _stale(self, route: Route) -> tuple[bytes, bytes] | None:
        return None if self.services is None else self.services.stale_header(route.permission)

    def _refuse_method(self, path: str) -> None:
        methods = self.table.methods(path)
        if methods:
            allow = ", ".join(methods)
            raise ApiError(
                "METHOD_NOT_ALLOWED",
                f"{path} answers to {allow} only.",
                ((b"allow", allow.encode()),),
            )

    async def _caller(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Principal:
        known = self._callers.known(headers)
        if known is not None:
            return known
        principal = await self._callers.identify(method, path, headers)
        if self.services is not None:
            await self.services.identities.note_sign_in(principal)
        return principal

    async def _register(self, principal: Principal) -> None:
        if self.services is not None:
            await self.services.identities.register_once(principal)

    def _authority(self, principal: Principal, permission: Permission) -> Authority:
        """What the caller may do by a route."""
        authority = Authority(
            lambda: self._access(principal), permission, now_ms, isolated=self._workspaces_on
        )
        authority.asked = permission in (Permission.PUBLIC, Permission.SELF_USE)
        return authority

    def _admit(self, authority: Authority) -> None:
        permission = authority.permission
        if permission in OF_THE_SERVER:
            authority.require(SERVER)
        elif not authority.asked and not authority.access.may_ever(permission):
            raise Denied(authority.access.refusal(permission))

    def _enter_workspace(self, authority: Authority, headers: Mapping[bytes, bytes]) -> None:
        """Have the request see the workspace that it names. Raises ApiError, Invalid, NotFound."""
        name = headers.get(WORKSPACE_HEADER, b"").strip().decode("latin-1")
        if not name:
            return
        if not self._workspaces_on:
            # Who asks for a workspace must hear that there is none, not be served from another.
            raise ApiError(
                "FEATURE_DISABLED",
                "Workspace APIs are not available: workspaces are not enabled on this server",
            )
        if self.services is None:
            raise starting(self.startup)
        workspaces.require(self.services.fold.state, name)
        if not authority.reaches(name):
            raise NotFound(f"Workspace '{name}' not found")
        authority.workspace = name

    def _access(self, principal: Principal) -> Access:
        if principal is NOBODY:
            return NOTHING
        if principal.kind == "local":
            return EVERYTHING
        if self.services is None:
            raise starting(self.startup)
        return self.services.accesses.of(principal)


def _refuse_contradiction(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise ApiError when a request says twice, and differently, who calls or where it goes.

    A proxy before this server may have looked at the other one. Source: RFC 9110, 5.3.
    """
    given = set(headers)
    for name in SAID_ONCE:
        if sum(found == name for found, _ in given) > 1:
            raise ApiError(
                "BAD_REQUEST", f"The request has several {name.decode()} headers that differ."
            )


def _request(
    scope: Scope,
    headers: Mapping[bytes, bytes],
    request_id: str,
    principal: Principal,
    authority: Authority,
    bare_groups: bool,
    origin: tuple[str | None, str | None],
) -> Caller:
    key = headers.get(b"idempotency-key")
    if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"An Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters.",
        )
    traceparent = headers.get(b"traceparent")
    route = b"%s %s\n" % (scope["method"].encode(), scope["path"].encode())
    return Caller(
        actor=principal.actor,
        request_id=request_id,
        workspace=authority.workspace,
        traceparent=None if traceparent is None else traceparent.decode("latin-1"),
        client_address=origin[0],
        user_agent=origin[1],
        idempotency_key=None if key is None else key.decode("latin-1"),
        request=b"" if key is None else route,
        groups=principal.groups,
        issuer=principal.issuer,
        bare_groups=bare_groups,
        claims=principal.claims,
        authority=authority,
    )


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return


async def _until_left(
    receive: Receive, chunks: AsyncGenerator[bytes, None]
) -> AsyncIterator[bytes]:
    """The chunks, as long as there is a client. The server sends nothing to one that has gone."""

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(left())
    try:
        async for chunk in chunks:
            if leaving.done():
                return
            yield chunk
    finally:
        leaving.cancel()
        await chunks.aclose()


async def _body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise _too_large()
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for chunk in _chunks(receive):
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError(
            "BAD_REQUEST",
            f"The request body did not arrive within {BODY_S_MAX} seconds.",
            ((b"connection", b"close"),),
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large() -> ApiError:
    return ApiError(
        "REQUEST_TOO_LARGE",
        f"The request body is larger than {BODY_BYTES_MAX} bytes; send it in several requests.",
        ((b"connection", b"close"),),
    )


async def _send(send: Send, answer: Answer, request_id: str, head: bool = False) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"x-request-id", request_id.encode()),
        *_SECURITY,
        *answer.headers,
    ]
    if isinstance(answer.body, bytes):
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        body = b"" if head else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if not head:
        async for chunk in answer.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_error(send: Send, answer: ErrorAnswer, request_id: str) -> None:
    await _send(
        send,
        Answer(answer.body, answer.status, "application/json", answer.headers),
        request_id,
    )
