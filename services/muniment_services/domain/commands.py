"""What every command has in common, and what `decide` functions are given.

A command says what a caller wants, in the domain's words; it is checked against current state and
becomes at most one event. `needs` names the aggregates that must be in memory before it is decided;
`serial` names the history that its event's expected_version is about, so that commands of one
process do not race against each other for nothing (replicas settle their races by the log's order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from muniment_schemas.access_events import LOCAL, Grant
from muniment_schemas.envelope import Actor, Envelope, Event
from muniment_schemas.ids import UUID7_RANDOM_BYTES, dashed, derived_uuid7_hex, uuid7_hex

AggregateKey = tuple[str, str]
"""(kind, id) of one aggregate."""

Gives = Callable[[Any, Grant, Any, Any, int], bool]
"""Whether by a (world, grant, model, target, now_ms) somebody may approve."""

GROUP_OF = "@"
"""Between a group's name and the URL of its issuer."""

S = TypeVar("S", bound="State")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Base of aggregate states: frozen, replaced as a whole by `evolve`."""

    version: int


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all commands.

    FRESH: whether it is decided only after all that is in the log has been folded, because it looks
    at things whose history its own event does not share. False for what jobs log all the time:
    what those may not do shows when they are folded.
    """

    FRESH: ClassVar[bool] = True

    def needs(self) -> tuple[AggregateKey, ...]:
        """Aggregates outside the catalog that `decide` looks at."""
        return ()

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """Aggregates outside the catalog that are known only from what the catalog says."""
        return ()

    def serial(self) -> AggregateKey | None:
        """The history that only one command of this process at a time may be deciding on."""
        return None


class World(Protocol):
    """Current state, as far as `decide` may see it. All look-ups are in memory."""

    def get(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate's state, or None when it does not exist."""

    def named(self, kind: str, name: str) -> State | None:
        """The experiment or registered model that has a name."""

    def taken(self, kind: str, name: str) -> State | None:
        """The same, also when the caller may not know that it exists: names are unique."""

    def known(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate, whoever asks: for what has to be true, not for what is told."""

    def of_kind(self, kind: str) -> Iterable[State]:
        """All catalog aggregates of one kind."""

    def known_of_kind(self, kind: str) -> Iterable[State]:
        """The same, whoever asks and from wherever."""

    def versions_of_files(self, owner: str) -> Iterable[tuple[str, int]]:
        """Registered versions whose files are in a run's or logged model's folder, whoever asks:
        the model's id and the version's number."""

    def next_experiment_id(self) -> str:
        """The smallest number above all experiment ids in use."""


def _unasked(condition: str, _: object) -> bool:
    raise AssertionError(f"nobody can say whether {condition!r} holds")


def _as_the_server(_: object, __: object) -> tuple[str, ...]:
    return (LOCAL,)


def _no_grants(*_: object) -> bool:
    raise AssertionError("nobody can say what a grant gives")


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, when, and where new ids come from. Everything that is not state or command.

    now_ms: the server's clock. random: so many random bytes. derive_from: what ids are derived from
    when the caller sent an Idempotency-Key, else None. groups, claims: what is verified of the
    actor, as far as decisions look at it. issuer: whose groups they are; bare_groups: whether it is
    the only one, so that a group's name alone says which is meant. holds: whether a condition, in
    the language of run searches, is true of a run. Raises Invalid for one that cannot be read.
    rights: all that the actor may approve a (model, target) by. client_address, user_agent: where
    the request came from, as the envelope tells it.
    """

    now_ms: int
    random: Callable[[int], bytes]
    actor: Actor
    request_id: str
    workspace: str
    traceparent: str | None = None
    client_address: str | None = None
    user_agent: str | None = None
    derive_from: bytes | None = None
    groups: frozenset[str] = frozenset()
    issuer: str = ""
    bare_groups: bool = True
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holds: Callable[[str, Any], bool] = _unasked
    rights: Callable[[Any, Any], tuple[str, ...]] = _as_the_server
    gives: Gives = _no_grants

    @property
    def group_names(self) -> frozenset[str]:
        """The actor's groups by all names that a policy may have for them."""
        whole = {f"{group}{GROUP_OF}{self.issuer}" for group in self.groups}
        return frozenset(whole | self.groups if self.bare_groups else whole)

    def new_id(self, at_ms: int) -> str:
        """A new id of 32 hex digits that sorts by `at_ms`; the same for the same derive_from."""
        if self.derive_from is not None:
            return derived_uuid7_hex(at_ms, self.derive_from)
        return uuid7_hex(at_ms, self.random(UUID7_RANDOM_BYTES))

    def envelope(
        self,
        event_type: type[Event],
        aggregate_id: str,
        *,
        expected_version: int | None = None,
        occurred_at_ms: int | None = None,
    ) -> Envelope:
        """The envelope of a new event; it has a fresh event id."""
        return Envelope(
            event_id=dashed(self.new_id(self.now_ms)),
            type=event_type.__name__,
            aggregate_kind=event_type.AGGREGATE,
            aggregate_id=aggregate_id,
            expected_version=expected_version,
            workspace=self.workspace,
            actor=self.actor,
            request_id=self.request_id,
            traceparent=self.traceparent,
            client_address=self.client_address,
            user_agent=self.user_agent,
            occurred_at_ms=occurred_at_ms,
            recorded_at_ms=self.now_ms,
        )
