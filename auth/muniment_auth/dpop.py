"""Proofs that whoever presents a token holds the key that it is bound to. Source: RFC 9449.

A proof is for one request and is taken once. Those that were taken are remembered by each process
on its own: a proof could be used once on each replica within its PROOF_S, for the same request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from muniment_auth.claims import Unverified, read, time_s
from muniment_auth.errors import ProviderUnavailable, Unauthenticated
from muniment_auth.jose import UnusableKey, is_signed_by, public_key

ALGORITHMS = ("ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256")
PROOF_S = 60
"""A proof's time may be so far from ours, either way."""

PROOFS_MAX = 100_000
"""Proofs that are remembered; over that, new ones are refused until old ones have run out."""

IDENTIFIER_CHARS_MAX = 256
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


class Proofs:
    """Checks proofs, each of which counts once. now_s: seconds since 1970."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._taken: dict[bytes, float] = {}

    def check(self, proof: str, thumbprint: str, token: str, method: str, url: str) -> None:
        """Raise Unauthenticated unless it proves the key of `thumbprint`, for this request.

        token: the access token that it goes with. url: of the request; the query does not count.
        Raises ProviderUnavailable when too many proofs are in use to tell a repeated one.
        """
        found = _read(proof)
        _check_key(found, thumbprint)
        claims = found.payload
        place = _place(claims.get("htu"))
        if claims.get("htm") != method or place is None or place != _place(url):
            raise refused("the DPoP proof is for another request")
        digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=")
        given = claims.get("ath")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), digest):
            raise refused("the DPoP proof is for another token")
        self._take(thumbprint, claims)

    def _take(self, thumbprint: str, claims: Mapping[str, Any]) -> None:
        now_s, identifier = self._now_s(), claims.get("jti")
        try:
            made_s = time_s(claims, "iat")
        except Unauthenticated:
            made_s = None
        if made_s is None or abs(now_s - made_s) > PROOF_S:
            raise refused("the DPoP proof is not of now")
        if not isinstance(identifier, str) or not 0 < len(identifier) <= IDENTIFIER_CHARS_MAX:
            raise refused("the DPoP proof has no identifier")
        while self._taken:
            oldest = next(iter(self._taken))
            if self._taken[oldest] > now_s:
                break
            del self._taken[oldest]
        named = f"{thumbprint}\n{identifier}".encode("utf-8", "surrogatepass")
        taken = hashlib.sha256(named).digest()
        if taken in self._taken:
            raise refused("the DPoP proof was used before")
        if len(self._taken) >= PROOFS_MAX:
            raise ProviderUnavailable("Too many proofs were used lately; try again.", PROOF_S)
        self._taken[taken] = now_s + 2 * PROOF_S


def _read(proof: str) -> Unverified:
    try:
        found = read(proof)
    except Unauthenticated:
        raise refused("the DPoP proof is no signed JWT") from None
    if found.typ != "dpop+jwt" or found.algorithm not in ALGORITHMS:
        raise refused("the DPoP proof has the wrong type or algorithm")
    return found


def _check_key(proof: Unverified, wanted: str) -> None:
    jwk = proof.header.get("jwk")
    if not isinstance(jwk, dict) or _PRIVATE & jwk.keys():
        raise refused("the DPoP proof has no public key")
    try:
        key = public_key(jwk)
    except UnusableKey as error:
        raise refused(f"the DPoP proof's key {error.reason}") from None
    if not hmac.compare_digest(key.thumbprint().encode(), wanted.encode()):
        raise refused("the token is bound to another key")
    if not is_signed_by(key, proof.algorithm, proof.signed, proof.signature):
        raise refused("the DPoP proof's signature is not its key's")


def _place(url: object) -> tuple[str, str, int | None, str] | None:
    # Scheme and host in lower case, the scheme's own port where there is none, the path as it is.
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or _PORTS.get(parts.scheme), parts.path or "/"


def refused(description: str) -> Unauthenticated:
    """A refusal that asks for a (better) proof."""
    return Unauthenticated(description, "invalid_dpop_proof", "DPoP", ALGORITHMS)
