"""Who presents a token of one of the issuers: the door to all that verifies.

A credential that was verified is remembered by its SHA-256 for RECHECK_S at most, so that a caller
that is known costs one hash and one look-up, and no waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import structlog

from muniment_auth import verify
from muniment_auth.claims import Claims, Unverified, looks_like_jwt, read
from muniment_auth.dpop import ALGORITHMS, Proofs, refused
from muniment_auth.errors import Unauthenticated
from muniment_auth.introspection import Introspection
from muniment_auth.issuers import Issuer
from muniment_auth.keys import FETCH_S_MAX, IssuerKeys
from muniment_auth.principal import Principal
from muniment_auth.recognise import principal_of
from muniment_auth.verify import Verified

REMEMBERED_MAX = 10_000
RECHECK_S = 60
"""A verified token is verified anew after this, so that a key that was withdrawn stops counting."""

REFRESH_S = 15
"""So often it is looked whether an issuer's keys have got old."""

CONNECTIONS_MAX = 20
STRANGE_MAX = 1000
"""Names of claims that no profile lists, of which the log tells once each."""

_log = structlog.get_logger("muniment.auth")


class Authenticator:
    """Verifies what callers present. Lives on one event loop.

    transport: how providers are reached; None: the network. now_s: seconds since 1970. clock:
    seconds, never set back.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        transport: httpx.AsyncBaseTransport | None = None,
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuers = tuple(issuers)
        self._now_s = now_s
        self._clients = [_client(issuer, transport) for issuer in self.issuers]
        self._keys = {
            issuer.url: IssuerKeys(issuer, http, clock)
            for issuer, http in zip(self.issuers, self._clients, strict=True)
        }
        asked = [
            Introspection(issuer, self._keys[issuer.url], http, clock, now_s)
            for issuer, http in zip(self.issuers, self._clients, strict=True)
            if issuer.introspect
        ]
        if len(asked) > 1:
            raise ValueError(
                "more than one issuer has introspect: each would be shown the other's tokens"
            )
        self._asked = asked[0] if asked else None
        self._by_name = {issuer.name: issuer for issuer in self.issuers}
        self._by_url = {url: issuer for issuer in self.issuers for url in issuer.urls}
        self._proofs = Proofs(now_s)
        self._remembered: dict[bytes, tuple[Verified, Issuer, float]] = {}
        self._strange: set[tuple[str, str]] = set()
        self._refreshing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch keys now, and from now on before they get old. Waits for no provider."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh_always())

    async def close(self) -> None:
        """End refreshing and release connections."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for keys in self._keys.values():
            await keys.close()
        for client in self._clients:
            await client.aclose()

    def known(self, authorization: bytes) -> Principal | None:
        """Whom an Authorization header is from, if it was verified lately; None: ask.

        Tokens that are bound to a key are never known: each use has to prove the key.
        """
        if authorization[:7].lower() != b"bearer ":
            return None
        found = self._remembered.get(hashlib.sha256(authorization[7:]).digest())
        if found is None or found[2] <= self._now_s() or not _as_bearer(found[0], found[1]):
            return None
        return found[0].principal

    async def authenticate(
        self, authorization: str, proof: str | None, method: str, url: str
    ) -> Principal:
        """Whom a request is from. proof: its DPoP header. url: as the client used it.

        Raises Unauthenticated, ProviderUnavailable.
        """
        scheme, _, token = authorization.partition(" ")
        scheme = scheme.lower()
        if scheme not in ("bearer", "dpop") or not token:
            raise Unauthenticated("present a bearer token", "invalid_request")
        verified, issuer = await self._verified(token)
        if scheme == "bearer":
            if not _as_bearer(verified, issuer):
                raise Unauthenticated(
                    "the token has to be presented with a DPoP proof of its key",
                    scheme="DPoP",
                    algorithms=ALGORITHMS,
                )
            return verified.principal
        if verified.key_thumbprint is None or proof is None:
            raise refused("a DPoP token needs a proof, and has to be bound to a key")
        self._proofs.check(proof, verified.key_thumbprint, token, method, url)
        return replace(verified.principal, auth_method="dpop")

    async def verify_id_token(
        self, issuer_name: str, text: str, nonce: str, renewed: bool = False
    ) -> Principal:
        """Whom an ID token is about that a login of ours got. Raises Unauthenticated.

        renewed: it came with a refresh token, not with a code.
        """
        issuer = self._by_name[issuer_name]
        token = read(text)
        if token.payload.get("iss") not in issuer.urls:
            raise Unauthenticated("the token is of another issuer")
        verify.check_id_token(issuer, token, nonce, self._now_s(), renewed)
        return principal_of(issuer, await self._signed(issuer, token), "session")

    async def metadata(self, issuer_name: str) -> Mapping[str, Any]:
        """The issuer's discovery document. Raises ProviderUnavailable."""
        return await self._keys[self._by_name[issuer_name].url].metadata()

    def failures(self) -> Mapping[str, str]:
        """Issuers whose keys could not be fetched last time, and why."""
        return {url: keys.failure for url, keys in self._keys.items() if keys.failure is not None}

    async def _verified(self, token: str) -> tuple[Verified, Issuer]:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = self._remembered.get(digest)
        if found is not None and found[2] > self._now_s():
            return found[0], found[1]
        if looks_like_jwt(token):
            verified, issuer = await self._read(token)
        else:
            verified, issuer = await self._introspected(token)
        until_s = min(verified.expires_s, self._now_s() + RECHECK_S)
        self._remembered.pop(digest, None)
        self._remembered[digest] = (verified, issuer, until_s)
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        return verified, issuer

    async def _read(self, text: str) -> tuple[Verified, Issuer]:
        token = read(text)
        named = token.payload.get("iss")
        issuer = self._by_url.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise Unauthenticated("the token is of an issuer that is not trusted here")
        verify.check_access_token(issuer, token, self._now_s())
        return verify.access_token(issuer, await self._signed(issuer, token)), issuer

    async def _signed(self, issuer: Issuer, token: Unverified) -> Claims:
        key = await self._keys[issuer.url].find(token.key_id, token.algorithm)
        if key is None:
            raise Unauthenticated("the token is signed with a key that is not the issuer's")
        claims = verify.check_signature(token, key)
        self._tell_strange(issuer, claims)
        return claims

    async def _introspected(self, token: str) -> tuple[Verified, Issuer]:
        if self._asked is None:
            raise Unauthenticated("the token is no signed JWT, and no issuer takes others")
        return await self._asked.verified(token), self._asked.issuer

    def _tell_strange(self, issuer: Issuer, claims: Claims) -> None:
        for name in issuer.profile.unlisted(claims) - set(issuer.kept_claims):
            if (issuer.name, name) not in self._strange and len(self._strange) < STRANGE_MAX:
                self._strange.add((issuer.name, name))
                _log.debug("claim that no profile lists", issuer=issuer.name, claim=name[:100])

    async def _refresh_always(self) -> None:
        while True:
            for keys in self._keys.values():
                keys.refresh_if_due()
            await asyncio.sleep(REFRESH_S)


def _as_bearer(verified: Verified, issuer: Issuer) -> bool:
    return verified.key_thumbprint is None and not issuer.dpop_required


def _client(issuer: Issuer, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    if transport is not None:
        return httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)
    return httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=issuer.ca_file),
        timeout=FETCH_S_MAX,
        follow_redirects=False,
        limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
    )
