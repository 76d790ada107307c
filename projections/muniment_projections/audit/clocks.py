"""Notices when the recorded times of a topic-partition go back: clocks that differ, or were set.

What has to be known for it (the newest time so far, the largest step) follows from the records of
the topic-partition up to an offset, and from nothing else. So it may be kept in memory with that
offset, and is read from the tables where the next record is another one: at a start, or when a
transaction was rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muniment_projections.audit import tables
from muniment_projections.base import Connection, Folded


@dataclass(slots=True)
class _Clock:
    """One topic-partition's. due: the offset that comes next."""

    due: int
    newest_ms: int
    back_ms: int


class Clocks:
    """The clocks of all topic-partitions."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], _Clock] = {}

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Write down the steps back of a batch that are larger than any before."""
        steps: list[list[object]] = []
        for item in batch:
            place = (item.topic, item.partition)
            clock = self._known.get(place)
            if clock is None or clock.due != item.offset:
                clock = self._known[place] = _read(tx, item)
            at_ms = item.event.envelope.recorded_at_ms
            if at_ms > clock.newest_ms:
                clock.newest_ms = at_ms
            elif clock.newest_ms - at_ms > clock.back_ms:
                clock.back_ms = clock.newest_ms - at_ms
                steps.append([item.topic, item.partition, item.offset, clock.back_ms])
            clock.due = item.offset + 1
        if steps:
            tx.executemany(tables.INSERT_STEP, steps)


def _read(tx: Connection, item: Folded) -> _Clock:
    place = [item.topic, item.partition]
    newest = tx.execute(tables.NEWEST, place).fetchall()[0][0]
    largest = tx.execute(tables.LARGEST_STEP, place).fetchall()[0][0]
    return _Clock(item.offset, newest, largest)
