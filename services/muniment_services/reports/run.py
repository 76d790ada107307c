"""Answers the auditor's questions by name, with or without a request of HTTP behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import duckdb

from muniment_auth.principal import NOBODY
from muniment_projections.audit.reports.rows import checkpoints
from muniment_projections.base import Connection
from muniment_services.api.services import Services
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.reports import calls, completeness, lineage, promotions, rights, standing
from muniment_services.reports.question import Asked, Question
from muniment_services.reports.report import EVIDENCE_MAX, TIME_S_MAX, Report, ReportTooSlow
from muniment_services.reports.sources import Sources

T = TypeVar("T")

QUESTIONS: Mapping[str, Question] = MappingProxyType(
    {
        question.name: question
        for module in (promotions, standing, calls, rights, lineage, completeness)
        for question in module.QUESTIONS
    }
)
"""Every report by its name."""


async def run_report(services: Services, name: str, parameters: Mapping[str, str]) -> Report:
    """The answer to a question, as of everything that was in the log at this call.

    Raises NotFound for a name that no report has, Invalid for parameters that it cannot be asked
    with, ReportTooSlow, KeysUnavailable where a principal is looked for by name, LogUnavailable,
    and what `Services.read_trail` raises.
    """
    question = QUESTIONS.get(name)
    if question is None:
        raise NotFound(f"There is no report {name!r}; there are {', '.join(QUESTIONS)}.")
    return await _made(services, question, await _asked(services, question, parameters))


async def _asked(services: Services, question: Question, given: Mapping[str, str]) -> Asked:
    known = {parameter.name: parameter for parameter in question.parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise Invalid(f"The report {question.name} has no parameter {unknown[0]!r}; {takes}.")
    values = {
        name: given.get(name) or parameter.default
        for name, parameter in known.items()
        if given.get(name) or parameter.default
    }
    for parameter in known.values():
        if parameter.required and parameter.name not in values:
            raise Invalid(
                f"The report {question.name} needs {parameter.name}: {parameter.meaning}."
            )
    if question.one_of and not any(name in values for name in question.one_of):
        raise Invalid(f"The report {question.name} needs one of {', '.join(question.one_of)}.")
    people = {
        name: await _people(services, values[name])
        for name, parameter in known.items()
        if parameter.kind == "principal" and name in values
    }
    return Asked(values, people)


async def _people(services: Services, text: str) -> tuple[str, ...]:
    """The principals of an id or a name. Raises NotFound, KeysUnavailable."""
    found = await services.identities.ids_of(text)
    if services.identities.is_noted(text) or text == NOBODY.id:
        found.append(text)
    if not found:
        raise NotFound(
            f"Nobody is known here as {text!r}. Who was erased is found by principal id only."
        )
    return tuple(dict.fromkeys(found))


async def _made(services: Services, question: Question, asked: Asked) -> Report:
    draft, as_of = await answered(
        services,
        question.name,
        lambda sources: (question.answer(sources, asked), checkpoints(sources.connection)),
    )
    ids = {
        str(cell)
        for row in draft.rows
        for cell, column in zip(row, question.columns, strict=True)
        if column.kind == "principal" and cell is not None
    }
    names = await services.identities.names(one for cell in ids for one in cell.split(", "))
    evidence = sorted(draft.evidence)
    return Report(
        name=question.name,
        question=question.text,
        parameters=asked.values,
        as_of=as_of,
        verdict=draft.verdict(lambda one: names.get(one, one)),
        findings=draft.findings(lambda one: names.get(one, one)),
        notes=question.notes,
        columns=question.columns,
        rows=tuple(draft.rows),
        evidence=tuple(evidence[:EVIDENCE_MAX]),
        truncated=draft.truncated or len(evidence) > EVIDENCE_MAX,
        names=names,
    )


async def answered(services: Services, name: str, answer: Callable[[Sources], T]) -> T:
    """Ask one snapshot what may take a while; a few at a time. As `answered_at_once`."""
    async with services.reports:
        return await answered_at_once(services, name, answer)


async def answered_at_once(services: Services, name: str, answer: Callable[[Sources], T]) -> T:
    """Ask one snapshot that holds all that was in the log at this call.

    name: of what is asked, for whoever is told that it takes too long. Raises ReportTooSlow, what
    `answer` raises, and what `Services.read_trail` raises.
    """
    prover, fold = services.prover, services.fold
    # Where the log ended before the snapshot was waited for, so that it holds all up to there.
    await services.caught_up(FOLDED_TOPICS)
    ends = dict(fold.ends)

    def read(connection: Connection) -> T:
        heads = None if prover is None else dict(prover.forest.line.newest)
        sources = Sources(
            connection=connection,
            log=fold.log,
            codec=services.codec,
            now_ms=services.now_ms(),
            ends=ends,
            heads=heads,
            admin_groups=services.admin_groups,
        )
        return _in_time(name, connection, lambda: answer(sources))

    return await services.read_trail(read)


def _in_time(name: str, connection: Connection, work: Callable[[], T]) -> T:
    """Do it on one snapshot. Raises ReportTooSlow."""
    over = threading.Event()

    def give_up() -> None:
        over.set()
        connection.interrupt()

    timer = threading.Timer(TIME_S_MAX, give_up)
    connection.begin()
    timer.start()
    try:
        return work()
    except duckdb.InterruptException:
        if over.is_set():
            raise ReportTooSlow(name) from None
        raise
    finally:
        timer.cancel()
        connection.rollback()
