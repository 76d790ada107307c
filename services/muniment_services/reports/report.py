"""What a report is: an auditor's question, its answer, and the events that the answer rests on.

Whoever builds on reports (evidence packs, pages, schedules) needs this module and `run.run_report`.
What always holds of a Report: it is of one moment (`as_of`), nothing after it has a say; every row
rests on events that `evidence` names; what was left out is said (`truncated`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROWS_MAX = 1000
"""Rows of one report; whoever needs more narrows the question, or asks `audit/events`."""

EVIDENCE_MAX = 20_000
"""Events that one report names as what it rests on."""

TIME_S_MAX = 30.0
"""What a report may take; it is refused then, with words on how to narrow it."""

Cell = str | int | float | bool | None
"""A value in a row. Times are RFC 3339 in UTC, principals their ids, events `topic/partition/N`;
lists are joined by commas."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an event is in the log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a report. kind: text, number, time, principal (or several), event."""

    name: str
    kind: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a report can be told. kind: text, time, or principal (an id, or a name)."""

    name: str
    meaning: str
    kind: str = "text"
    required: bool = False
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An answer.

    name, question: which report, and what it answers, as a sentence. parameters: those that were
    given, and defaults of others. as_of: of each topic-partition that has a part in it, the end
    offset that the answer covers: what is below it is taken into account, nothing else. verdict:
    one sentence that a person reads first. findings: what else should be known of it. notes: what
    such an answer does not see. rows: one cell per column. evidence: every event that rows or
    verdict rest on, sorted, once. truncated: whether rows or evidence were cut at their limits.
    names: of principals in rows, as people know them; those that were erased are `erased`.
    """

    name: str
    question: str
    parameters: Mapping[str, str]
    as_of: Mapping[tuple[str, int], int]
    verdict: str
    findings: tuple[str, ...]
    notes: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    evidence: tuple[Place, ...]
    truncated: bool
    names: Mapping[str, str]


class ReportTooSlow(Exception):
    """A report took longer than TIME_S_MAX and was given up."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The report {name} took longer than {TIME_S_MAX:.0f} s and was given up. Narrow it by "
            "time, model or principal."
        )


Names = Callable[[str], str]
"""A principal's id to what people call it; the id itself where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a question's own function makes; `run_report` makes a Report of it.

    verdict, findings: told once the principals' names are known.
    """

    rows: list[tuple[Cell, ...]]
    evidence: set[Place]
    verdict: Callable[[Names], str]
    findings: Callable[[Names], tuple[str, ...]] = lambda _: ()
    truncated: bool = False
