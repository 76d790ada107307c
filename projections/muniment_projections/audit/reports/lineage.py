"""What came of a dataset or a commit: runs, the models that they made, versions of registered
models."""

from __future__ import annotations

from collections.abc import Sequence

from muniment_projections.base import Connection

COMMIT_TAG = "mlflow.source.git.commit"

_OF_DATASET = """
SELECT run_id, created FROM (
    SELECT run_id, start_time_ms AS created,
        len(list_filter(datasets, lambda d: d.name = $name
            AND ($digest IS NULL OR d.digest = $digest))) > 0 AS used
    FROM runs)
WHERE used ORDER BY created, run_id LIMIT $rows_max
"""

_OF_COMMIT = f"""
SELECT run_id, start_time_ms FROM runs
WHERE tags['{COMMIT_TAG}'] = $commit OR starts_with(tags['{COMMIT_TAG}'], $commit)
ORDER BY start_time_ms, run_id LIMIT $rows_max
"""

_LOGGED = """
SELECT model_id, name, source_run_id FROM logged_models
WHERE list_contains(?::VARCHAR[], source_run_id) ORDER BY created_at_ms, model_id LIMIT ?
"""

_VERSIONS = """
SELECT resource_id, "partition", "offset" FROM (
    SELECT t.resource_id, t."partition", t."offset",
        t.after -> 'versions' -> CAST(t.resource_version AS VARCHAR) AS made
    FROM audit_events AS t WHERE t.type = 'ModelVersionCreated' AND t.outcome <> 'void')
WHERE made IS NULL OR list_contains($runs, made ->> 'run_id')
    OR list_contains($models, made ->> 'logged_model_id')
ORDER BY "offset" LIMIT $rows_max
"""
"""Of a change that is too long for the table it is the event that says what was made."""


def runs_of_dataset(
    connection: Connection, name: str, digest: str | None, rows_max: int
) -> list[str]:
    """Runs that used a dataset, of any digest or of one."""
    asked = {"name": name, "digest": digest, "rows_max": rows_max}
    return [run_id for run_id, _ in connection.execute(_OF_DATASET, asked).fetchall()]


def runs_of_commit(connection: Connection, commit: str, rows_max: int) -> list[str]:
    """Runs of the code of a commit, by its hash or how that begins."""
    asked = {"commit": commit, "rows_max": rows_max}
    return [run_id for run_id, _ in connection.execute(_OF_COMMIT, asked).fetchall()]


def logged_models(
    connection: Connection, run_ids: Sequence[str], rows_max: int
) -> list[tuple[str, str, str]]:
    """(id, name, run) of logged models that runs made."""
    return connection.execute(_LOGGED, [list(run_ids), rows_max]).fetchall()


def versions(
    connection: Connection, run_ids: Sequence[str], logged_ids: Sequence[str], rows_max: int
) -> list[tuple[str, int, int]]:
    """(model id, partition, offset) of versions that were registered of runs or logged models,
    deleted ones too, and of some of which only their event tells."""
    asked = {"runs": list(run_ids), "models": list(logged_ids), "rows_max": rows_max}
    return connection.execute(_VERSIONS, asked).fetchall()


def artifact_uri(connection: Connection, run_id: str) -> str | None:
    """The place of a run's files; None: there is no such run."""
    found = connection.execute("SELECT artifact_uri FROM runs WHERE run_id = ?", [run_id])
    row = found.fetchone()
    return None if row is None else str(row[0])
