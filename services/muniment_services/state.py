"""Current state: the fold of the log, held in memory as far as decisions need it.

There is one fold. It decides once, for every record, whether the event applies and what its
aggregate is afterwards; decisions read that state, and projections write it down in batches. The
catalog (experiments, registered models, principals) is in memory whole; of runs, logged models and
traces the most recently used are, the others are read back from their documents in the projections.

What always holds: folding the same records in the same order gives the same state, whatever the
batches; state changes by folding a record and in no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muniment_projections.base import Folded, Quarantine
from muniment_schemas.envelope import ACCESS, CATALOG, WORKSPACE_DEFAULT, Event
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, State
from muniment_services.domain.deciders import EVOLVERS, FOLD_CHECKS, NAMED_KINDS
from muniment_services.domain.errors import Void
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.version_files import owners_of_files
from muniment_services.log.base import Record, TopicPartition
from muniment_services.unreadable import Unreadable

STATES_IN_MEMORY_MAX = 20_000
"""Runs, logged models and traces that are kept in memory at most; the least recently used go."""

REQUESTS_REMEMBERED_MAX = 100_000
"""Idempotency-Keys that are remembered per topic-partition: the newest ones, counted in the log."""

Loader = Callable[[Sequence[AggregateKey]], Mapping[AggregateKey, State]]


@dataclass(frozen=True, slots=True)
class Keyed:
    """Where the first request with an Idempotency-Key was recorded, and what it asked for."""

    at: TopicPartition
    offset: Offset
    request_sha256: bytes


@dataclass(slots=True)
class Stopped:
    """A history that cannot be followed any further: since which record, why, how many wait."""

    at: TopicPartition
    offset: Offset
    event_type: str
    reason: str
    held: int = 0


@dataclass(slots=True)
class CurrentState:
    """The fold's result so far. Not thread-safe: one thread (or event loop) owns it."""

    catalog: dict[AggregateKey, State] = field(default_factory=dict)
    recent: dict[AggregateKey, tuple[State | None, int]] = field(default_factory=dict)
    """Runs, logged models and traces, the least recently used first, each with the number of the
    fold that gave it this state (0: as the projections have it). None: deleted."""
    folded: int = 0
    """Records folded so far."""
    names: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """(kind, workspace, name) to id."""
    requests: dict[TopicPartition, dict[bytes, Keyed]] = field(default_factory=dict)
    next_offsets: dict[TopicPartition, Offset] = field(default_factory=dict)
    highest_experiment: int = 0
    quarantine: dict[AggregateKey, Stopped] = field(default_factory=dict)
    """Histories in quarantine. Their aggregates stay as they were before the record."""
    _kinds: dict[str, dict[str, State]] = field(init=False, default_factory=dict)
    """The catalog by kind and id."""
    _files: dict[str, dict[tuple[str, int], None]] = field(init=False, default_factory=dict)
    """Registered versions (model's id, number) by the runs and logged models that have their files,
    in the order in which they were registered."""

    def __post_init__(self) -> None:
        """Index the catalog that it begins with."""
        for (kind, aggregate_id), state in self.catalog.items():
            self._kinds.setdefault(kind, {})[aggregate_id] = state
            self._note_files(None, state)

    def get(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate, if it exists and is in memory (the catalog always is)."""
        key = (kind, aggregate_id)
        found = self.catalog.get(key)
        return found if found is not None else self._used(key)

    def named(self, kind: str, name: str, workspace: str = WORKSPACE_DEFAULT) -> State | None:
        """The holder of a name, which is unique in its workspace."""
        aggregate_id = self.names.get((kind, workspace, name))
        return None if aggregate_id is None else self.catalog[(kind, aggregate_id)]

    taken = named
    known = get

    def of_kind(self, kind: str) -> Iterable[State]:
        """All catalog aggregates of one kind."""
        return tuple(self._kinds.get(kind, {}).values())

    known_of_kind = of_kind

    def versions_of_files(self, owner: str) -> Iterable[tuple[str, int]]:
        """Registered versions whose files are in a run's or logged model's folder."""
        return tuple(self._files.get(owner, ()))

    def next_experiment_id(self) -> str:
        """The smallest number above all experiment ids in use."""
        return str(self.highest_experiment + 1)

    def keyed(self, key_sha256: bytes) -> Keyed | None:
        """The first request that carried an Idempotency-Key, if it is still remembered."""
        for window in self.requests.values():
            found = window.get(key_sha256)
            if found is not None:
                return found
        return None

    def missing(self, keys: Iterable[AggregateKey]) -> list[AggregateKey]:
        """Those of `keys` that have to be loaded before they can be looked up or folded."""
        return [
            key for key in dict.fromkeys(keys) if key not in self.recent and key not in self.catalog
        ]

    def admit(self, states: Mapping[AggregateKey, State]) -> None:
        """Put loaded states into memory, unless a newer one is there already."""
        for key, state in states.items():
            self.recent.setdefault(key, (state, 0))

    def restore(self, states: Mapping[AggregateKey, State]) -> None:
        """Put catalog states into an empty memory, as projections have kept them."""
        for key, state in states.items():
            self._put_catalog(key, None, state)

    def fold(self, record: Record, event: Event) -> Folded:
        """Take in the next record of its topic-partition.

        A record that cannot be folded stops its own history and no other: it and all that follows
        in that history change nothing, until a fold by a release that can.
        """
        expected = self.next_offsets.get(record.at, Offset(0))
        assert record.offset == expected, f"{record.at}@{record.offset} after {expected}"
        self.next_offsets[record.at] = Offset(record.offset + 1)
        self.folded += 1
        if event.TOPIC == ACCESS:
            # Calls that were recorded: no state follows from them, and none holds up another.
            return Folded(record.at.topic, record.at.partition, record.offset, event, None, None)
        key = (event.envelope.aggregate_kind, event.envelope.aggregate_id)
        before = self.get(*key)
        if key in self.quarantine:
            return self._held(record, event, before, key)
        try:
            if isinstance(event, Unreadable):
                return self._stopped(record, event, before, key, event.reason)
            self._refuse_repeat(record, event)
            after = self._applied(key, before, event)
            self._remember_request(record, event)
            void = None
        except Void as reason:
            after, void = before, reason.reason
        except Exception as error:  # noqa: BLE001
            # The edge of one history: it stops and is told, the others go on.
            return self._stopped(record, event, before, key, f"{type(error).__name__}: {error}")
        at = record.at
        return Folded(at.topic, at.partition, record.offset, event, void, after, before=before)

    def _stopped(
        self,
        record: Record,
        event: Event,
        before: State | None,
        key: AggregateKey,
        reason: str,
    ) -> Folded:
        self.quarantine[key] = Stopped(record.at, record.offset, event.envelope.type, reason)
        return _quarantined(record, event, before, Quarantine(reason, held=False))

    def _held(
        self, record: Record, event: Event, before: State | None, key: AggregateKey
    ) -> Folded:
        first = self.quarantine[key]
        first.held += 1
        reason = f"{first.at}@{first.offset} of the same history is in quarantine"
        return _quarantined(record, event, before, Quarantine(reason, held=True))

    def preview(self, event: Event) -> State | None:
        """What the event would make of its aggregate now. Raises Void. Changes nothing."""
        key = (event.envelope.aggregate_kind, event.envelope.aggregate_id)
        return self._evolved(key, self.get(*key), event)

    def trim(self, written: int) -> None:
        """Forget the least recently used aggregates beyond the limit.

        written: how many of the folded records the projections hold. What they do not hold yet
        stays, so that whatever is not in memory can be read back as it is now.
        """
        while len(self.recent) > STATES_IN_MEMORY_MAX:
            oldest = next(iter(self.recent))
            if self.recent[oldest][1] > written:
                return
            del self.recent[oldest]

    def _used(self, key: AggregateKey) -> State | None:
        used = self.recent.pop(key, None)
        if used is None:
            return None
        self.recent[key] = used
        return used[0]

    def _evolved(self, key: AggregateKey, before: State | None, event: Event) -> State | None:
        expected = event.envelope.expected_version
        if expected is not None and expected != (before.version if before is not None else 0):
            raise Void("another event of the same history came first")
        check = FOLD_CHECKS.get(type(event))
        if check is not None:
            check(self, before, event)
        evolve = EVOLVERS.get(key[0])
        after = evolve(before, event) if evolve is not None else None
        name = _name_of(key[0], after)
        if name is not None and self.names.get(name, key[1]) != key[1]:
            raise Void(f"the name {name[-1]!r} is taken")
        return after

    def _applied(self, key: AggregateKey, before: State | None, event: Event) -> State | None:
        after = self._evolved(key, before, event)
        if event.TOPIC == CATALOG:
            self._put_catalog(key, before, after)
        else:
            self.recent.pop(key, None)
            self.recent[key] = (after, self.folded)
        return after

    def _put_catalog(self, key: AggregateKey, before: State | None, after: State | None) -> None:
        kind, aggregate_id = key
        old, new = _name_of(kind, before), _name_of(kind, after)
        if old is not None and old != new:
            del self.names[old]
        if new is not None:
            self.names[new] = aggregate_id
        if after is None:
            self.catalog.pop(key, None)
            self._kinds.get(kind, {}).pop(aggregate_id, None)
        else:
            self.catalog[key] = after
            self._kinds.setdefault(kind, {})[aggregate_id] = after
        self._note_files(before, after)
        if kind == "experiment":
            self.highest_experiment = max(self.highest_experiment, int(aggregate_id))

    def _note_files(self, before: State | None, after: State | None) -> None:
        # What a version's files are is said when it is registered, and never changes.
        old = before.versions if isinstance(before, RegisteredModel) else {}
        new = after.versions if isinstance(after, RegisteredModel) else {}
        for number in old.keys() - new.keys():
            assert isinstance(before, RegisteredModel)
            for _, owner in owners_of_files(old[number]):
                self._files[owner].pop((before.model_id, number), None)
        for number in sorted(new.keys() - old.keys()):
            assert isinstance(after, RegisteredModel)
            for _, owner in owners_of_files(new[number]):
                self._files.setdefault(owner, {})[(after.model_id, number)] = None

    def _refuse_repeat(self, record: Record, event: Event) -> None:
        idempotency = event.envelope.idempotency
        window = self.requests.get(record.at, {})
        if idempotency is not None and idempotency.key_sha256 in window:
            raise Void("a repeat of a request that was already recorded")

    def _remember_request(self, record: Record, event: Event) -> None:
        # Only of events that applied: the key of one that was void is still free, here and in the
        # projections alike, and its command may be decided again.
        idempotency = event.envelope.idempotency
        if idempotency is not None:
            keyed = Keyed(record.at, record.offset, idempotency.request_sha256)
            self.remember(idempotency.key_sha256, keyed)

    def remember(self, key_sha256: bytes, keyed: Keyed) -> None:
        """Note a keyed request; the oldest of its topic-partition is forgotten over the limit."""
        window = self.requests.setdefault(keyed.at, {})
        window[key_sha256] = keyed
        if len(window) > REQUESTS_REMEMBERED_MAX:
            del window[next(iter(window))]


def _name_of(kind: str, state: State | None) -> tuple[str, str, str] | None:
    if kind not in NAMED_KINDS or state is None:
        return None
    named: Any = state
    return (kind, named.workspace, named.name)


def _quarantined(
    record: Record, event: Event, before: State | None, quarantine: Quarantine
) -> Folded:
    void = "it is in quarantine"
    at = record.at
    return Folded(at.topic, at.partition, record.offset, event, void, before, quarantine, before)
