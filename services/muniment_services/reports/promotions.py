"""Who promoted what on which evidence, and where one person stood on both sides of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from muniment_projections.search.predicate import Predicate, one_of
from muniment_schemas import events as e
from muniment_services.domain.logged_model import KIND as LOGGED_MODEL
from muniment_services.domain.promotion_guard import origins_of
from muniment_services.domain.registered_model import ModelVersion
from muniment_services.domain.review import Hand
from muniment_services.domain.run import KIND as RUN
from muniment_services.reports.moment import time_shown
from muniment_services.reports.moves import Move, histories, moves
from muniment_services.reports.question import (
    ANY_TARGET,
    AT_COLUMN,
    EVENT_COLUMN,
    FROM,
    MODEL,
    MODELS,
    TO,
    VERSION,
    WORKSPACE,
    Asked,
    Question,
    counted,
    listed,
    people,
)
from muniment_services.reports.report import (
    EVIDENCE_MAX,
    ROWS_MAX,
    Cell,
    Column,
    Draft,
    Names,
    Place,
)
from muniment_services.reports.sources import Sources

APPROVED, DIRECT = "approved", "direct"
APPROVER, REQUESTER = "approver", "requester"


def promotions(sources: Sources, asked: Asked) -> Draft:
    """Every move of a model's versions, with what it rested on."""
    found = _wanted(sources, asked)
    shown = found[:ROWS_MAX]
    evidence = {place for move in shown for place in move.rests_on}

    def verdict(names: Names) -> str:
        name = asked.text("model")
        if not found:
            return f"No version of {name} was moved so."
        last = found[-1]
        how = "without a request"
        if last.request is not None:
            asked_by = names(last.request.requester)
            approvers = people((one.principal_id for one in last.approvers), names)
            how = f"asked for by {asked_by} and approved by {approvers}"
        return (
            f"{counted(len(found), 'move')}; the last brought version {last.version} of "
            f"{last.model.name} to {last.target.shown} at {time_shown(last.step.at_ms)}, "
            f"by {names(last.step.actor)}, {how}."
        )

    return Draft(
        rows=[_row(move) for move in shown],
        evidence=evidence,
        verdict=verdict,
        truncated=len(found) > ROWS_MAX,
    )


def _wanted(sources: Sources, asked: Asked) -> list[Move]:
    version, target, times = asked.version(), asked.target(), asked.span()
    return [
        move
        for move in moves(histories(sources, asked.models(sources)))
        if version in (None, move.version)
        and target in (None, move.target)
        and times.covers(move.step.at_ms)
    ]


def _row(move: Move) -> tuple[Cell, ...]:
    request, evidence = move.request, None if move.approval is None else move.approval.evidence
    return (
        time_shown(move.step.at_ms),
        move.model.name,
        move.version,
        move.target.shown,
        move.was,
        move.step.actor,
        DIRECT if move.approval is None else APPROVED,
        None if request is None else request.requester,
        None if request is None else time_shown(request.at_ms),
        listed(one.principal_id for one in move.approvers) or None,
        None if move.approval is None else move.approval.approvals_needed,
        move.comment,
        *_evidence(evidence),
        str(move.step.place),
    )


def _evidence(evidence: e.Evidence | None) -> tuple[Cell, ...]:
    if evidence is None:
        return (None,) * 9
    metrics = (f"{key}={value!r}" for key, value in sorted(evidence.metrics.items()))
    digests = evidence.dataset_digests
    datasets = (
        (f"{one.name}@{one.digest}" for one in digests)
        if digests
        else (f"{name}@{digest}" for name, digest in sorted(evidence.datasets.items()))
    )
    claims = (f"{name}={'|'.join(values)}" for name, values in sorted(evidence.claims.items()))
    return (
        listed(evidence.policies) or None,
        listed(evidence.conditions) or None,
        evidence.run_id,
        listed(metrics) or None,
        evidence.source_commit,
        listed(datasets) or None,
        None if evidence.artifacts_sha256 is None else evidence.artifacts_sha256.hex(),
        listed(claims) or None,
        None if evidence.sha256 is None else evidence.sha256.hex(),
    )


def coincidences(sources: Sources, asked: Asked) -> Draft:
    """Approvals where requester, author and approver are not all different."""
    times, target = asked.span(), asked.target()
    approved = [
        move
        for move in moves(histories(sources, _approved_models(sources, asked)))
        if move.approval is not None
        and times.covers(move.step.at_ms)
        and target in (None, move.target)
    ]
    authors = _Authors(sources, approved)
    rows: list[tuple[Cell, ...]] = []
    evidence: set[Place] = set()
    for move in approved:
        evidence.update(move.rests_on)
        for role, one, other, what in _meetings(move, authors):
            rows.append(
                (
                    time_shown(move.step.at_ms),
                    move.model.name,
                    move.version,
                    move.target.shown,
                    one.principal_id,
                    role,
                    other.principal_id,
                    what,
                    listed(move.approval.evidence.policies) if move.approval else None,
                    str(move.step.place),
                )
            )
            evidence.update(authors.places(move))
    cut = len(rows) > ROWS_MAX or len(evidence) > EVIDENCE_MAX

    def verdict(names: Names) -> str:
        of = counted(len(approved), "approved move")
        if not rows:
            return f"None of {of} has one hand on both sides."
        own = [row for row in rows if row[5] == APPROVER]
        asked_own = {row[-1] for row in rows if row[5] == REQUESTER}
        told = f"Of {of}, none was approved by its requester or an author"
        if own:
            who = people((str(row[4]) for row in own), names)
            number = len({row[-1] for row in own})
            told = f"{number:,} of {of} had an approver who was its requester or an author: {who}"
        return f"{told}; {len(asked_own):,} were asked for by an author."

    return Draft(rows=rows[:ROWS_MAX], evidence=evidence, verdict=verdict, truncated=cut)


