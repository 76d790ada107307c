"""What a question is answered from: one snapshot of the trail's tables, and the log behind it.

The tables find; the log testifies: what an event says is read from its record. What was true then
is what the domain's own fold makes of an aggregate's events, not something that reports work out by
themselves. All of it is blocking and runs in a reader's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muniment_projections.audit.reports import rows as trail
from muniment_projections.base import Connection
from muniment_projections.search.predicate import Predicate, all_of
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import State
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.domain.errors import Invalid
from muniment_services.log.base import LogReader, LogUnavailable, TopicPartition
from muniment_services.proof.line import Head
from muniment_services.reports.moment import Moment
from muniment_services.reports.report import Place
from muniment_services.unreadable import event_of

EVENTS_MAX = 50_000
"""Events that are folded for one answer at most."""

CLOCKS_DIFFER_MS = 3_600_000
"""By so much the clocks of servers may differ; what lies further from a moment is not looked at."""

GAP_MAX = 64
"""Records between two that are asked for, which are read along rather than asked for anew."""

APPLIED = Predicate("t.outcome <> 'void'")


@dataclass(frozen=True, slots=True)
class Step:
    """An event of an aggregate that applied, and the aggregate's state on both sides of it."""

    place: Place
    event: Any
    before: Any
    after: Any

    @property
    def at_ms(self) -> int:
        """When it was recorded."""
        return int(self.event.envelope.recorded_at_ms)

    @property
    def actor(self) -> str:
        """Whose deed it is."""
        return str(self.event.envelope.actor.principal_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """One snapshot. ends: where the log ended when it was asked. heads: its newest signed heads;
    None where proofs are off. admin_groups: (issuer, group) that the configuration makes admins."""

    connection: Connection
    log: LogReader
    codec: Codec
    now_ms: int
    ends: Mapping[TopicPartition, Offset] = field(default_factory=dict)
    heads: Mapping[TopicPartition, Head] | None = None
    admin_groups: Sequence[tuple[str, str]] = ()

    def select(
        self,
        columns: Sequence[str],
        *where: Predicate,
        rows_max: int,
        newest_first: bool = False,
    ) -> list[trail.Row]:
        """Columns of the trail's events that fit, in the order in which they were recorded."""
        return trail.select(self.connection, columns, all_of(where), rows_max, newest_first)

    def recorded_at(self, place: Place) -> int | None:
        """When the event at a place was recorded, in ms since 1970; None: there is none."""
        return trail.recorded_at(self.connection, place.topic, place.partition, place.offset)

    def events(self, places: Iterable[Place]) -> dict[Place, Event]:
        """The events at some places, by the order of their places, as their records say them.

        Raises LogUnavailable.
        """
        found: dict[Place, Event] = {}
        for at, wanted in _by_partition(places).items():
            for begin, end in _ranges(sorted(wanted)):
                for record in self._records(at, begin, end):
                    if record.offset in wanted:
                        place = Place(at.topic, at.partition, record.offset)
                        found[place] = event_of(self.codec, record)
        return found

    def replay(self, topic: str, *where: Predicate, until: Moment | None = None) -> Iterator[Step]:
        """The events of a topic that fit and applied, folded by aggregate, by their places.

        where: takes in those events of an aggregate that what is asked of its state depends on.
        until: the last that count. Raises Invalid for more than EVENTS_MAX, LogUnavailable.
        """
        fits = [Predicate("t.topic = ?", (topic,)), APPLIED, *where]
        if until is not None and not until.latest:
            fits.append(Predicate("t.at_ms <= ?", (until.at_ms + CLOCKS_DIFFER_MS,)))
        rows = self.select((*trail.PLACE, "at_ms"), *fits, rows_max=EVENTS_MAX + 1)
        if len(rows) > EVENTS_MAX:
            raise Invalid(
                f"More than {EVENTS_MAX} events would have to be folded for this answer. Ask about "
                "one model, or an earlier moment."
            )
        timed = sorted((Place(*place), at_ms) for *place, at_ms in rows)
        return _folded(self.events(_until(timed, until)))

    def _records(self, at: TopicPartition, begin: int, end: int) -> Iterator[Any]:
        while begin < end:
            records = self.log.read(at, Offset(begin), end - begin)
            if not records:
                raise LogUnavailable(f"{at} has nothing at {begin}")
            yield from records
            begin += len(records)


def _until(timed: Iterable[tuple[Place, int]], until: Moment | None) -> Iterator[Place]:
    """Those up to a moment. Nothing counts behind one that does not, whatever its clock said."""
    over: set[tuple[str, int]] = set()
    for place, at_ms in timed:
        at = (place.topic, place.partition)
        if at in over or (until is not None and not until.covers(place, at_ms)):
            over.add(at)
        else:
            yield place


def _folded(events: Mapping[Place, Event]) -> Iterator[Step]:
    states: dict[tuple[str, str], State | None] = {}
    for place, event in events.items():
        kind = event.envelope.aggregate_kind
        key = (kind, event.envelope.aggregate_id)
        before = states.get(key)
        after = states[key] = EVOLVERS[kind](before, event)
        yield Step(place, event, before, after)


def _by_partition(places: Iterable[Place]) -> dict[TopicPartition, set[int]]:
    found: dict[TopicPartition, set[int]] = {}
    for place in sorted(places):
        found.setdefault(TopicPartition(place.topic, place.partition), set()).add(place.offset)
    return found


def _ranges(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    begin = end = offsets[0]
    for offset in offsets:
        if offset - end > GAP_MAX:
            yield begin, end
            begin = offset
        end = offset + 1
    yield begin, end
