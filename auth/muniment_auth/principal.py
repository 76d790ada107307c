"""Who calls: a principal with an id of its own, however it was verified.

The id is what events carry. Name and address stand in one event kind only (`PrincipalRegistered`),
sealed under the principal's own key.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from muniment_schemas.envelope import Actor
from muniment_schemas.ids import PrincipalId

LOCAL_ISSUER = "muniment:local"

_NAMESPACE = uuid.UUID("5b0f6f3e-5d0c-5c52-9a53-0d3c9bb0a5f1")


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller: an issuer's subject, never an e-mail address."""

    id: PrincipalId
    kind: str
    issuer: str
    subject: str
    name: str
    auth_method: str

    @property
    def actor(self) -> Actor:
        """The principal as events show it."""
        return Actor(principal_id=self.id, auth_method=self.auth_method)


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