def _approved_models(sources: Sources, asked: Asked) -> list[str]:
    """The models that are asked about and had approvals."""
    models = asked.models(sources)
    where = Predicate("t.type = 'TransitionApproved' AND t.outcome <> 'void'")
    found = sources.select(("resource_id",), where, rows_max=EVIDENCE_MAX)
    return [model_id for model_id in dict.fromkeys(one for (one,) in found) if model_id in models]


class _Authors:
    """Who had a hand in the versions of some moves, and the events that say so."""

    def __init__(self, sources: Sources, found: Iterable[Move]) -> None:
        origins = {origin for move in found for origin in origins_of(_version(move))}
        self._made: dict[tuple[str, str], tuple[Hand, Place]] = {}
        types = {RUN: "RunCreated", LOGGED_MODEL: "LoggedModelCreated"}
        for kind, created in types.items():
            ids = [origin for of, origin in origins if of == kind]
            if not ids:
                continue
            where = [
                Predicate("t.type = ? AND t.outcome <> 'void'", (created,)),
                one_of("t.resource_id", ids),
            ]
            columns = ("resource_id", "actor", "delegation", "topic", "partition", "offset")
            for made, actor, through, *place in sources.select(
                columns, *where, rows_max=EVIDENCE_MAX
            ):
                hand = Hand(actor, tuple(through or ()))
                self._made[kind, made] = (hand, Place(*place))

    def of(self, move: Move) -> Iterator[tuple[str, Hand]]:
        """Each with words for what it is."""
        version = _version(move)
        yield "author of the version", version.author
        for hand in version.copied_from:
            yield "author of a version that it was copied from", hand
        words = {RUN: "author of its run", LOGGED_MODEL: "author of its logged model"}
        for kind, origin in origins_of(version):
            if (kind, origin) in self._made:
                yield words[kind], self._made[kind, origin][0]

    def places(self, move: Move) -> set[Place]:
        """Where the runs and logged models were made."""
        found = origins_of(_version(move))
        return {self._made[origin][1] for origin in found if origin in self._made}


def _version(move: Move) -> ModelVersion:
    found: ModelVersion = move.step.before.versions[move.version]
    return found


def _meetings(move: Move, authors: _Authors) -> Iterator[tuple[str, Hand, Hand, str]]:
    """Pairs of roles that one hand had in a move: the role, who, and the other with its role."""
    request = move.request
    assert request is not None
    for approver in move.approvers:
        if approver.same_hand(request.asked_by):
            yield APPROVER, approver, request.asked_by, REQUESTER
        for words, author in authors.of(move):
            if approver.same_hand(author):
                yield APPROVER, approver, author, words
    for words, author in authors.of(move):
        if request.asked_by.same_hand(author):
            yield REQUESTER, request.asked_by, author, words


_MOVED = (
    AT_COLUMN,
    Column("model", "text", "the model's name then"),
    Column("version", "number", "the version"),
    Column("target", "text", "the stage, or @ and the alias, that it got to"),
)

QUESTIONS = (
    Question(
        name="promotions",
        text="Who promoted this, when, on which evidence, and approved by whom?",
        parameters=(MODEL, VERSION, ANY_TARGET, FROM, TO, WORKSPACE),
        columns=(
            *_MOVED,
            Column("was", "text", "the stage that it left, or the version that the alias left"),
            Column("moved_by", "principal", "who made the move; of an approval, who gave the last"),
            Column("how", "text", "approved (of a request), or direct"),
            Column("requester", "principal", "who asked for it"),
            Column("requested_at", "time", "when"),
            Column("approvers", "principal", "whose approvals counted"),
            Column("approvals_needed", "number", "how many policies asked for"),
            Column("comment", "text", "what was said with it"),
            Column("policies", "text", "policies in force"),
            Column("conditions", "text", "their conditions, which were true"),
            Column("run", "text", "the run that the version comes from"),
            Column("metrics", "text", "its metrics that conditions name"),
            Column("commit", "text", "its source commit"),
            Column("datasets", "text", "its datasets, each with its digest"),
            Column("files_sha256", "text", "digest of all files of the version"),
            Column("claims", "text", "the approver's claims"),
            Column("evidence_sha256", "text", "digest of all that the approval rests on"),
            EVENT_COLUMN,
        ),
        answer=promotions,
    ),
    Question(
        name="coincidences",
        text="In which approvals do requester, author and approver coincide?",
        parameters=(MODELS, ANY_TARGET, FROM, TO, WORKSPACE),
        columns=(
            *_MOVED,
            Column("who", "principal", "whoever stands on both sides"),
            Column("role", "text", "as what"),
            Column("also", "principal", "the same, or whom it acts for"),
            Column("also_role", "text", "as what else"),
            Column("policies", "text", "policies in force, which allowed it"),
            EVENT_COLUMN,
        ),
        answer=coincidences,
        notes=(
            "Authors are whoever registered the version, what it was copied from, and who made the "
            "run or the logged model that it comes from. Moves that nobody asked for have no "
            "approver; `unapproved` tells them."
        ),
    ),
)
