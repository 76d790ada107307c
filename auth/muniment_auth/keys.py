"""An issuer's signing keys: found by discovery, cached, refreshed behind the callers' backs.

What always holds: one fetch at a time; a key id that is not known causes at most one fetch in
COOLDOWN_S, whatever is presented; keys that were good stay good for STALE_S_MAX while the provider
is down; what is fetched is bounded, comes from the issuer's own document, and over TLS or loopback,
without a redirect. A key that is not known is refused only if the provider was asked: while it
does not answer, nobody can say that a token is bad.
Sources: OpenID Connect Discovery 1.0; RFC 8414; RFC 7517; RFC 8725, 3.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

from muniment_auth.claims import DOCUMENT_BRACKETS_MAX, KID_CHARS_MAX, json_object
from muniment_auth.errors import ProviderUnavailable
from muniment_auth.issuers import Issuer, is_loopback
from muniment_auth.jose import PublicKey, UnusableKey, fits, public_key

FRESH_S = 300
"""Keys older than this are fetched anew, in the background."""

DISCOVERY_FRESH_S = 3600
"""The same for the discovery document, which says where the keys are."""

COOLDOWN_S = 30
"""Least time between two fetches, successful or not, while there are keys."""

RETRY_S = 5
"""The same while there are none, and nobody can be let in."""

STALE_S_MAX = 24 * 3600
"""Keys are used for so long while the provider cannot be asked."""

DOCUMENT_BYTES_MAX = 512 * 1024
KEYS_MAX = 100
FETCH_S_MAX = 5.0

_UNREACHABLE = (
    "The identity provider cannot be reached, so no token of it can be checked; try again."
)

_log = structlog.get_logger("muniment.auth")


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key that an issuer signs with. algorithm: the only one that it is for; None: any."""

    kid: str
    algorithm: str | None
    key: PublicKey

    def is_for(self, algorithm: str) -> bool:
        """Whether a signature by an algorithm can be this key's."""
        # Ed25519 has two names: RFC 8037 calls it EdDSA, RFC 9864 by its own.
        named = "EdDSA" if algorithm == "Ed25519" else algorithm
        own = "EdDSA" if self.algorithm == "Ed25519" else self.algorithm
        return own in (None, named) and fits(self.key, algorithm)


