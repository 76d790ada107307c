"""Reads runs: searches by MLflow's filter language, and documents by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from muniment_projections.base import Connection
from muniment_projections.runs import tables
from muniment_projections.search.entities.runs import LIFECYCLE, RUNS
from muniment_projections.search.page import MAX_RESULTS_DEFAULT, Search, search
from muniment_projections.search.predicate import TRUE, Predicate, all_of, one_of

View = Literal["active", "deleted", "all"]

DATASETS_MAX = 1000
"""Datasets in one answer, as many as MLflow gives."""

_DATASETS = (
    "SELECT DISTINCT experiment_id, d.name, d.digest, d.context FROM (SELECT t.experiment_id,"
    " unnest(t.datasets) AS d FROM runs AS t WHERE {scope})"
    f" ORDER BY ALL LIMIT {DATASETS_MAX}"
)

_LIFECYCLES = (
    f"SELECT t.run_id, {LIFECYCLE} FROM {RUNS.source} WHERE t.run_id IN (SELECT unnest(?))"
)


@dataclass(frozen=True, slots=True)
class RunSearch:
    """What `runs/search` asks for: runs of these experiments, in this view, at most a page."""

    experiment_ids: tuple[str, ...]
    filter: str = ""
    view: View = "active"
    order_by: tuple[str, ...] = ()
    max_results: int = MAX_RESULTS_DEFAULT
    page_token: str | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """States of runs as MessagePack, their effective lifecycles, a token unless it is the last."""

    documents: list[bytes]
    lifecycles: list[str]
    next_page_token: str | None


def search_runs(
    connection: Connection, wanted: RunSearch, visible: Predicate | None = None
) -> RunPage:
    """One page, by one statement.

    visible: which rows of `runs AS t` the caller may see. Raises SearchError.
    """
    in_view = TRUE if wanted.view == "all" else Predicate(f"{LIFECYCLE} = ?", (wanted.view,))
    page = search(
        connection,
        RUNS,
        Search(
            filter=wanted.filter,
            order_by=wanted.order_by,
            max_results=wanted.max_results,
            page_token=wanted.page_token,
            scope=all_of([one_of("t.experiment_id", wanted.experiment_ids), in_view]),
            context=(wanted.view, *wanted.experiment_ids),
            visible=visible,
        ),
    )
    lifecycles = [cast(str, lifecycle) for (lifecycle,) in page.extra]
    return RunPage(page.documents, lifecycles, page.next_page_token)


def find_datasets(
    connection: Connection, experiment_ids: Sequence[str], visible: Predicate = TRUE
) -> list[tuple[str, str, str, str | None]]:
    """Datasets that runs of these experiments use: (experiment id, name, digest, context), sorted.

    visible: which rows of `runs AS t` the caller may see. At most DATASETS_MAX.
    """
    scope = all_of([one_of("t.experiment_id", experiment_ids), visible])
    sql = _DATASETS.format(scope=scope.sql)
    return connection.execute(sql, list(scope.parameters)).fetchall()


def find_documents(connection: Connection, run_ids: Sequence[str]) -> dict[str, bytes]:
    """The states of these runs, deleted ones included; ids that are no runs are left out."""
    return dict(connection.execute(tables.DOCUMENTS, [list(run_ids)]).fetchall())


def find_lifecycles(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """The effective lifecycles of these runs; ids that are no runs are left out."""
    return dict(connection.execute(_LIFECYCLES, [list(run_ids)]).fetchall())
