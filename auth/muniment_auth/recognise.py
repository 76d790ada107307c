"""Whom verified claims are about: the principal, with its groups, limits and actors.

Everything here is by the issuer's profile. What a token leaves out is never filled in: groups that
an issuer could not list are unknown, and said to be, not none.
Sources: RFC 8693, 4.1 (act); RFC 9068, 2.2; Entra's reference of token claims (overage).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muniment_auth.claims import VALUES_MAX, Claims, texts, time_s
from muniment_auth.errors import Unauthenticated
from muniment_auth.issuers import Issuer
from muniment_auth.principal import Principal, principal_id

SUBJECT_CHARS_MAX = 512
"""OpenID Connect Core allows 255; those of CI jobs, with workflow and environment, are longer."""

DELEGATION_MAX = 5
SCOPE_PREFIX = "muniment:"
"""Scopes of ours in a token's `scope`: what follows is a permission, or a pattern of some."""

NAMES = ("preferred_username", "name", "email", "upn", "app_displayname")


def scopes_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """All that `scope` and `scp` list."""
    found: list[str] = []
    for name in ("scope", "scp"):
        for text in texts(claims, name):
            found += text.split()
    return tuple(found)


def client_of(issuer: Issuer, claims: Mapping[str, Any]) -> str | None:
    """The OAuth client that a token was given to."""
    for name in issuer.profile.client:
        if found := texts(claims, name):
            return found[0]
    return None


def principal_of(issuer: Issuer, claims: Claims, auth_method: str) -> Principal:
    """The caller that verified claims are about. Raises Unauthenticated for one about none."""
    subject = _subject(issuer, claims)
    client = client_of(issuer, claims)
    limits = [s.removeprefix(SCOPE_PREFIX) for s in scopes_of(claims) if s.startswith(SCOPE_PREFIX)]
    kept = {name: values for name in issuer.kept if (values := texts(claims, name))}
    identifier = texts(claims, "jti") or texts(claims, "uti")
    issued_s = time_s(claims, "iat")
    return Principal(
        id=principal_id(issuer.url, subject),
        kind="user" if auth_method == "session" else _kind(issuer, claims, client),
        issuer=issuer.url,
        subject=subject,
        name=_name(claims, subject),
        auth_method=auth_method,
        client_id=client,
        groups=frozenset(texts(claims, issuer.groups)) if issuer.groups else frozenset(),
        groups_unknown=_groups_unknown(issuer, claims),
        claims=kept,
        scopes=frozenset(filter(None, limits)) if limits else None,
        delegation=_delegation(issuer, claims),
        token_id=identifier[0] if identifier else None,
        vouched_at_ms=None if issued_s is None else int(issued_s * 1000),
    )


def _subject(issuer: Issuer, claims: Claims) -> str:
    subject = _text(claims.get("sub"))
    for name in issuer.profile.subject:
        if name in claims:
            return _text(claims[name])
    if "sub" not in issuer.profile.subject:
        raise Unauthenticated(f"the token has no {issuer.profile.subject[0]}")
    return subject


def _text(found: object) -> str:
    """A subject: a text that is there, and that prints."""
    if not isinstance(found, str) or not 0 < len(found) <= SUBJECT_CHARS_MAX:
        raise Unauthenticated("the token has no subject")
    if not found.strip() or not found.isprintable():
        raise Unauthenticated("the token's subject is none")
    return found


def _kind(issuer: Issuer, claims: Claims, client: str | None) -> str:
    """Sources: how each vendor marks tokens of client credentials. What none marks is a user's."""
    if issuer.profile.kind != "user":
        return issuer.profile.kind
    email = claims.get("email")
    is_service = (
        claims.get("idtyp") == "app"
        or claims.get("gty") == "client-credentials"
        or (client is not None and claims.get("sub") == client)
        or (isinstance(email, str) and email.endswith(".gserviceaccount.com"))
        or (issuer.profile_name == "keycloak" and _is_service_account(claims, client))
        or (issuer.profile_name == "entra" and _is_application(claims))
    )
    return "service" if is_service else "user"


def _is_service_account(claims: Claims, client: str | None) -> bool:
    # Keycloak names a client's own user after it, in lower case; the name needs the scope profile,
    # but where the client called from (client scope service_account) stands in its tokens alone.
    username, name = claims.get("preferred_username"), client or ""
    if isinstance(username, str):
        return bool(name) and username == f"service-account-{name}".lower()
    return bool(name) and "clientHost" in claims and claims.get("client_id") == name


def _is_application(claims: Claims) -> bool:
    # Where idtyp is not asked for: an application's token is about itself, for nobody's scope.
    return claims.get("sub") == claims.get("oid") and "scp" not in claims


def _name(claims: Claims, subject: str) -> str:
    for name in NAMES:
        if found := texts(claims, name):
            return found[0]
    return subject


def _groups_unknown(issuer: Issuer, claims: Claims) -> str | None:
    # Entra leaves groups out of a token when there are over 200 (150 in SAML, 6 by implicit flow).
    elsewhere, left_out = claims.get("_claim_names"), claims.get("hasgroups")
    if (isinstance(elsewhere, dict) and "groups" in elsewhere) or left_out in (True, "true"):
        return (
            "the token says that there are too many to list; assign the groups that matter to the "
            "application, or grant by role or principal"
        )
    if issuer.groups and len(texts(claims, issuer.groups)) == VALUES_MAX:
        return f"the token lists {VALUES_MAX} or more; have the issuer list those that matter"
    return None


def _delegation(issuer: Issuer, claims: Claims) -> tuple[str, ...]:
    chain: list[str] = []
    holder: Mapping[str, Any] = claims
    while "act" in holder:
        actor = holder["act"]
        if not isinstance(actor, Mapping) or len(chain) == DELEGATION_MAX:
            raise Unauthenticated("the token's chain of actors cannot be followed")
        of = actor.get("iss", issuer.url)
        if not isinstance(of, str):
            raise Unauthenticated("the token's chain of actors cannot be followed")
        chain.append(principal_id(of, _text(actor.get("sub"))))
        holder = actor
    return tuple(chain)
