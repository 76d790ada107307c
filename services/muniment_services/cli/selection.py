"""Which events `muniment events` prints, and from where on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from muniment_schemas.envelope import Event
from muniment_schemas.events import EVENT_TYPES
from muniment_schemas.ids import Offset
from muniment_services.cli.terminal import CliError
from muniment_services.log.base import EventLog, Record, TopicPartition

USAGE_STATUS = 2
UNITS = "smhdw"
_AGO = re.compile(rf"(\d+)([{UNITS}])")
_SECONDS = (1, 60, 3600, 86_400, 604_800)


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions that an event must all meet; an empty one is met by all."""

    types: frozenset[str] = frozenset()
    aggregates: frozenset[str] = frozenset()
    actors: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()

    def may_take(self, record: Record) -> bool:
        """Whether the record may be chosen, as far as key and headers tell; saves decoding."""
        headers = dict(record.headers)
        if self.types and headers.get("ce_type", b"").decode("latin-1") not in self.types:
            return False
        return not self.aggregates or bool(self.aggregates & _names(record, headers))

    def takes(self, event: Event) -> bool:
        """Whether an event that may be taken is chosen."""
        actor = event.envelope.actor
        if self.tokens and actor.token_id not in self.tokens:
            return False
        return not self.actors or any(actor.principal_id.startswith(a) for a in self.actors)


def _names(record: Record, headers: dict[str, bytes]) -> set[str]:
    # Artifacts have the run or model that they belong to as their key, so its id finds them too.
    subject = headers.get("ce_subject", b"").decode("utf-8", "replace")
    return {subject, subject.partition("/")[2], record.key.decode("utf-8", "replace")}


def known_types(names: Collection[str]) -> frozenset[str]:
    """Event types in their own spelling, from any case. Raises CliError for unknown ones."""
    spelled = {kind.__name__.lower(): kind.__name__ for kind in EVENT_TYPES}
    for name in names:
        if name.lower() not in spelled:
            close = difflib.get_close_matches(name.lower(), spelled)
            meant = (
                f" Did you mean {spelled[close[0]]}?" if close else f" There are {_all_types()}."
            )
            raise CliError(f"there is no event type {name!r}.{meant}", USAGE_STATUS)
    return frozenset(spelled[name.lower()] for name in names)


def _all_types() -> str:
    return ", ".join(sorted(kind.__name__ for kind in EVENT_TYPES))


@dataclass(frozen=True, slots=True)
class Since:
    """Where to begin: at an offset of each partition, or at a time (milliseconds since 1970)."""

    offset: Offset | None = None
    at_ms: int | None = None


def since(text: str | None, now_ms: int) -> Since:
    """What --since says: a number is an offset, `10m` is so long ago, else a UTC date or time."""
    if text is None:
        return Since(offset=Offset(0))
    if text.isdecimal():
        return Since(offset=Offset(int(text)))
    if ago := _AGO.fullmatch(text):
        seconds = int(ago[1]) * _SECONDS[UNITS.index(ago[2])]
        return Since(at_ms=now_ms - seconds * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"--since {text!r} is neither an offset (1200), nor a time ago (10m, 2h, 1d), nor a "
            "UTC date or time (2026-01-31, 2026-01-31T10:30).",
            USAGE_STATUS,
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return Since(at_ms=(moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1))


def start_of(log: EventLog, at: TopicPartition, end: Offset, begin: Since) -> Offset:
    """The first offset of a partition that lies within; `end` when there is none yet.

    A time is found by bisection, since records are recorded in the order of their times but for
    steps of the clock.
    """
    if begin.at_ms is None:
        assert begin.offset is not None
        return min(begin.offset, end)
    low, high = 0, int(end)
    while low < high:
        middle = (low + high) // 2
        if log.read(at, Offset(middle), 1)[0].timestamp_ms < begin.at_ms:
            low = middle + 1
        else:
            high = middle
    return Offset(low)


def chosen_partitions(log: EventLog, topics: Sequence[str]) -> list[TopicPartition]:
    """The partitions of the named topics, or of all. Raises CliError for unknown ones."""
    for topic in topics:
        if topic not in log.partitions:
            raise CliError(
                f"there is no topic {topic!r}; there are {', '.join(log.partitions)}.", USAGE_STATUS
            )
    return [
        TopicPartition(topic, partition)
        for topic, partitions in log.partitions.items()
        for partition in range(partitions)
        if not topics or topic in topics
    ]
