"""Opaque tokens: the provider is asked what they are. Source: RFC 7662.

Answers are kept for CACHED_S at most and never past the token's end, refusals too; one question at
a time for one token. While the provider does not answer, nobody gets in by it: after FAILURES_MAX
failures in a row a breaker refuses at once, for BREAKER_S.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import structlog

from muniment_auth.claims import Claims, json_object
from muniment_auth.errors import ProviderUnavailable, Unauthenticated
from muniment_auth.issuers import Issuer
from muniment_auth.keys import (
    FETCH_FAILURES,
    IssuerKeys,
    UntrustedDocument,
    bounded,
    check_url,
    reason_of,
)
from muniment_auth.recognise import principal_of
from muniment_auth.verify import (
    Verified,
    check_audience,
    check_client,
    check_scope,
    check_times,
    thumbprint_of,
)

CACHED_S = 30
FAILURES_MAX = 3
BREAKER_S = 5
"""After so many failures in a row the provider is left alone for so long."""

UNKNOWN_MAX = 10_000
"""Tokens that are remembered as not good."""

TOKEN_CHARS_MAX = 4096

_UNREACHABLE = "The identity provider does not say whether the token is good; try again."

_log = structlog.get_logger("muniment.auth")


class Introspection:
    """Asks one issuer about tokens. clock: seconds; now_s: seconds since 1970."""

    def __init__(
        self,
        issuer: Issuer,
        keys: IssuerKeys,
        http: httpx.AsyncClient,
        clock: Callable[[], float],
        now_s: Callable[[], float],
    ) -> None:
        self.issuer = issuer
        self._keys = keys
        self._http = http
        self._clock = clock
        self._now_s = now_s
        self._asked: dict[bytes, asyncio.Task[Verified]] = {}
        self._unknown: dict[bytes, tuple[float, str]] = {}
        self._failures = 0
        self._closed_until_s = -math.inf

    async def verified(self, token: str) -> Verified:
        """What a token proves. Raises AuthError."""
        if not token.isascii() or not token.isprintable() or len(token) > TOKEN_CHARS_MAX:
            raise Unauthenticated("the token is none")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        self._check_unknown(digest)
        task = self._asked.get(digest)
        if task is None:
            self._check_breaker()
            task = asyncio.create_task(self._ask(token))
            self._asked[digest] = task
            task.add_done_callback(lambda done: self._answered(digest, done))
        return await asyncio.shield(task)

    def _check_unknown(self, digest: bytes) -> None:
        refused = self._unknown.get(digest)
        if refused is not None and refused[0] > self._clock():
            raise Unauthenticated(refused[1])

    def _check_breaker(self) -> None:
        left_s = self._closed_until_s - self._clock()
        if left_s > 0:
            raise ProviderUnavailable(_UNREACHABLE, math.ceil(left_s))

    def _answered(self, digest: bytes, done: asyncio.Task[Verified]) -> None:
        self._asked.pop(digest, None)
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Unauthenticated):
            self._unknown.pop(digest, None)
            self._unknown[digest] = (self._clock() + CACHED_S, error.description)
            if len(self._unknown) > UNKNOWN_MAX:
                del self._unknown[next(iter(self._unknown))]

    async def _ask(self, token: str) -> Verified:
        try:
            answer = await self._post(token)
        except httpx.PoolTimeout:
            # Too many questions of ours at once: it says nothing about the provider.
            raise ProviderUnavailable(_UNREACHABLE) from None
        except FETCH_FAILURES as error:
            self._failed(reason_of(error))
            raise ProviderUnavailable(_UNREACHABLE) from None
        self._failures = 0
        return self._read(answer)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._closed_until_s = self._clock() + BREAKER_S
        _log.warning("token not introspected", issuer=self.issuer.url, reason=reason)

    async def _post(self, token: str) -> Mapping[str, Any]:
        url = (await self._keys.metadata()).get("introspection_endpoint")
        if not isinstance(url, str):
            raise UntrustedDocument("the issuer has no introspection endpoint")
        check_url(url)
        request = self._http.build_request(
            "POST",
            url,
            data={"token": token, "token_type_hint": "access_token"},
            headers={"accept": "application/json", "authorization": self._as_client()},
        )
        found = json_object(await bounded(self._http, request))
        if not isinstance(found.get("active"), bool):
            raise UntrustedDocument("the issuer's answer does not say whether the token is active")
        return found

    def _as_client(self) -> str:
        # RFC 6749, 2.3.1: both are form-encoded before they become user and password.
        both = (self.issuer.client_id or "", self.issuer.client_secret or "")
        text = ":".join(quote(part, safe="") for part in both)
        return f"Basic {base64.b64encode(text.encode('ascii')).decode('ascii')}"

    def _read(self, answer: Mapping[str, Any]) -> Verified:
        if not answer["active"]:
            raise Unauthenticated("the token is not known, or not good any more")
        now_s = self._now_s()
        claims = Claims({"iat": now_s, **answer})  # Whoever is asked now, says it now.
        if answer.get("iss", self.issuer.url) not in self.issuer.urls:
            raise Unauthenticated("the token is of another issuer")
        self._check_kind(answer)
        check_audience(self.issuer.audiences, claims)
        ends_s = check_times(self.issuer, claims, now_s) if "exp" in claims else math.inf
        check_client(self.issuer, claims)
        check_scope(self.issuer, claims)
        principal = principal_of(self.issuer, claims, "introspection")
        return Verified(principal, min(ends_s, now_s + CACHED_S), thumbprint_of(claims))

    def _check_kind(self, answer: Mapping[str, Any]) -> None:
        """Refuse refresh tokens, which some providers call active too."""
        types = self.issuer.profile.bearer_types
        if types and answer.get("typ", types[0]) not in types:
            raise Unauthenticated("the token is no access token")
        kind = answer.get("token_type", "Bearer")
        if not isinstance(kind, str) or kind.lower() not in ("bearer", "dpop", "access_token"):
            raise Unauthenticated("the token is no access token")
        if answer.get("token_use", "access_token") not in ("access_token", "access"):
            raise Unauthenticated("the token is no access token")
