"""Who principals are, and what their providers say of them: noted in the log, read back from it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import structlog

from muniment_auth.identity import (
    IdentityForgotten,
    IdentityKeys,
    KeyPlace,
    KeysUnavailable,
    seal,
    unseal,
)
from muniment_auth.principal import Principal
from muniment_schemas.patterns import matches
from muniment_services.domain.commands import Command
from muniment_services.domain.principal import (
    KIND,
    NoteSignIn,
    PrincipalState,
    RegisterPrincipal,
    SignIn,
)
from muniment_services.fold import Fold
from muniment_services.log.base import LogError

AT_HAND_MAX = 10_000
"""Identities that are kept in the clear in memory at most; the ones read longest ago go."""

AT_HAND_MS = 3_600_000
"""For so long: somebody whose key is lost is forgotten here too, an hour later at the latest. An
erased one is at once, by the event that orders it."""

TOKEN_HOLDERS = frozenset({"user", "service"})
"""Kinds of principals that may have tokens of our own: whose sign-ins are noted."""

NOTING_S_MAX = 2.0
"""A request waits for the note of a sign-in for so long; it is written all the same."""

_log = structlog.get_logger("muniment.auth")

SEARCHED_MAX = AT_HAND_MAX
"""Principals whose names are looked at to find one by its name."""

Submit = Callable[[Command], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a principal is: the identity provider, its name for the principal, a name for people."""

    issuer: str
    subject: str
    name: str


ERASED = Identity(issuer="", subject="", name="erased")
"""What is told of a principal that is erased."""


