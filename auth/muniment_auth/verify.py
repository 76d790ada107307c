"""From a token to a principal: the one place where claims become trusted.

In this order: the form (`claims.read`), the issuer by exact `iss`, the algorithm, all that the
claims say of when, for whom and for what they are, and then the key of that issuer and the
signature: a token that could not be good in any case costs no key. Nothing in a token's header
chooses a key but its key id, within the issuer's own keys.
Sources: RFC 7519, RFC 8725, RFC 9068, RFC 9700; RFC 8693, 4.1 (act).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muniment_auth.claims import Claims, Unverified, texts, time_s
from muniment_auth.errors import InsufficientScope, Unauthenticated
from muniment_auth.issuers import Issuer
from muniment_auth.jose import PublicKey, is_signed_by
from muniment_auth.principal import Principal
from muniment_auth.profiles import BASE_REQUIRED
from muniment_auth.recognise import client_of, principal_of, scopes_of

LEEWAY_S = 60
"""Clocks may differ by so much. Source: RFC 7519, 4.1.4."""

ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
PLAIN_TYPES = frozenset({"", "jwt"})
IS_ID_TOKEN = "the token is an ID token; present an access token"


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential that proved who calls. expires_s: when it ends, leeway included.

    key_thumbprint: of the key that whoever uses it must hold (RFC 9449, cnf.jkt), if it is bound.
    """

    principal: Principal
    expires_s: float
    key_thumbprint: str | None = None


def check_signature(token: Unverified, key: PublicKey) -> Claims:
    """The payload, now verified. Raises Unauthenticated."""
    if not is_signed_by(key, token.algorithm, token.signed, token.signature):
        raise Unauthenticated("the token's signature is not the issuer's")
    return Claims(token.payload)


def check_algorithm(issuer: Issuer, token: Unverified) -> None:
    """Raise Unauthenticated for an algorithm that the issuer's tokens are not signed with."""
    if token.algorithm not in issuer.algorithms_taken:
        raise Unauthenticated("the token's algorithm is not accepted")


def check_access_token(issuer: Issuer, token: Unverified, now_s: float) -> None:
    """Raise AuthError for what no key could make good: not now, not for us, no access token."""
    check_algorithm(issuer, token)
    if token.typ not in PLAIN_TYPES | ACCESS_TOKEN_TYPES:
        raise Unauthenticated("the token is of another type")
    for name in BASE_REQUIRED:
        if name not in token.payload:
            raise Unauthenticated(f"the token has no {name}")
    check_times(issuer, token.payload, now_s)
    check_audience(issuer.audiences, token.payload)
    _check_kind(issuer, token)
    check_client(issuer, token.payload)


def access_token(issuer: Issuer, claims: Claims) -> Verified:
    """What an access token proves that `check_access_token` let pass. Raises AuthError."""
    expires_s = time_s(claims, "exp")
    assert expires_s is not None, "check_times saw it"
    check_scope(issuer, claims)
    principal = principal_of(issuer, claims, "bearer")
    return Verified(principal, expires_s + LEEWAY_S, thumbprint_of(claims))


def check_id_token(
    issuer: Issuer, token: Unverified, nonce: str, now_s: float, renewed: bool = False
) -> None:
    """Raise Unauthenticated for what is no ID token for a login of ours, begun with `nonce`.

    renewed: the login is an old one that was renewed, whose ID tokens need not repeat the nonce.
    Source: OpenID Connect Core 1.0, 3.1.3.7 and 12.2.
    """
    assert issuer.client_id is not None, "a login needs a client"
    check_algorithm(issuer, token)
    claims, types = token.payload, issuer.profile.id_types
    if token.typ not in PLAIN_TYPES or (types and claims.get("typ") not in types):
        raise Unauthenticated("the token is no ID token")
    if "iat" not in claims:
        raise Unauthenticated("the token has no iat")
    check_times(issuer, claims, now_s)
    check_audience((issuer.client_id,), claims)
    audiences, party = claims.get("aud"), claims.get("azp")
    several = isinstance(audiences, list) and len(audiences) > 1
    if party != issuer.client_id and (several or party is not None):
        raise Unauthenticated("the ID token is another client's")
    given = claims.get("nonce")
    if renewed and given is None:
        return
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise Unauthenticated("the ID token is not of this login")


