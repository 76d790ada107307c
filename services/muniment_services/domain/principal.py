"""Principals: who has ever acted, and what was said of them when they last signed in.

The identity is sealed under a key of the principal's own before it reaches the domain; nothing here
can read it. An erased principal keeps its id, which stands in all that it did; who it was cannot be
read any more once the key is destroyed (`erasures.py`). It goes on without a name unless it logs in
by browser anew: that registers it under the same id, with another key.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muniment_schemas import events as e
from muniment_services.domain import hold
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.limits import SIGN_IN_NOTED_MS, check_length, shown

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
    """A principal as the log knows it.

    erased_at_ms: since when nobody is to know who it is; None: it is known, or known again.
    erased_key_ids: of all keys that are to be destroyed.
    """

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes
    sign_in: SignIn | None = None
    """The latest that was noted."""
    erased_at_ms: int | None = None
    erased_by: str | None = None
    erased_reason: str | None = None
    erased_key_ids: tuple[str, ...] = ()


class RegisterPrincipal(Command, frozen=True, kw_only=True):
    """Note a principal that is not known yet. anew: also one that was erased."""

    principal_id: str
    principal_kind: str
    key_id: str
    identity_sealed: bytes
    anew: bool = False

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.principal_id)


class ErasePrincipal(Command, frozen=True, kw_only=True):
    """Have it forgotten who a principal is."""

    principal_id: str
    reason: str

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
    found = _find(world, command.principal_id)
    if found is not None and not (command.anew and found.erased_at_ms is not None):
        return None
    return e.PrincipalRegistered(
        envelope=context.envelope(
            e.PrincipalRegistered,
            command.principal_id,
            expected_version=0 if found is None else found.version,
        ),
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


def erase(world: World, command: ErasePrincipal, context: Context) -> e.PrincipalErased | None:
    """None when it is erased already. Raises Invalid, NotFound, Held."""
    if not command.reason.strip():
        raise Invalid("Say why: 'reason' stays in the log for auditors; no personal data.")
    check_length("reason", command.reason, hold.REASON_CHARS_MAX)
    found = _find(world, command.principal_id)
    if found is None:
        raise NotFound(f"There is no principal {shown(command.principal_id)}.")
    if found.erased_at_ms is not None:
        return None
    hold.refuse(hold.on_principal(world, found.principal_id), "Who this principal is")
    return e.PrincipalErased(
        envelope=context.envelope(
            e.PrincipalErased, found.principal_id, expected_version=found.version
        ),
        key_id=found.key_id,
        reason=command.reason,
    )


def _find(world: World, principal_id: str) -> PrincipalState | None:
    found = world.known(KIND, principal_id)
    assert found is None or isinstance(found, PrincipalState)
    return found


def evolve(state: PrincipalState | None, event: e.Event) -> PrincipalState:
    """The principal behind an event. Raises Void."""
    if isinstance(event, e.PrincipalErased):
        if state is None:
            raise Void("there is no such principal")
        return msgspec.structs.replace(
            state,
            version=state.version + 1,
            identity_sealed=b"",
            sign_in=None,
            erased_at_ms=event.envelope.recorded_at_ms,
            erased_by=event.envelope.actor.principal_id,
            erased_reason=event.reason,
            erased_key_ids=(*state.erased_key_ids, event.key_id),
        )
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
        erased_key_ids=() if state is None else state.erased_key_ids,
    )
