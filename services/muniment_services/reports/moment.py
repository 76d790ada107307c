"""Moments of the past: a time, or behind an event of the log."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from muniment_projections.registry.then import When
from muniment_schemas.envelope import CATALOG
from muniment_services.access_text import time_of
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import INT64_MAX, shown
from muniment_services.reports.report import Place

NOW = "now"

_PLACE = re.compile(r"([a-z]{1,20})/(\d{1,6})/(\d{1,18})")
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
TIME_MS_MAX = int(_LATEST.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment. at_ms: in ms since 1970, by the servers' clocks. place: the last event that counts
    in its own topic-partition; elsewhere those count that were recorded by then. latest: all that
    is in the log counts."""

    at_ms: int
    place: Place | None = None
    latest: bool = False

    def covers(self, place: Place, at_ms: int) -> bool:
        """Whether an event had been recorded by then."""
        own = self.place
        if own is not None and (own.topic, own.partition) == (place.topic, place.partition):
            return place.offset <= own.offset
        return self.latest or at_ms <= self.at_ms

    @property
    def when(self) -> When:
        """As the registry's intervals ask for it."""
        if self.place is not None and self.place.topic == CATALOG:
            return When(self.at_ms, self.place.offset)
        return When(INT64_MAX - 1 if self.latest else self.at_ms)

    def __str__(self) -> str:
        if self.place is not None:
            return str(self.place)
        return NOW if self.latest else time_shown(self.at_ms)


def moment_of(text: str, now_ms: int, recorded_at: Callable[[Place], int | None]) -> Moment:
    """`now` or nothing, a time as RFC 3339 has it, a date (its beginning, in UTC), milliseconds
    since 1970, or `topic/partition/offset`.

    recorded_at: when the event of a place was recorded, if there is one. Raises Invalid, NotFound.
    """
    if text in ("", NOW):
        return Moment(now_ms, latest=True)
    named = _PLACE.fullmatch(text)
    if named is None:
        asked_ms = time_ms_of(text)
        # Of what is to come nothing is known: it is answered as of now, and says so.
        return Moment(now_ms, latest=True) if asked_ms > now_ms else Moment(asked_ms)
    place = Place(named[1], int(named[2]), int(named[3]))
    at_ms = recorded_at(place)
    if at_ms is None:
        raise NotFound(f"The trail has no event at {place}.")
    return Moment(at_ms, place)


def time_ms_of(text: str) -> int:
    """A time or date, or milliseconds since 1970. Raises Invalid."""
    try:
        if text.isascii() and text.isdecimal():
            at_ms = int(text)
        else:
            # A `+` of a zone that nobody quoted comes as a space out of a query string.
            at_ms = time_of(
                text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text
            )
    except (ValueError, OverflowError):
        raise Invalid(
            f"{shown(text)} is no time. Say for example 2026-03-31, 2026-03-31T12:00:00Z, "
            "milliseconds since 1970, or the place of an event as catalog/0/17."
        ) from None
    if not 0 <= at_ms < TIME_MS_MAX:
        raise Invalid(f"{shown(text)} is no time between 1970 and 9999.")
    return at_ms


def time_shown(at_ms: int) -> str:
    """A time as RFC 3339 in UTC, with milliseconds."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
