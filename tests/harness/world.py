"""What `decide` needs, in memory: a world that folds what was decided, a clock, seeded ids."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from muniment_schemas.access_events import LOCAL
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor, Event
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services import approvers, conditions
from muniment_services.domain.commands import Command, Context, State
from muniment_services.domain.deciders import DECIDERS
from muniment_services.log.base import Record, TopicPartition, partition_of, topics
from muniment_services.state import CurrentState

ACTOR = Actor(principal_id="tester", auth_method="local")
TOPICS = topics()


@dataclass
class TestWorld:
    """Current state and the events that led to it; `do` decides a command and folds its event."""

    __test__ = False

    state: CurrentState = field(default_factory=CurrentState)
    events: list[Event] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    now_ms: int = 1_700_000_000_000
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    codec: Codec = field(default_factory=lambda: Codec(Schemas.load()))
    rights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What people may approve by, where it is not as the local user."""

    def context(self, who: str = ACTOR.principal_id, groups: Iterable[str] = ()) -> Context:
        """A context at the next millisecond, of whoever asks."""
        self.now_ms += 1
        return Context(
            now_ms=self.now_ms,
            random=self.chance.randbytes,
            actor=Actor(principal_id=who, auth_method=ACTOR.auth_method),
            request_id="request",
            workspace="default",
            groups=frozenset(groups),
            holds=conditions.holds,
            rights=lambda model, target: self.rights.get(who, (LOCAL,)),
            gives=approvers.gives,
        )

    def decide(self, command: Command, who: str = ACTOR.principal_id, *groups: str) -> Event | None:
        """What the command would lead to. Raises DomainError."""
        return DECIDERS[type(command)](self.state, command, self.context(who, groups))

    def do(self, command: Command, who: str = ACTOR.principal_id, *groups: str) -> State | None:
        """Decide and fold; the aggregate behind the event, or None when there was nothing to do."""
        event = self.decide(command, who, *groups)
        return None if event is None else self.fold(event)

    def fold(self, event: Event) -> State | None:
        """Fold an event as the next record of its partition; an AssertionError if it is void."""
        folded = self.state.fold(self.record(event), event)
        assert folded.void is None, folded.void
        assert folded.after is None or isinstance(folded.after, State)
        return folded.after

    def record(self, event: Event) -> Record:
        """The event as the record that the log would give."""
        key = getattr(event, "owner", event.envelope.aggregate_id).encode()
        at = TopicPartition(event.TOPIC, partition_of(key, TOPICS[event.TOPIC]))
        offset = self.state.next_offsets.get(at, Offset(0))
        headers = (("ce_id", event.envelope.event_id.encode()),)
        value = self.codec.encode(event)
        record = Record(at, offset, key, value, headers, event.envelope.recorded_at_ms)
        self.events.append(event)
        self.records.append(record)
        return record
