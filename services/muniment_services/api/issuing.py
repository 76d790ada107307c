"""Making a principal's credentials: the secret goes to the caller, its hash into the log."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from muniment_auth import tokens
from muniment_auth.credentials import SERVICE_ISSUER
from muniment_auth.principal import Principal, principal_id
from muniment_auth.sessions import Renewal, seal_renewal
from muniment_auth.tokens import Secret
from muniment_schemas.credential_events import SESSION
from muniment_schemas.envelope import Actor
from muniment_services.authority import Denied
from muniment_services.domain.credential import Credential, IssueCredential
from muniment_services.write import Caller, Outcome, Writer

OWN_METHODS = frozenset({"token", "session"})
"""Ways to be verified whose `token_id` is the id of one of our own credentials."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a new credential shall be. scopes: None for all that the principal holds.

    renewal: what the provider is asked with again, for a session.
    """

    kind: str
    name: str
    expires_at_ms: int
    description: str | None = None
    scopes: frozenset[str] | None = None
    renewal: Renewal | None = None


async def issue(
    writer: Writer,
    caller: Caller,
    principal: Principal,
    wish: Wish,
    maker_id: str | None,
    random: Callable[[int], bytes] = os.urandom,
) -> tuple[Secret, Credential]:
    """A new credential of `principal`. Raises Denied, DomainError, and what a write raises.

    The secret is given to nobody but whoever called: no event, no stored answer has it.
    """
    refuse_delegated(caller.actor)
    assert caller.idempotency_key is None, "the answer to a repeat would need the secret"
    prefix = tokens.SESSION_PREFIX if wish.kind == SESSION else tokens.TOKEN_PREFIX
    secret = tokens.new_secret(prefix, random)
    made: list[Credential] = []

    def take(outcome: Outcome) -> bytes:
        assert isinstance(outcome.after, Credential)
        made.append(outcome.after)
        return b""

    sealed = None if wish.renewal is None else seal_renewal(secret, wish.renewal, random)
    await writer.submit(caller, _command(principal, wish, secret, maker_id, sealed), take)
    return secret, made[-1]


def refuse_delegated(actor: Actor) -> None:
    """Raise Denied for one that somebody else acts for: what it made would not say so any more."""
    if actor.delegation:
        raise Denied(
            "whoever acts for another (by a token with an `act` claim, or one of a service) makes "
            "no tokens and opens no sessions, since what is done with them would count as the "
            "other's own doing"
        )


def service_principal(name: str) -> Principal:
    """The principal of a service that muniment itself keeps."""
    return Principal(
        id=principal_id(SERVICE_ISSUER, name),
        kind="service",
        issuer=SERVICE_ISSUER,
        subject=name,
        name=name,
        auth_method="token",
    )


def own_credential_id(principal: Principal) -> str | None:
    """Id of the token or session that a call is made with, when it is one of our own."""
    return principal.token_id if principal.auth_method in OWN_METHODS else None


def _command(
    principal: Principal,
    wish: Wish,
    secret: Secret,
    maker_id: str | None,
    renewal_sealed: bytes | None,
) -> IssueCredential:
    return IssueCredential(
        credential_id=secret.id,
        credential_kind=wish.kind,
        principal_id=principal.id,
        principal_kind=principal.kind,
        issuer=principal.issuer,
        secret_sha256=secret.sha256,
        name=wish.name,
        expires_at_ms=wish.expires_at_ms,
        description=wish.description,
        scopes=tuple(sorted(wish.scopes or ())),
        groups=tuple(sorted(principal.groups)),
        groups_unknown=principal.groups_unknown,
        claims=principal.claims,
        client_id=principal.client_id,
        maker_id=maker_id,
        vouched_at_ms=principal.vouched_at_ms,
        renewal_sealed=renewal_sealed,
    )