def check_times(issuer: Issuer, claims: Mapping[str, Any], now_s: float) -> float:
    """When the token ends, leeway included. Raises Unauthenticated unless it counts now."""
    expires_s, begins_s, issued_s = (time_s(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_s is None:
        raise Unauthenticated("the token has no end")
    if expires_s + LEEWAY_S <= now_s:
        raise Unauthenticated("the token has expired")
    if begins_s is not None and begins_s - LEEWAY_S > now_s:
        raise Unauthenticated("the token does not count yet")
    if issued_s is not None and issued_s - LEEWAY_S > now_s:
        raise Unauthenticated("the token was issued in the future")
    if expires_s - (now_s if issued_s is None else issued_s) > issuer.life_s_max:
        raise Unauthenticated(f"the token lives longer than {issuer.life_s_max} s")
    return expires_s + LEEWAY_S


def check_audience(wanted: tuple[str, ...], claims: Mapping[str, Any]) -> None:
    """Raise Unauthenticated unless the token is meant for one of the audiences."""
    given = claims.get("aud")
    listed = given if isinstance(given, list) else [given]
    if not all(isinstance(audience, str) for audience in listed):
        raise Unauthenticated("the token's audience is none")
    if not set(wanted) & set(listed):
        raise Unauthenticated("the token is for another audience")


def _check_kind(issuer: Issuer, token: Unverified) -> None:
    """Raise Unauthenticated for an ID token, a refresh token, or what another product made."""
    profile, claims = issuer.profile, token.payload
    if profile.bearer_types:
        if claims.get("typ") not in profile.bearer_types:
            raise Unauthenticated("the token is no access token")
    elif not profile.id_tokens and token.typ not in ACCESS_TOKEN_TYPES:
        if ID_TOKEN_CLAIMS & claims.keys() or _is_for_login_only(issuer, claims):
            raise Unauthenticated(IS_ID_TOKEN)
        if profile.marks and not any(mark in claims for mark in profile.marks):
            raise Unauthenticated(IS_ID_TOKEN)
    for name in profile.required:
        if not texts(claims, name):
            raise Unauthenticated(f"the token has no {name}, which its issuer's tokens have")
    # Okta's tokens of people name them for good (uid); one without it is a service's own.
    first = profile.subject[0]
    if first not in claims and claims.get("sub") != client_of(issuer, claims):
        raise Unauthenticated(f"the token has no {first}")
    if profile.service_account:
        named = (texts(claims, name)[0] for name in profile.service_account)
        if claims.get("sub") != ":".join(("system:serviceaccount", *named)):
            raise Unauthenticated("the token's subject is not its service account")


def _is_for_login_only(issuer: Issuer, claims: Mapping[str, Any]) -> bool:
    # Where the API and the login share an id, `aud` does not tell ID tokens apart: a scope does.
    return issuer.client_id in issuer.audiences and not ("scope" in claims or "scp" in claims)


def check_client(issuer: Issuer, claims: Mapping[str, Any]) -> None:
    """Raise Unauthenticated for a token that was given to a client that is not accepted."""
    if issuer.clients and client_of(issuer, claims) not in issuer.clients:
        raise Unauthenticated("the token is of a client that is not accepted")


def check_scope(issuer: Issuer, claims: Claims) -> None:
    """Raise InsufficientScope unless the token carries what every token of its issuer must."""
    if issuer.required_scope is not None and issuer.required_scope not in scopes_of(claims):
        raise InsufficientScope(f"the token lacks the scope {issuer.required_scope}")


def thumbprint_of(claims: Mapping[str, Any]) -> str | None:
    """Of the key that a token is bound to; None: it is bound to none. Raises Unauthenticated."""
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    thumbprint = bound.get("jkt") if isinstance(bound, Mapping) else None
    if not isinstance(thumbprint, str) or not thumbprint:
        raise Unauthenticated("the token is bound to a key in a way that is not supported")
    return thumbprint
