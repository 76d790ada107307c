"""Principals: who has ever acted. Written once per principal, and again when its details change.

The identity is sealed under a key of the principal's own before it reaches the domain; nothing here
can read it.
"""

from __future__ import annotations

from muniment_schemas import events as e
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World

KIND = "principal"


class PrincipalState(State, frozen=True, kw_only=True):
    """A principal as the log knows it."""

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes


class RegisterPrincipal(Command, frozen=True, kw_only=True):
    """Note a principal that is not known yet."""

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.principal_id)


def register(
    world: World, command: RegisterPrincipal, context: Context
) -> e.PrincipalRegistered | None:
    """None when the principal is known already."""
    if world.get(KIND, command.principal_id) is not None:
        return None
    return e.PrincipalRegistered(
        envelope=context.envelope(e.PrincipalRegistered, command.principal_id, expected_version=0),
        principal_kind=command.principal_kind,
        key_id=command.key_id,
        identity_sealed=command.identity_sealed,
    )


def evolve(state: PrincipalState | None, event: e.Event) -> PrincipalState:
    """The principal behind an event."""
    assert isinstance(event, e.PrincipalRegistered)
    return PrincipalState(
        version=1 if state is None else state.version + 1,
        principal_id=event.envelope.aggregate_id,
        principal_kind=event.principal_kind,
        key_id=event.key_id,
        identity_sealed=event.identity_sealed,
    )
