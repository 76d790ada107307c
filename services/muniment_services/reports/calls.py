"""Questions about calls: who read a model, what somebody was refused, what a credential did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from muniment_projections.audit.query import about
from muniment_projections.audit.reports.lineage import artifact_uri
from muniment_projections.audit.reports.rows import PLACE, Counts, Row, counts, in_any
from muniment_projections.audit.reports.rows import counted as total_of
from muniment_projections.search.predicate import Predicate, all_of, any_of, one_of
from muniment_schemas.trail_events import ALLOWED, DENIED
from muniment_services.domain.artifact import path_of
from muniment_services.domain.errors import Invalid
from muniment_services.domain.registered_model import KIND as MODEL_KIND
from muniment_services.reports.moment import time_shown
from muniment_services.reports.question import (
    AT_COLUMN,
    EVENT_COLUMN,
    FROM,
    MODEL,
    TO,
    VERSION,
    WORKSPACE,
    Asked,
    Question,
    counted,
    places_of,
)
from muniment_services.reports.report import ROWS_MAX, Cell, Column, Draft, Names, Parameter, Place
from muniment_services.reports.sources import Sources

READING = ("artifact.read", "logged_model.read", "model.read")
"""Actions of calls that tell of a model or give its files."""

OF_FILES = "artifact.read"

OF_RUN = "runs:/"

NAMED_MAX = 5
"""Principals or actions that a sentence names."""

CALL_COLUMNS = (
    AT_COLUMN,
    Column("actor", "principal", "who called"),
    Column("action", "text", "the permission that the call asked for, or what the event did"),
    Column("resource", "text", "what it was about, as kind and name"),
    Column("version", "number", "of which version of a model"),
    Column("outcome", "text", "allowed, denied, failed; success or void of an event"),
    Column("reason", "text", "why it was refused, or void"),
    Column("status", "number", "the HTTP status of a call"),
    Column("bytes_out", "number", "bytes of the answer"),
    Column("token", "text", "id of the token that was shown"),
    Column("address", "text", "where the call came from"),
    EVENT_COLUMN,
)

_SELECTED = (
    "at_ms", "actor", "action", "resource_kind", "resource_name", "resource_id",
    "resource_version", "outcome", "reason", "status", "bytes_out", "token_id", "client_address",
    *PLACE,
)  # fmt: skip


def readers(sources: Sources, asked: Asked) -> Draft:
    """Reads and downloads of a model, or of one version of it."""
    models, version = asked.models(sources), asked.version()
    folders, registered = _folders(sources, models, version)
    of_model = any_of(
        [
            all_of([_kind(MODEL_KIND), one_of("t.resource_id", models), _of_version(version)]),
            in_any("touched", _touched(models, version)),
            *(_below(folder) for folder in folders),
        ]
    )
    reads = [
        Predicate("t.topic = 'access'"),
        Predicate("t.outcome = ?", (ALLOWED,)),
        one_of("t.action", READING),
        of_model,
        *asked.span().predicates(),
    ]
    calls = _calls(sources, reads)
    told = calls.counts
    name = asked.text("model") + ("" if version is None else f" version {version}")

    def verdict(names: Names) -> str:
        if not told.total:
            return f"Nobody read or downloaded {name}."
        return (
            f"{counted(len(told.actors), 'principal')} read {name} "
            f"{counted(told.total, 'time')}, {told.actions.get(OF_FILES, 0):,} of them its files: "
            f"{_most(told.actors, names)}."
        )

    return Draft(
        rows=calls.rows,
        evidence=places_of(calls.rows) | registered,
        verdict=verdict,
        truncated=calls.truncated,
    )


def _folders(
    sources: Sources, models: Iterable[str], version: int | None
) -> tuple[list[str], set[Place]]:
    """Where the versions' files are on this server, and the events that say so."""
    where = [
        Predicate("t.type = 'ModelVersionCreated' AND t.outcome <> 'void'"),
        one_of("t.resource_id", models),
        _of_version(version, exactly=True),
    ]
    found = sources.select(PLACE, *where, rows_max=ROWS_MAX)
    events = sources.events(Place(*place) for place in found)
    folders = []
    for event in events.values():
        location = _location(sources, str(getattr(event, "storage_location", "")))
        try:
            folders.append(path_of(location))
        except Invalid:  # They are kept elsewhere: nobody downloads them here.
            continue
    return list(dict.fromkeys(folders)), set(events)


