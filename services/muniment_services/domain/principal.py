"""Principals: who has ever acted, and what was said of them when they last signed in.

The identity is sealed under a key of the principal's own before it reaches the domain; nothing here
can read it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muniment_schemas import events as e
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Void
from muniment_services.domain.limits import SIGN_IN_NOTED_MS

KIND = "principal"


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """What an identity provider said of a principal, and when, in milliseconds since 1970 UTC."""

    groups: tuple[str, ...]
    groups_unknown: str | None
    claims: Mapping[str, tuple[str, ...]]
    vouched_at_ms: int

    def is_news_after(self, noted: SignIn | None) -> bool:
        """Whether it has to be noted: it is later, and says something else or a day has gone by.

        A token that was made before what is noted never counts, however long it lives.
        """
        if noted is None:
            return True
        later_ms = self.vouched_at_ms - noted.vouched_at_ms
        if later_ms <= 0:
            return False
        return later_ms >= SIGN_IN_NOTED_MS or (
            (self.groups, self.groups_unknown, self.claims)
            != (noted.groups, noted.groups_unknown, noted.claims)
        )


class PrincipalState(State, frozen=True, kw_only=True):
    """A principal as the log knows it."""

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes
    sign_in: SignIn | None = None
    """The latest that was noted."""


class RegisterPrincipal(Command, frozen=True, kw_only=True):
    """Note a principal that is not known yet."""

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.principal_id)


class NoteSignIn(Command, frozen=True, kw_only=True):
    """Note what an identity provider says of a known principal that has just signed in."""

    principal_id: str
    sign_in: SignIn

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


def note_sign_in(world: World, command: NoteSignIn, context: Context) -> e.SignInNoted | None:
    """None when it says nothing new, or the principal has never acted."""
    found = world.get(KIND, command.principal_id)
    said = command.sign_in
    if not isinstance(found, PrincipalState) or not said.is_news_after(found.sign_in):
        return None
    return e.SignInNoted(
        envelope=context.envelope(
            e.SignInNoted, command.principal_id, expected_version=found.version
        ),
        groups=said.groups,
        groups_unknown=said.groups_unknown,
        claims=dict(said.claims),
        vouched_at_ms=said.vouched_at_ms,
    )


def evolve(state: PrincipalState | None, event: e.Event) -> PrincipalState:
    """The principal behind an event."""
    if isinstance(event, e.SignInNoted):
        if state is None:
            raise Void("there is no such principal")
        sign_in = SignIn(
            groups=event.groups,
            groups_unknown=event.groups_unknown,
            claims=event.claims,
            vouched_at_ms=event.vouched_at_ms,
        )
        return msgspec.structs.replace(state, version=state.version + 1, sign_in=sign_in)
    assert isinstance(event, e.PrincipalRegistered)
    return PrincipalState(
        version=1 if state is None else state.version + 1,
        principal_id=event.envelope.aggregate_id,
        principal_kind=event.principal_kind,
        key_id=event.key_id,
        identity_sealed=event.identity_sealed,
        sign_in=None if state is None else state.sign_in,
    )
