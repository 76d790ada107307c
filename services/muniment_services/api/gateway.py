"""The door: one ASGI application that every request passes.

In this order: check Host and Origin, find the route, ask the policy, read the body within its
limit, call the handler, map errors. Paths that are not ours go on to the FastAPI application, under
the same checks. Nothing is answered without having passed here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from muniment_auth import policy
from muniment_auth.permissions import Permission
from muniment_auth.principal import Principal
from muniment_services.api.errors import ApiError, ErrorAnswer, expected, internal
from muniment_services.api.hosts import HostCheck
from muniment_services.api.routes import BODY_BYTES_MAX, Answer, Call, Headers, Route, RouteTable
from muniment_services.api.services import Services
from muniment_services.metrics import Metrics, Watched
from muniment_services.startup import Startup
from muniment_services.write import Caller

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

IDEMPOTENCY_KEY_BYTES_MAX = 255

BODY_S_MAX = 60
"""A JSON body is there so soon, or it is not waited for. Artifacts may take as long as they do."""
WORKSPACE = "default"

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
        principal: Principal,
        fallback: App,
        startup: Startup | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.table = table
        self.services: Services | None = None
        self.startup = startup or Startup()
        self.metrics = metrics or Metrics()
        self._hosts = hosts
        self._principal = principal
        self._fallback = fallback

    def paths_behind(self) -> list[str]:
        """Paths that the application behind the gateway answers itself; no policy covers those."""
        return [route.path for route in getattr(self._fallback, "routes", ())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            await self._fallback(scope, receive, send)
            return
        request_id = os.urandom(8).hex()
        watched = self.metrics.began()
        try:
            await self._serve(scope, receive, send, request_id, watched)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001
            # The edge of the process: whatever happens, the client gets MLflow's error shape.
            answer = expected(error)
            if answer is None:
                _log.exception("request failed", request_id=request_id, path=scope["path"])
                answer = internal(request_id)
            watched.status = answer.status
            await _send_error(send, answer, request_id)
        finally:
            self.metrics.ended(watched, scope["method"])

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, watched: Watched
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        method, path = scope["method"], scope["path"]
        self._hosts.check(method, path, headers)
        found = self.table.find(method, path)
        if found is None and method == "HEAD":
            found = self.table.find("GET", path)
        if found is None:
            self._refuse_method(path)
            await self._fallback(scope, receive, _watching(send, watched))
            return
        route, path_params = found
        watched.route = route.path
        self._authorise(route)
        if route.permission is not Permission.PUBLIC:
            _refuse_workspace(headers)
        call = Call(
            started=self.services,
            startup=self.startup,
            metrics=self.metrics,
            caller=self._caller(scope, headers, request_id),
            method=method,
            path_params=path_params,
            query=scope["query_string"],
            headers=headers,
        )
        if route.streams:
            call.stream = _chunks(receive)
        elif method not in ("GET", "HEAD") or headers.get(b"content-length", b"0") != b"0":
            call.body = await _body(receive, headers)
            if call.caller.idempotency_key is not None:
                call.caller = self._caller(scope, headers, request_id, call.body)
        stale = self._stale(route)
        answer = await route.handler(call)
        if isinstance(answer, bytes):
            answer = Answer(answer)
        if stale := stale or self._stale(route):
            answer = dataclasses.replace(answer, headers=(*answer.headers, stale))
        watched.status = answer.status
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

    def _authorise(self, route: Route) -> None:
        decision = policy.decide(self._principal, route.permission)
        if not decision.allowed:
            raise ApiError("PERMISSION_DENIED", f"Permission denied: {decision.reason}.")

    def _caller(
        self, scope: Scope, headers: dict[bytes, bytes], request_id: str, body: bytes = b""
    ) -> Caller:
        key = headers.get(b"idempotency-key")
        if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_BYTES_MAX:
            raise ApiError(
                "INVALID_PARAMETER_VALUE",
                f"An Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters.",
            )
        traceparent = headers.get(b"traceparent")
        return Caller(
            actor=self._principal.actor,
            request_id=request_id,
            workspace=WORKSPACE,
            traceparent=None if traceparent is None else traceparent.decode("latin-1"),
            idempotency_key=None if key is None else key.decode("latin-1"),
            request=b""
            if key is None
            else b"%s %s\n%s" % (scope["method"].encode(), scope["path"].encode(), body),
        )


def _refuse_workspace(headers: dict[bytes, bytes]) -> None:
    # A client that asks for a workspace must hear that there is none, not be served from another.
    if headers.get(b"x-mlflow-workspace", b"").strip():
        raise ApiError(
            "FEATURE_DISABLED",
            "Workspace APIs are not available: workspaces are not enabled on this server",
        )


def _watching(send: Send, watched: Watched) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            watched.status = message["status"]
        await send(message)

    return noting


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return


async def _body(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
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