def _location(sources: Sources, location: str) -> str:
    """Where files are that a version names by its run."""
    run_id, _, inside = location.removeprefix(OF_RUN).partition("/")
    folder = artifact_uri(sources.connection, run_id) if location.startswith(OF_RUN) else None
    return location if folder is None else f"{folder.rstrip('/')}/{inside}"


def _kind(kind: str) -> Predicate:
    return Predicate("t.resource_kind = ?", (kind,))


def _of_version(version: int | None, exactly: bool = False) -> Predicate:
    if version is None:
        return Predicate("TRUE")
    if exactly:
        return Predicate("t.resource_version = ?", (version,))
    return Predicate("(t.resource_version = ? OR t.resource_version IS NULL)", (version,))


def _touched(models: Iterable[str], version: int | None) -> list[str]:
    places = [f"{MODEL_KIND}/{model_id}" for model_id in models]
    return places if version is None else [f"{place}/{version}" for place in places]


def _below(folder: str) -> Predicate:
    return Predicate(
        "(t.resource_kind = 'artifact' AND (t.resource_id = ? OR starts_with(t.resource_id, ?)))",
        (folder, f"{folder}/"),
    )


def refusals(sources: Sources, asked: Asked) -> Draft:
    """What somebody was refused, or what was refused on a thing."""
    where = [Predicate("t.outcome = ?", (DENIED,)), *asked.span().predicates()]
    if asked.text("principal"):
        where.append(one_of("t.actor", asked.people["principal"]))
    if asked.text("resource"):
        where.append(about(asked.text("resource")))
    calls = _calls(sources, where)
    told = calls.counts

    def verdict(names: Names) -> str:
        of = asked.text("principal") or "anybody"
        on = f" on {asked.text('resource')}" if asked.text("resource") else ""
        if not told.total:
            return f"Nothing was refused to {of}{on}."
        return (
            f"{counted(told.total, 'call was', 'calls were')} refused to "
            f"{_most(told.actors, names)}{on}; most often {_first(told.actions)}."
        )

    return Draft(
        rows=calls.rows,
        evidence=places_of(calls.rows),
        verdict=verdict,
        truncated=calls.truncated,
    )


def credential(sources: Sources, asked: Asked) -> Draft:
    """Everything that a token, a client or a principal did, and what the token was."""
    parts = []
    if token := asked.text("credential"):
        parts.append(Predicate("t.token_id = ?", (token,)))
    if client := asked.text("client"):
        parts.append(Predicate("t.client_id = ?", (client,)))
    if asked.text("principal"):
        ids = asked.people["principal"]
        parts.append(any_of([one_of("t.actor", ids), in_any("delegation", ids)]))
    where = [all_of(parts), *asked.span().predicates()]
    calls = _calls(sources, where)
    told = calls.counts
    life, of_life = _life(sources, token)

    def verdict(_: Names) -> str:
        what = " and ".join(
            f"{name} {asked.text(name)}"
            for name in ("credential", "client", "principal")
            if asked.text(name)
        )
        if not told.total:
            return f"Nothing was done by {what}."
        return (
            f"{what[:1].upper()}{what[1:]} did {counted(told.total, 'thing')}, "
            f"{told.outcomes.get(DENIED, 0):,} of them refused; most often {_first(told.actions)}."
        )

    return Draft(
        rows=calls.rows,
        evidence=places_of(calls.rows) | of_life,
        verdict=verdict,
        findings=life,
        truncated=calls.truncated,
    )


