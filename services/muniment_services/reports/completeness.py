"""Is the trail whole: what the log has, what of it the trail holds, what is signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muniment_projections.audit.reports import extent
from muniment_projections.audit.reports.extent import Extent, StepBack
from muniment_projections.audit.reports.rows import PLACE, checkpoints
from muniment_projections.search.predicate import Predicate
from muniment_schemas import events as e
from muniment_schemas.envelope import ACCESS, CATALOG, RUNS
from muniment_services.log.base import TopicPartition
from muniment_services.reports.moment import time_shown
from muniment_services.reports.question import Asked, Question, counted
from muniment_services.reports.report import EVIDENCE_MAX, Cell, Column, Draft, Names, Place
from muniment_services.reports.sources import Sources

HELD = (CATALOG, RUNS, ACCESS)
"""Topics whose events the trail holds; the others are about the log itself."""

SKEW_MS_MAX = 1000
"""A step back of recorded times up to this is a race between servers and their clocks, no more."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """Calls that the trail does not hold, as a server said."""

    place: Place
    event: e.TrailGap


@dataclass(frozen=True, slots=True)
class _Part:
    """One topic-partition. covered: up to where the trail has taken it in; missing: events below
    that which the trail's table does not have."""

    at: TopicPartition
    end: int
    covered: int
    missing: int
    void: int
    quarantined: int
    skew: StepBack | None
    signed: int | None

    @property
    def unsigned(self) -> int | None:
        """Events that no signed head covers."""
        return None if self.signed is None else max(0, self.end - self.signed)


def completeness(sources: Sources, _: Asked) -> Draft:
    """Each topic-partition, and whether all of it is in the trail."""
    quarantined = extent.quarantined(sources.connection)
    parts = _parts(sources, quarantined)
    gaps = _gaps(sources)
    lost = sum(gap.event.lost for gap in gaps)
    behind = sum(part.end - part.covered for part in parts if part.at.topic in HELD)
    missing = sum(part.missing for part in parts)
    whole = not (lost or missing or quarantined or behind)

    def verdict(_: Names) -> str:
        total = sum(part.covered for part in parts if part.at.topic in HELD)
        if whole:
            return (
                f"The trail is complete up to the end offsets of the log: all {total:,} events "
                "are in it, none is in quarantine, and no server has lost a call."
            )
        faults = [
            (missing, "are not in its table"),
            (behind, "of the log are not taken in yet"),
            (len(quarantined), "are in quarantine"),
            (lost, "calls were answered that are not in the log"),
        ]
        told = "; ".join(f"{number:,} {words}" for number, words in faults if number)
        return f"The trail is not complete: {told}."

    return Draft(
        rows=[_row(part) for part in parts],
        evidence=_evidence(gaps, quarantined, parts),
        verdict=verdict,
        findings=lambda _: _findings(parts, gaps),
        truncated=len(quarantined) + len(gaps) > EVIDENCE_MAX,
    )


def _evidence(
    gaps: list[_Gap], quarantined: list[tuple[str, int, int, bool]], parts: list[_Part]
) -> set[Place]:
    skews = [part.skew for part in parts if part.skew is not None]
    return {
        *(gap.place for gap in gaps),
        *(Place(topic, partition, offset) for topic, partition, offset, _ in quarantined),
        *(Place(one.topic, one.partition, one.offset) for one in skews),
    }


def _parts(sources: Sources, quarantined: list[tuple[str, int, int, bool]]) -> list[_Part]:
    found = {(one.topic, one.partition): one for one in extent.extents(sources.connection)}
    skews = {(one.topic, one.partition): one for one in extent.steps_back(sources.connection)}
    taken_in = checkpoints(sources.connection)
    stopped: dict[tuple[str, int], int] = {}
    for topic, partition, _, _ in quarantined:
        stopped[topic, partition] = stopped.get((topic, partition), 0) + 1
    return [
        _part(sources, at, int(end), found, skews, taken_in, stopped)
        for at, end in sorted(sources.ends.items())
    ]


def _part(
    sources: Sources,
    at: TopicPartition,
    end: int,
    found: Mapping[tuple[str, int], Extent],
    skews: Mapping[tuple[str, int], StepBack],
    taken_in: Mapping[tuple[str, int], int],
    stopped: Mapping[tuple[str, int], int],
) -> _Part:
    key = (at.topic, at.partition)
    held, covered = found.get(key), taken_in.get(key, 0)
    head = None if sources.heads is None else sources.heads.get(at)
    in_order = held is None or (held.first == 0 and held.last == covered - 1)
    events = 0 if held is None else held.events
    # What was appended since the log was asked for its end is taken in already.
    return _Part(
        at=at,
        end=max(end, covered),
        covered=covered,
        missing=covered - events if in_order else max(covered - events, 1),
        void=0 if held is None else held.void,
        quarantined=stopped.get(key, 0),
        skew=skews.get(key),
        signed=None if sources.heads is None else (0 if head is None else head.size),
    )


def _gaps(sources: Sources) -> list[_Gap]:
    where = Predicate("t.type = 'TrailGap'")
    places = sources.select(PLACE, where, rows_max=EVIDENCE_MAX)
    events = sources.events(Place(*place) for place in places)
    return [_Gap(place, event) for place, event in events.items() if isinstance(event, e.TrailGap)]


def _findings(parts: list[_Part], gaps: list[_Gap]) -> tuple[str, ...]:
    told = [
        f"{counted(gap.event.lost, 'call was', 'calls were')} answered between "
        f"{time_shown(gap.event.first_at_ms)} and {time_shown(gap.event.last_at_ms)} that the "
        f"trail does not hold: {gap.event.reason}."
        for gap in gaps
    ]
    told += [
        f"Recorded times of {part.at} go back by {part.skew.back_ms / 1000:.3f} s at "
        f"{part.at}/{part.skew.offset}: clocks of servers differ, or one was set."
        for part in parts
        if part.skew is not None and part.skew.back_ms > SKEW_MS_MAX
    ]
    if all(part.signed is None for part in parts):
        told.append("Proofs are off: no head of the log is signed.")
    else:
        unsigned = sum(part.unsigned or 0 for part in parts)
        told.append(
            f"Signed heads cover all but {counted(unsigned, 'event')}; that what they cover was "
            "not changed is for `muniment verify` to say."
        )
    return tuple(told)


def _row(part: _Part) -> tuple[Cell, ...]:
    in_trail = part.at.topic in HELD
    return (
        str(part.at),
        part.end,
        part.covered if in_trail else None,
        part.missing if in_trail else None,
        part.void if in_trail else None,
        part.quarantined if in_trail else None,
        None if part.skew is None else part.skew.back_ms,
        part.signed,
        part.unsigned,
    )


QUESTIONS = (
    Question(
        name="completeness",
        text="Is the trail complete up to the end of the log, and how far is it signed?",
        parameters=(),
        columns=(
            Column("log", "text", "the topic-partition"),
            Column("end", "number", "where the log ends: its next offset"),
            Column("covered", "number", "the offset up to which the trail has taken it in"),
            Column("missing", "number", "events below it that are not in the trail's table"),
            Column("void", "number", "events that lost a race, and count for nothing"),
            Column("quarantined", "number", "records that this release cannot fold, and held ones"),
            Column("back_ms", "number", "largest step back of recorded times"),
            Column("signed", "number", "size of the newest signed head"),
            Column("unsigned", "number", "events that no signed head covers"),
        ),
        answer=completeness,
        notes=(
            "It says that all that is in the log is in the trail. That the log itself was not "
            "changed is proved by its signed heads: `muniment verify --head`."
        ),
    ),
)