class UntrustedDocument(Exception):
    """What an issuer serves is not what it has to be. reason: what is wrong, for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IssuerKeys:
    """One issuer's keys and metadata. Lives on one event loop. clock: seconds, never set back."""

    def __init__(self, issuer: Issuer, http: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._keys: tuple[IssuerKey, ...] = ()
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._discovery = Discovery(issuer, http, clock)
        self.failure: str | None = None
        """Why the last fetch failed; None: it did not."""

    async def find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """The key that a token names, None when the issuer has none such.

        Raises ProviderUnavailable while that cannot be known.
        """
        if key_id is None:
            return None
        if self._usable() and (found := self._fitting(key_id, algorithm)) is not None:
            self.refresh_if_due()
            return found
        await self._refresh()
        if not self._usable():
            raise ProviderUnavailable(_UNREACHABLE, self._wait_s())
        found = self._fitting(key_id, algorithm)
        if found is None and self.failure is not None:
            raise ProviderUnavailable(_UNREACHABLE, self._wait_s())
        return found

    async def metadata(self) -> Mapping[str, Any]:
        """The discovery document. Raises ProviderUnavailable."""
        return await self._discovery.get()

    def refresh_if_due(self) -> None:
        """Begin to fetch keys that have got old, if nobody does."""
        if self._age_s() > FRESH_S:
            self._begin_refresh()

    async def close(self) -> None:
        """End what goes on in the background."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _age_s(self) -> float:
        return math.inf if self._fetched_s is None else self._clock() - self._fetched_s

    def _usable(self) -> bool:
        return self._age_s() <= STALE_S_MAX

    def _wait_s(self) -> int:
        """Seconds until asking again can help."""
        if self._tried_s is None:
            return RETRY_S
        wait_s = COOLDOWN_S if self._usable() else RETRY_S
        return max(1, math.ceil(self._tried_s + wait_s - self._clock()))

    def _fitting(self, key_id: str, algorithm: str) -> PublicKey | None:
        fitting = (k.key for k in self._keys if k.kid == key_id and k.is_for(algorithm))
        return next(fitting, None)

    async def _refresh(self) -> None:
        task = self._begin_refresh()
        if task is not None:
            await asyncio.shield(task)

    def _begin_refresh(self) -> asyncio.Task[None] | None:
        if self._refreshing is not None and not self._refreshing.done():
            return self._refreshing
        wait_s = COOLDOWN_S if self._usable() else RETRY_S
        if self._tried_s is not None and self._clock() - self._tried_s < wait_s:
            return None
        self._tried_s = self._clock()
        self._refreshing = asyncio.create_task(self._fetch())
        return self._refreshing

    async def _fetch(self) -> None:
        try:
            keys = await self._fetched()
        except FETCH_FAILURES as error:
            self.failure = reason_of(error)
            self._discovery.distrust()
            _log.warning("keys not fetched", issuer=self._issuer.url, reason=self.failure)
            return
        self._keys, self._fetched_s, self.failure = keys, self._clock(), None

    async def _fetched(self) -> tuple[IssuerKey, ...]:
        if self._issuer.jwks_file is not None:
            text = await asyncio.to_thread(_bounded_file, self._issuer.jwks_file)
            return usable_keys(json_object(text, DOCUMENT_BRACKETS_MAX))
        url = self._issuer.jwks_url
        if url is None:
            url = (await self._discovery.fetched()).get("jwks_uri")
        if not isinstance(url, str):
            raise UntrustedDocument("the issuer's discovery document has no jwks_uri")
        return usable_keys(await fetched(self._issuer, self._http, url))


class Discovery:
    """One issuer's discovery document, kept for DISCOVERY_FRESH_S, and older while it is down."""

    def __init__(self, issuer: Issuer, http: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._http = http
        self._clock = clock
        self._document: Mapping[str, Any] | None = None
        self._fetched_s = -math.inf
        self._fresh_until_s = -math.inf
        self._tried_s = -math.inf
        self._fetching = asyncio.Lock()

    async def get(self) -> Mapping[str, Any]:
        """The document. Raises ProviderUnavailable."""
        try:
            return await self.fetched()
        except FETCH_FAILURES as error:
            _log.warning("no discovery", issuer=self._issuer.url, reason=reason_of(error))
            raise ProviderUnavailable(
                "The identity provider cannot be reached; try again.", RETRY_S
            ) from None

    async def fetched(self) -> Mapping[str, Any]:
        """The document, asked for at most once in RETRY_S. Raises what a fetch raises."""
        async with self._fetching:
            now_s = self._clock()
            if self._document is not None and now_s < self._fresh_until_s:
                return self._document
            if now_s - self._tried_s < RETRY_S:
                return self._old(UntrustedDocument("was asked a moment ago, in vain"))
            self._tried_s = now_s
            try:
                self._document = await self._fetch()
            except FETCH_FAILURES as error:
                return self._old(error)
            self._fetched_s = self._clock()
            self._fresh_until_s = self._fetched_s + DISCOVERY_FRESH_S
            return self._document

    def distrust(self) -> None:
        """Ask anew next time: what it led to was not there."""
        self._fresh_until_s = -math.inf

    def _old(self, error: Exception) -> Mapping[str, Any]:
        if self._document is None or self._clock() - self._fetched_s > STALE_S_MAX:
            raise error
        return self._document

    async def _fetch(self) -> Mapping[str, Any]:
        url = f"{self._issuer.url.rstrip('/')}/.well-known/openid-configuration"
        found = await fetched(self._issuer, self._http, url)
        if found.get("issuer") != self._issuer.url:
            raise UntrustedDocument(f"{url} is the document of another issuer")
        return found


def reason_of(error: BaseException) -> str:
    """What to tell an operator about a fetch that failed."""
    reason: str | None = getattr(error, "reason", None)
    return reason or f"{type(error).__name__}: {error}"


def _bounded_file(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(DOCUMENT_BYTES_MAX + 1)
    if len(text) > DOCUMENT_BYTES_MAX:
        raise UntrustedDocument(f"{path} is longer than {DOCUMENT_BYTES_MAX} bytes")
    return text


async def fetched(issuer: Issuer, http: httpx.AsyncClient, url: str) -> Mapping[str, Any]:
    """A JSON document of an issuer. Raises httpx.HTTPError, OSError, ValueError, or the like."""
    check_url(url)
    headers = {"accept": "application/json"}
    if issuer.fetch_token_file is not None:
        token = await asyncio.to_thread(_bounded_file, issuer.fetch_token_file)
        headers["authorization"] = f"Bearer {token.decode('ascii').strip()}"
    request = http.build_request("GET", url, headers=headers)
    return json_object(await bounded(http, request), DOCUMENT_BRACKETS_MAX)


async def bounded(http: httpx.AsyncClient, request: httpx.Request) -> bytes:
    """The body of a 200 answer, of DOCUMENT_BYTES_MAX at most, within FETCH_S_MAX.

    request: to an address that `check_url` lets pass.
    """
    url = str(request.url)
    async with asyncio.timeout(FETCH_S_MAX):
        answer = await http.send(request, stream=True)
        try:
            if answer.status_code != 200:
                raise UntrustedDocument(f"{url} answers {answer.status_code}")
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > DOCUMENT_BYTES_MAX:
                    raise UntrustedDocument(f"{url} is longer than {DOCUMENT_BYTES_MAX} bytes")
        finally:
            await answer.aclose()
    return body


FETCH_FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, UntrustedDocument)
"""All that a fetch fails with: a timeout is an OSError, bad JSON and bad UTF-8 are ValueErrors."""


def check_url(url: str) -> None:
    """Raise UntrustedDocument for an address that others could answer for: plain HTTP abroad."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise UntrustedDocument(f"{url} is no address") from None
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and is_loopback(host):
        return
    raise UntrustedDocument(f"{url} is neither https nor on loopback")


def usable_keys(document: Mapping[str, Any]) -> tuple[IssuerKey, ...]:
    """The keys of a JWK set that may verify signatures; others are left out.

    Raises UntrustedDocument for what is no JWK set, or one without a usable key.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise UntrustedDocument("the JWK set has no keys")
    found = tuple(key for item in listed[:KEYS_MAX] if (key := _usable(item)) is not None)
    if not found:
        raise UntrustedDocument("the JWK set has no key that signs and has a kid")
    return found


def _usable(item: object) -> IssuerKey | None:
    if not isinstance(item, dict):
        return None
    kid, operations = item.get("kid"), item.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARS_MAX:
        return None
    if item.get("use", "sig") != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithm = item.get("alg")
    if algorithm is not None and not isinstance(algorithm, str):
        return None
    try:
        return IssuerKey(kid, algorithm, public_key(item))
    except UnusableKey as error:
        _log.debug("key left out", kid=kid, reason=error.reason)
        return None
