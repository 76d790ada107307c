"""What came of a dataset or of a commit: runs, logged models, versions, and where those got to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from muniment_projections.audit.reports import lineage as tables
from muniment_projections.audit.reports.rows import PLACE
from muniment_projections.search.predicate import TRUE, Predicate, all_of, one_of
from muniment_schemas import events as e
from muniment_schemas.envelope import RUNS
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.run import KIND as RUN
from muniment_services.domain.run import Run
from muniment_services.reports.moment import time_shown
from muniment_services.reports.moves import histories, moves
from muniment_services.reports.question import (
    AT_COLUMN,
    EVENT_COLUMN,
    Asked,
    Question,
    counted,
)
from muniment_services.reports.report import ROWS_MAX, Cell, Column, Draft, Names, Parameter, Place
from muniment_services.reports.sources import Sources, Step

RUNS_MAX = 500
"""Runs whose events are looked through; of more, the oldest are told."""

USUALLY = ("RunCreated", "InputsLogged")
"""Types of the events that mostly say what a run used."""

Row = tuple[Cell, ...]
Holds = Callable[[Run], bool]


def uses(sources: Sources, asked: Asked) -> Draft:
    """Everything that a dataset or a commit went into."""
    found, holds, what = _runs(sources, asked)
    run_ids = found[:RUNS_MAX]
    rows = sorted(_run_rows(sources, run_ids, holds))
    logged = tables.logged_models(sources.connection, run_ids, ROWS_MAX)
    rows += _logged_rows(sources, [model_id for model_id, *_ in logged])
    rows += _version_rows(sources, run_ids, [model_id for model_id, *_ in logged])
    told = Counter(row[1] for row in rows)
    reached = sorted({str(row[5]) for row in rows if row[1] == "move"})

    def verdict(_: Names) -> str:
        if not rows:
            return f"Nothing used {what}."
        where = f"; versions got to {', '.join(reached)}" if reached else ""
        return (
            f"{what[:1].upper()}{what[1:]} was used by {counted(told['run'], 'run')}; "
            f"{counted(told['logged_model'], 'logged model')} and "
            f"{counted(told['version'], 'registered version')} came of it{where}."
        )

    return Draft(
        rows=rows[:ROWS_MAX],
        evidence={_place(row) for row in rows[:ROWS_MAX]},
        verdict=verdict,
        truncated=len(rows) > ROWS_MAX or len(found) > RUNS_MAX or len(logged) == ROWS_MAX,
    )


def _place(row: Row) -> Place:
    topic, partition, offset = str(row[-1]).split("/")
    return Place(topic, int(partition), int(offset))


def _runs(sources: Sources, asked: Asked) -> tuple[list[str], Holds, str]:
    """The runs, what makes a run one of them, and words for what was used."""
    if name := asked.text("dataset"):
        digest = asked.text("digest") or None
        found = tables.runs_of_dataset(sources.connection, name, digest, RUNS_MAX + 1)

        def used(run: Run) -> bool:
            return any(d.name == name and digest in (None, d.digest) for d in run.datasets)

        return found, used, f"the dataset {name}" + ("" if digest is None else f"@{digest}")
    commit = asked.text("commit")
    found = tables.runs_of_commit(sources.connection, commit, RUNS_MAX + 1)

    def of_commit(run: Run) -> bool:
        return run.tags.get(tables.COMMIT_TAG, "").startswith(commit)

    return found, of_commit, f"the commit {commit}"


def _run_rows(sources: Sources, run_ids: Sequence[str], holds: Holds) -> Iterator[Row]:
    """Each run, by the event since which it is one of them.

    That is mostly one of a few; only where it is not, all that was logged is looked through.
    """
    told: set[str] = set()
    for where in (one_of("t.type", USUALLY), TRUE):
        left = [run_id for run_id in run_ids if run_id not in told]
        if not left:
            return
        of_runs = all_of([Predicate("t.resource_kind = ?", (RUN,)), one_of("t.resource_id", left)])
        for step in sources.replay(RUNS, of_runs, where):
            run, place = step.after, step.place
            if run.run_id not in told and holds(run):
                told.add(run.run_id)
                yield _row(step.at_ms, "run", run.run_id, run.name, None, None, step.actor, place)


def _logged_rows(sources: Sources, model_ids: Sequence[str]) -> list[Row]:
    where = [
        Predicate("t.type = 'LoggedModelCreated' AND t.outcome <> 'void'"),
        one_of("t.resource_id", model_ids),
    ]
    columns = ("at_ms", "resource_id", "actor", *PLACE)
    found = sources.select(columns, *where, rows_max=ROWS_MAX) if model_ids else []
    return [
        _row(at_ms, "logged_model", model_id, None, None, None, actor, Place(*place))
        for at_ms, model_id, actor, *place in found
    ]


def _version_rows(sources: Sources, run_ids: Sequence[str], logged_ids: Sequence[str]) -> list[Row]:
    """The versions that came of runs or logged models, and each move of them."""
    found = tables.versions(sources.connection, run_ids, logged_ids, ROWS_MAX)
    if not found:
        return []
    steps = list(histories(sources, {model_id for model_id, *_ in found}))
    rows: list[Row] = []
    wanted: set[tuple[str, int]] = set()
    for step in steps:
        event, model = step.event, step.after
        if isinstance(event, e.ModelVersionCreated) and (
            event.run_id in run_ids or event.logged_model_id in logged_ids
        ):
            wanted.add((model.model_id, event.version))
            rows.append(_of_model(step, "version", model, event.version, None))
    for move in moves(steps):
        if (move.model.model_id, move.version) in wanted:
            target = move.target.shown
            rows.append(_of_model(move.step, "move", move.model, move.version, target))
    return rows


def _of_model(
    step: Step, what: str, model: RegisteredModel, version: int, target: str | None
) -> Row:
    return _row(
        step.at_ms, what, model.model_id, model.name, version, target, step.actor, step.place
    )


def _row(
    at_ms: int,
    what: str,
    id: str,
    name: str | None,
    version: int | None,
    target: str | None,
    actor: str,
    place: Place,
) -> Row:
    return (time_shown(at_ms), what, id, name, version, target, actor, str(place))


QUESTIONS = (
    Question(
        name="uses",
        text="What used this dataset, or the code of this commit, and where did it get to?",
        parameters=(
            Parameter("dataset", "a dataset by the name that runs logged it under"),
            Parameter("digest", "with dataset: of this digest only"),
            Parameter("commit", "a commit by its hash, or how that begins"),
        ),
        columns=(
            AT_COLUMN,
            Column("what", "text", "run, logged_model, version, or a version's move"),
            Column("id", "text", "of the run, logged model or registered model"),
            Column("name", "text", "its name then"),
            Column("version", "number", "the version"),
            Column("target", "text", "the stage, or @ and the alias, that it got to"),
            Column("actor", "principal", "who did it"),
            EVENT_COLUMN,
        ),
        answer=uses,
        one_of=("dataset", "commit"),
        notes="By what runs logged of themselves: datasets as inputs, the commit as MLflow's tag.",
    ),
)
