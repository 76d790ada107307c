"""What the trail is told of a request: made of what the gateway learnt of it, once it is answered.

A request whose write is an event already is not told again. Everything else is, exactly once, and
before the answer's first byte is sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from muniment_auth.principal import NOBODY, Principal
from muniment_schemas.envelope import WORKSPACE_DEFAULT
from muniment_schemas.events import ApiCalled, CapturedRequest, TouchedResource
from muniment_schemas.trail_events import ALLOWED, DENIED, FAILED
from muniment_services.api.errors import ErrorAnswer
from muniment_services.api.routes import Answer, Route
from muniment_services.audit_levels import Level, Levels
from muniment_services.authority import Authority
from muniment_services.clients import Proxies
from muniment_services.metrics import Watched
from muniment_services.redaction import Redaction
from muniment_services.trail import Trail

USER_AGENT_CHARACTERS_MAX = 256
NAME_CHARACTERS_MAX = 1000
REASON_CHARACTERS_MAX = 500
CAPTURE_BYTES_MAX = 8192
"""Of a query string and of a body each, at level `request`."""

REFUSED = 400
"""The least HTTP status of a refusal."""

DENIALS = frozenset({401, 403})

REPEATING = frozenset(
    {
        "BAD_REQUEST",
        "INTERNAL_ERROR",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_CONFLICT",
    }
)
"""Error codes whose messages repeat values that were sent, which may be secrets."""


Origin = tuple[str | None, str | None]
"""The client's address and agent, as the envelopes of its events tell them."""


class Attempt:
    """A request under way, as far as it has come. Whoever learns something notes it here."""

    __slots__ = (
        "authority", "body", "headers", "origin", "principal", "request_id", "route", "scope",
        "told", "watched",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any], request_id: str, watched: Watched) -> None:
        self.scope = scope
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id
        self.origin: Origin = (None, None)
        self.watched = watched
        self.principal: Principal = NOBODY
        self.route: Route | None = None
        self.authority: Authority | None = None
        self.body = b""
        self.told = False
        """Whether the trail was told of it already, or tried to be."""


class Recording:
    """Tells the trail. levels: how much of which route. proxies: whom to believe about clients."""

    def __init__(self, levels: Levels, proxies: Proxies) -> None:
        self._levels = levels
        self._proxies = proxies

    def origin(self, attempt: Attempt) -> Origin:
        """Where an attempt comes from."""
        peer = attempt.scope.get("client")
        address = self._proxies.client(peer[0] if peer else None, attempt.headers)
        agent = attempt.headers.get(b"user-agent")
        if agent is None:
            return address, None
        return address, agent[:USER_AGENT_CHARACTERS_MAX].decode("latin-1")

    def level(self, attempt: Attempt, status: int) -> Level:
        """How much is kept of a request that is answered so."""
        authority = attempt.authority
        if authority is not None and authority.recorded and status < REFUSED:
            return Level.NONE
        route = attempt.route
        if route is None:
            return Level.METADATA
        level = self._levels.of(route.path, route.permission)
        return Level.METADATA if level is Level.NONE and status in DENIALS else level

    async def tell(
        self,
        trail: Trail,
        attempt: Attempt,
        level: Level,
        answer: Answer,
        refusal: ErrorAnswer | None = None,
    ) -> None:
        """Have the request in the log. Raises TrailUnavailable."""
        principal, authority, route = attempt.principal, attempt.authority, attempt.route
        traceparent = attempt.headers.get(b"traceparent")
        envelope = trail.envelope(
            ApiCalled,
            principal.id,
            principal.actor,
            attempt.request_id,
            WORKSPACE_DEFAULT if authority is None else authority.workspace,
            None if traceparent is None else traceparent.decode("latin-1"),
            *attempt.origin,
        )
        call = ApiCalled(
            envelope=envelope,
            method=attempt.scope["method"][:USER_AGENT_CHARACTERS_MAX],
            route=None if route is None else route.path,
            permission=None if route is None else str(route.permission),
            resources=() if authority is None else tuple(map(_touched, authority.touched)),
            resources_total=0 if authority is None else authority.touched_total,
            outcome=_outcome(answer.status, authority),
            reason=_reason(refusal, authority),
            error_code=None if refusal is None else refusal.error_code,
            status=answer.status,
            duration_us=int((time.perf_counter() - attempt.watched.began_s) * 1_000_000),
            bytes_in=len(attempt.body) or _length(attempt.headers.items()) or 0,
            bytes_out=len(answer.body)
            if isinstance(answer.body, bytes)
            else _length(answer.headers),
            level=str(level),
            request=_captured(trail.redaction, attempt) if level is Level.REQUEST else None,
        )
        await trail.record(principal, call)


def _touched(key: tuple[str, str, str, int | None]) -> TouchedResource:
    kind, aggregate_id, name, version = key
    return TouchedResource(kind=kind, id=_kept(aggregate_id), name=_kept(name), version=version)


def _kept(name: str) -> str | None:
    # A client may ask for what no name can be: of any length, and with halves of characters.
    return name[:NAME_CHARACTERS_MAX].encode("utf-8", "replace").decode() or None


def _outcome(status: int, authority: Authority | None) -> str:
    if status < REFUSED:
        return ALLOWED
    hidden = authority is not None and authority.hid
    return DENIED if status in DENIALS or hidden else FAILED


def _reason(refusal: ErrorAnswer | None, authority: Authority | None) -> str | None:
    if refusal is None:
        return None if authority is None else authority.refusal
    return None if refusal.error_code in REPEATING else refusal.message[:REASON_CHARACTERS_MAX]


def _length(headers: Any) -> int | None:
    found = next((value for name, value in headers if name == b"content-length"), b"")
    return int(found) if found.isdigit() and len(found) < 19 else None


def _captured(redaction: Redaction, attempt: Attempt) -> CapturedRequest:
    query = redaction.query(attempt.scope["query_string"].decode("latin-1")).encode()
    body = (redaction.body(attempt.body) or "").encode()
    return CapturedRequest(
        query=_cut(query),
        query_bytes=len(query),
        query_sha256=hashlib.sha256(query).digest(),
        body=_cut(body),
        body_bytes=len(body),
        body_sha256=hashlib.sha256(body).digest(),
    )


def _cut(text: bytes) -> str:
    return text[:CAPTURE_BYTES_MAX].decode("utf-8", "ignore")
