"""Logged models by id, and the metrics of theirs that runs have logged."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection
from muniment_projections.logged_models import tables
from muniment_projections.metrics.reader import ModelPoint


def find_documents(connection: Connection, model_ids: Sequence[str]) -> dict[str, bytes]:
    """The states of these logged models, deleted ones too; ids that are none are left out."""
    return dict(connection.execute(tables.DOCUMENTS, [list(model_ids)]).fetchall())


def newest_of_run(connection: Connection, experiment_id: str, run_id: str, name: str) -> str | None:
    """The logged model that MLflow's clients load by `runs:/RUN/NAME`, if there is one.

    Source: MLflow 3.17, `RunsArtifactRepository`.
    """
    row = connection.execute(tables.OF_RUN, [experiment_id, run_id, name]).fetchone()
    return None if row is None else str(row[0])


def model_points(connection: Connection, model_ids: Sequence[str]) -> dict[str, list[ModelPoint]]:
    """All metric points of these models, not only the latest: MLflow answers with them all.

    Models without metrics are left out; points are in the order in which they were logged.
    """
    found: dict[str, list[ModelPoint]] = {}
    for model_id, *point in connection.execute(tables.POINTS, [list(model_ids)]).fetchall():
        found.setdefault(model_id, []).append(ModelPoint(*point))
    return found