def _life(sources: Sources, token: str) -> tuple[Callable[[Names], tuple[str, ...]], set[Place]]:
    """When a token of our own was made and ended, in words."""
    if not token:
        return lambda _: (), set()
    where = [
        Predicate("t.topic = 'catalog' AND t.outcome <> 'void'"),
        Predicate("t.resource_kind = 'credential' AND t.resource_id = ?", (token,)),
    ]
    found = sources.select(("at_ms", "action", "actor", *PLACE), *where, rows_max=ROWS_MAX)
    words = {"credential.issue": "made", "credential.revoke": "revoked"}

    def findings(names: Names) -> tuple[str, ...]:
        told = tuple(
            f"The token was {words[action]} by {names(actor)} at {time_shown(at_ms)}."
            for at_ms, action, actor, *_ in found
            if action in words
        )
        return told or ("The token is none of this server's own: its issuer knows its life.",)

    return findings, {Place(*row[-len(PLACE) :]) for row in found}


@dataclass(frozen=True, slots=True)
class _Calls:
    """Events that fit: rows of the first, and counts of all."""

    rows: list[tuple[Cell, ...]]
    counts: Counts
    truncated: bool


def _calls(sources: Sources, where: Sequence[Predicate]) -> _Calls:
    found = sources.select(_SELECTED, *where, rows_max=ROWS_MAX + 1)
    rows = [_row(row) for row in found[:ROWS_MAX]]
    if len(found) <= ROWS_MAX:
        # They are all; the table need not be gone through once more.
        of_all = total_of((row[1], row[2], row[7], 1) for row in found)
        return _Calls(rows, of_all, truncated=False)
    return _Calls(rows, counts(sources.connection, all_of(where)), truncated=True)


def _row(row: Row) -> tuple[Cell, ...]:
    at_ms, actor, action, kind, name, thing, version, outcome, reason, *more = row
    status, bytes_out, token, address, topic, partition, offset = more
    shown = None if kind is None else f"{kind}/{name or thing or ''}"
    return (
        time_shown(at_ms), actor, action, shown, version, outcome, reason, status, bytes_out,
        token, address, str(Place(topic, partition, offset)),
    )  # fmt: skip


def _most(actors: Mapping[str, int], names: Names) -> str:
    first = list(actors.items())[:NAMED_MAX]
    shown = ", ".join(f"{names(actor)} ({number:,})" for actor, number in first)
    more = len(actors) - NAMED_MAX
    return f"{shown} and {more:,} more" if more > 0 else shown


def _first(actions: Mapping[str, int]) -> str:
    first = list(actions.items())[:NAMED_MAX]
    return ", ".join(f"{action} ({number:,})" for action, number in first)


PRINCIPAL = Parameter("principal", "a principal by its id, or by name", kind="principal")

QUESTIONS = (
    Question(
        name="readers",
        text="Who read or downloaded this model, or this version of it?",
        parameters=(MODEL, VERSION, FROM, TO, WORKSPACE),
        columns=CALL_COLUMNS,
        answer=readers,
        notes=(
            "Searches and lists that showed the model among others are not in it, nor are files "
            "that are kept in a place of one's own."
        ),
    ),
    Question(
        name="refusals",
        text="What was this person refused, or what was refused on this thing?",
        parameters=(
            PRINCIPAL,
            Parameter("resource", "a thing, as models/NAME, models/NAME/3, runs/ID"),
            FROM,
            TO,
        ),
        columns=CALL_COLUMNS,
        answer=refusals,
    ),
    Question(
        name="credential",
        text="What did this token, this client, or this person or CI job do?",
        parameters=(
            Parameter("credential", "id of a token or session; of a CI job, its token's `jti`"),
            Parameter("client", "id of an OAuth client"),
            PRINCIPAL,
            FROM,
            TO,
        ),
        columns=CALL_COLUMNS,
        answer=credential,
        one_of=("credential", "client", "principal"),
    ),
)
