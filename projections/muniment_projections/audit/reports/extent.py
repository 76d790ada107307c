"""How much of the log the trail holds: counted in the table itself, per topic-partition."""

from __future__ import annotations

from dataclasses import dataclass

from muniment_projections.base import Connection


@dataclass(frozen=True, slots=True)
class Extent:
    """What the table has of one topic-partition. events: rows; first, last: smallest and largest
    offset. void: events that lost a race, those in quarantine included."""

    topic: str
    partition: int
    events: int
    first: int
    last: int
    void: int


@dataclass(frozen=True, slots=True)
class StepBack:
    """The event whose recorded time lies furthest behind an earlier one's of its
    topic-partition: the clocks of servers differed, or one was set back. back_ms: by how much."""

    topic: str
    partition: int
    offset: int
    back_ms: int


_EXTENTS = """
SELECT topic, "partition", count(*), min("offset"), max("offset"),
    count(*) FILTER (outcome = 'void')
FROM audit_events GROUP BY topic, "partition" ORDER BY topic, "partition"
"""

_STEPS = """
SELECT topic, "partition", arg_max("offset", back_ms), max(back_ms)
FROM audit_clock_steps GROUP BY topic, "partition"
"""

_QUARANTINED = """
SELECT topic, "partition", "offset", held FROM quarantine ORDER BY topic, "partition", "offset"
"""


def extents(connection: Connection) -> list[Extent]:
    """Of every topic-partition that has events."""
    return [Extent(*row) for row in connection.execute(_EXTENTS).fetchall()]


def steps_back(connection: Connection) -> list[StepBack]:
    """The largest of each topic-partition that has any."""
    return [StepBack(*row) for row in connection.execute(_STEPS).fetchall()]


def quarantined(connection: Connection) -> list[tuple[str, int, int, bool]]:
    """(topic, partition, offset, held) of every record in quarantine."""
    return connection.execute(_QUARANTINED).fetchall()