class Identities:
    """Notes and reads identities. Lives on one event loop; keys are read and made in threads."""

    def __init__(
        self,
        place: KeyPlace,
        fold: Fold,
        submit: Submit,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """submit: records a command of the server's own."""
        self._keys = IdentityKeys(place)
        self._fold = fold
        self._submit = submit
        self._now_ms = now_ms
        self._random = random
        self._at_hand: OrderedDict[str, tuple[Identity, int]] = OrderedDict()
        self._registering: dict[str, asyncio.Lock] = {}
        self._noting: dict[str, asyncio.Task[None]] = {}

    async def register_once(self, principal: Principal, *, anew: bool = False) -> None:
        """See that the log says who the principal is, before any event names it as its actor.

        One look-up in memory when it does. The identity is noted as it is at first sight. anew:
        also that of an erased principal, which has logged in again; calls by tokens that it still
        has do not bring it back. Raises KeysUnavailable, and what a write raises.
        """
        if self._is_noted(principal.id, anew):
            return
        lock = self._registering.setdefault(principal.id, asyncio.Lock())
        try:
            async with lock:
                if not self._is_noted(principal.id, anew):
                    await self._register(principal, anew)
                    await self.note_sign_in(principal)
        finally:
            self._registering.pop(principal.id, None)

    async def note_sign_in(self, principal: Principal) -> None:
        """See that the log says what the provider said, for the principal's own tokens to hold.

        Only of principals that have acted, and only what is news; else one look-up in memory. While
        the log takes nothing it is left for the next time. principal: as a provider's token shows
        it; others say nothing.
        """
        found = self._known(principal.id)
        said = sign_in_of(principal)
        if found is None or said is None or not said.is_news_after(found.sign_in):
            return
        if principal.id not in self._noting:
            self._noting[principal.id] = asyncio.create_task(self._note(principal.id, said))
        # It goes on when the request that waits for it goes away.
        await asyncio.wait({self._noting[principal.id]}, timeout=NOTING_S_MAX)

    def latest_sign_in(self, principal_id: str) -> SignIn | None:
        """The latest sign-in of a principal that was noted."""
        found = self._known(principal_id)
        return None if found is None else found.sign_in

    def is_noted(self, principal_id: str) -> bool:
        """Whether the log says who a principal is, or was before it was erased."""
        return self._known(principal_id) is not None

    async def identity(self, principal_id: str) -> Identity | None:
        """Who a principal is; ERASED for one that is erased, None when nobody noted it, or its key
        is lost.

        Raises KeysUnavailable.
        """
        found = self.at_hand(principal_id)
        state = self._known(principal_id)
        if found is not None or state is None:
            return found
        try:
            key = await asyncio.to_thread(self._keys.get, state.key_id)
        except IdentityForgotten:
            return None
        read = unseal(principal_id, state.identity_sealed, key)
        return self._remember(principal_id, Identity(read["iss"], read["sub"], read["name"]))

    async def names(self, ids: Iterable[str]) -> dict[str, str]:
        """What people call some principals; those that are known.

        A name is no reason to refuse an answer: while keys cannot be reached, some are missing.
        """
        found: dict[str, str] = {}
        for principal_id in dict.fromkeys(ids):
            try:
                who = await self.identity(principal_id)
            except KeysUnavailable:
                return found
            if who is not None:
                found[principal_id] = who.name
        return found

    async def ids_of(self, pattern: str) -> list[str]:
        """The principals whose name or subject a pattern (`*` stands for any characters) matches.

        Reads every identity that is not at hand, up to SEARCHED_MAX. Raises KeysUnavailable.
        """
        known = islice(self._fold.state.of_kind(KIND), SEARCHED_MAX)
        ids = [state.principal_id for state in known if isinstance(state, PrincipalState)]
        found = [(one, await self.identity(one)) for one in ids]
        return [
            one
            for one, who in found
            if who is not None and (matches(pattern, who.name) or matches(pattern, who.subject))
        ]

    def at_hand(self, principal_id: str) -> Identity | None:
        """Who a principal is, as far as memory knows without waiting."""
        state = self._known(principal_id)
        if state is not None and state.erased_at_ms is not None:
            self._at_hand.pop(principal_id, None)
            return ERASED
        found = self._at_hand.get(principal_id)
        if found is None or self._now_ms() >= found[1]:
            return None
        return found[0]

    def subject_and_name(self, principal_id: str) -> tuple[str, str] | None:
        """`at_hand` as `Credentials` asks for it."""
        found = self.at_hand(principal_id)
        return None if found is None else (found.subject, found.name)

    async def named(self, principal: Principal) -> Principal:
        """The principal with subject and name, where a token has told its id only.

        While the keys cannot be reached it stays as it is: a name is no reason to refuse anything.
        """
        if principal.subject:
            return principal
        try:
            found = await self.identity(principal.id)
        except KeysUnavailable:
            return principal
        if found is None:
            return principal
        return dataclasses.replace(principal, subject=found.subject, name=found.name)

    def _is_noted(self, principal_id: str, anew: bool) -> bool:
        state = self._known(principal_id)
        return state is not None and not (anew and state.erased_at_ms is not None)

    def _known(self, principal_id: str) -> PrincipalState | None:
        found = self._fold.state.get(KIND, principal_id)
        assert found is None or isinstance(found, PrincipalState)
        return found

    async def _note(self, principal_id: str, said: SignIn) -> None:
        try:
            await self._submit(NoteSignIn(principal_id=principal_id, sign_in=said))
        except LogError as error:
            _log.warning("a sign-in was not noted", principal=principal_id, reason=str(error))
        finally:
            del self._noting[principal_id]

    async def _register(self, principal: Principal, anew: bool) -> None:
        key_id, key = await asyncio.to_thread(self._keys.create, self._random)
        await self._submit(
            RegisterPrincipal(
                principal_id=principal.id,
                principal_kind=principal.kind,
                key_id=key_id,
                identity_sealed=seal(principal, key, self._random),
                anew=anew,
            )
        )
        self._remember(principal.id, Identity(principal.issuer, principal.subject, principal.name))

    def _remember(self, principal_id: str, identity: Identity) -> Identity:
        self._at_hand[principal_id] = (identity, self._now_ms() + AT_HAND_MS)
        self._at_hand.move_to_end(principal_id)
        while len(self._at_hand) > AT_HAND_MAX:
            self._at_hand.popitem(last=False)
        return identity


def sign_in_of(principal: Principal) -> SignIn | None:
    """What a provider says of a principal; None where no provider does, or no token needs it."""
    if principal.vouched_at_ms is None or principal.kind not in TOKEN_HOLDERS:
        return None
    return SignIn(
        groups=tuple(sorted(principal.groups)),
        groups_unknown=principal.groups_unknown,
        claims=principal.claims,
        vouched_at_ms=principal.vouched_at_ms,
    )
