"""Who calls: a principal with an id of its own, however it was verified.

The id is what events carry. Name and address stand in one event kind only (`PrincipalRegistered`),
sealed under the principal's own key.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from muniment_schemas.envelope import Actor
from muniment_schemas.ids import PrincipalId

LOCAL_ISSUER = "muniment:local"

_NAMESPACE = uuid.UUID("5b0f6f3e-5d0c-5c52-9a53-0d3c9bb0a5f1")


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller: an issuer's subject, never an e-mail address.

    kind: local, user, service (an OAuth client of its own), workload (a CI job, a pod).
    auth_method: local, bearer, introspection, dpop, session, token or system.
    groups: as the issuer names them. groups_unknown: why they are not all known, if they are not.
    claims: verified claims that grants may be bound to, each with its values as text.
    scopes: permissions (or patterns of them, `run:*`) that the credential is limited to; None: all
    that the principal holds. delegation: ids of principals that act for this one, outermost first.
    token_id: public id of our own token or session, or the `jti` of a provider's token.
    vouched_at_ms: when an identity provider said all this, by its own clock; None where none did.
    """

    id: PrincipalId
    kind: str
    issuer: str
    subject: str
    name: str
    auth_method: str
    client_id: str | None = None
    groups: frozenset[str] = frozenset()
    groups_unknown: str | None = None
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: frozenset[str] | None = None
    delegation: tuple[str, ...] = ()
    token_id: str | None = None
    vouched_at_ms: int | None = None

    @property
    def actor(self) -> Actor:
        """The principal as events show it."""
        return Actor(
            principal_id=self.id,
            client_id=self.client_id,
            auth_method=self.auth_method,
            delegation=self.delegation,
            token_id=self.token_id,
        )


NOBODY = Principal(
    id=PrincipalId("nobody"), kind="nobody", issuer="", subject="", name="", auth_method="none"
)
"""Whoever calls what is open to all."""


def principal_id(issuer: str, subject: str) -> PrincipalId:
    """The id of (issuer, subject): the same on every replica, and it names nobody."""
    return PrincipalId(uuid.uuid5(_NAMESPACE, f"{issuer}\n{subject}").hex)


def local_principal(user_name: str) -> Principal:
    """The user of this machine, who is whoever can reach a loopback listener.

    user_name: the operating system's name of the user that runs the server.
    """
    return Principal(
        id=principal_id(LOCAL_ISSUER, user_name),
        kind="local",
        issuer=LOCAL_ISSUER,
        subject=user_name,
        name=user_name,
        auth_method="local",
    )
