"""Keeps the interval tables: what held of each registered model, from which event to which.

What holds is read off the model's state behind each event, so an interval can only be wrong if the
state was: it ends where the state stops saying so, and the next begins at that very event. Within
a model they therefore never overlap and leave no gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from muniment_projections.base import Connection, Folded
from muniment_projections.registry import tables
from muniment_schemas import events as e

TURNING_POINTS = (
    e.RegisteredModelCreated,
    e.RegisteredModelRenamed,
    e.RegisteredModelDeleted,
    e.ModelVersionCreated,
    e.StageTransitioned,
    e.TransitionApproved,
    e.ModelVersionDeleted,
    e.AliasSet,
    e.AliasDeleted,
)
"""The events that can begin or end an interval."""

Value = str | int


class StagedVersion(Protocol):
    """What an interval needs of a version."""

    @property
    def stage(self) -> str:
        """Its stage."""


class NamedModel(Protocol):
    """What intervals need of a model's state."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def versions(self) -> Mapping[int, StagedVersion]:
        """Its versions by number."""

    @property
    def aliases(self) -> Mapping[str, int]:
        """Version numbers by alias."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that holds of a model: a row's table and what tells it from other rows."""

    table: str
    model_id: str
    subject: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """An event as the beginning or end of an interval."""

    at_ms: int
    topic: str
    partition: int
    offset: int
    event_id: str
    actor: str


@dataclass(slots=True)
class Open:
    """An interval without an end: a stored row, or one that this batch has begun."""

    name: str
    place: int | None = None
    began: Moment | None = None


@dataclass(slots=True)
class Ledger:
    """What one batch does to the interval tables."""

    held: dict[str, dict[Fact, Open]]
    begun: dict[str, list[list[object]]] = field(default_factory=dict)
    ended: dict[str, list[list[object]]] = field(default_factory=dict)

    def turn(self, model_id: str, state: NamedModel | None, now: Moment) -> None:
        """Take in what an event made of a model."""
        held = self.held.setdefault(model_id, {})
        holds = dict.fromkeys(facts(model_id, state))
        for fact in [fact for fact in held if fact not in holds]:
            self._end(fact, held.pop(fact), now)
        for fact in holds:
            if fact not in held:
                assert state is not None
                held[fact] = Open(state.name, began=now)

    def settle(self) -> None:
        """Take down what the batch has begun and not ended."""
        for held in self.held.values():
            for fact, interval in held.items():
                if interval.began is not None:
                    self._add(fact, interval, None)

    def _end(self, fact: Fact, interval: Open, now: Moment) -> None:
        if interval.place is None:
            self._add(fact, interval, now)
        else:
            row: list[object] = [interval.place, now.at_ms, now.offset, now.event_id, now.actor]
            self.ended.setdefault(fact.table, []).append(row)

    def _add(self, fact: Fact, interval: Open, end: Moment | None) -> None:
        began = interval.began
        assert began is not None
        of_model = fact.table == tables.MODEL_INTERVALS
        row: list[object] = [
            fact.model_id,
            *(() if of_model else (interval.name,)),
            *fact.subject,
            began.at_ms,
            None if end is None else end.at_ms,
            began.topic,
            began.partition,
            began.offset,
            began.event_id,
            began.actor,
            None if end is None else end.offset,
            None if end is None else end.event_id,
            None if end is None else end.actor,
        ]
        self.begun.setdefault(fact.table, []).append(row)


def facts(model_id: str, state: NamedModel | None) -> Iterator[Fact]:
    """All that a model's state says to hold; nothing of a model that is gone."""
    if state is None:
        return
    yield Fact(tables.MODEL_INTERVALS, model_id, (state.name,))
    for number, version in state.versions.items():
        yield Fact(tables.VERSION_INTERVALS, model_id, (number,))
        yield Fact(tables.STAGE_INTERVALS, model_id, (number, version.stage))
    for alias, number in state.aliases.items():
        yield Fact(tables.ALIAS_INTERVALS, model_id, (alias, number))


def create(tx: Connection) -> None:
    """Create the interval tables."""
    tx.execute(tables.CREATE_CLOCK)
    for table, _ in tables.SUBJECTS:
        tx.execute(tables.create_intervals(table))


def apply(tx: Connection, items: Sequence[Folded]) -> None:
    """Begin and end intervals by a batch's events of registered models, in log order.

    Every event moves the clock, those that neither begin nor end anything too: so a batch's end
    cannot change what a time means.
    """
    turning = {item.event.envelope.aggregate_id for item in items if _turns(item)}
    ledger = Ledger(_held(tx, turning))
    clock = tx.execute(tables.READ_CLOCK).fetchone()
    assert clock is not None
    at_ms = int(clock[0])
    for item in items:
        envelope = item.event.envelope
        at_ms = max(at_ms, envelope.recorded_at_ms)
        if not _turns(item):
            continue
        now = Moment(
            at_ms,
            item.topic,
            item.partition,
            item.offset,
            envelope.event_id,
            envelope.actor.principal_id,
        )
        ledger.turn(envelope.aggregate_id, cast(NamedModel | None, item.after), now)
    ledger.settle()
    for table, rows in ledger.ended.items():
        tx.execute(tables.close_intervals(table), _columns(rows))
    for table, rows in ledger.begun.items():
        tx.execute(tables.insert_intervals(table), _columns(rows))
    tx.execute(tables.SET_CLOCK, [at_ms])


def _turns(item: Folded) -> bool:
    return isinstance(item.event, TURNING_POINTS)


def _held(tx: Connection, model_ids: Iterable[str]) -> dict[str, dict[Fact, Open]]:
    ids = list(model_ids)
    if not ids:
        return {}
    held: dict[str, dict[Fact, Open]] = {model_id: {} for model_id in ids}
    for table, _ in tables.SUBJECTS:
        for place, model_id, name, *subject in tx.execute(
            tables.open_intervals(table), [ids]
        ).fetchall():
            of_model = (name,) if table == tables.MODEL_INTERVALS else tuple(subject)
            held[model_id][Fact(table, model_id, of_model)] = Open(name, place=place)
    return held


def _columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
