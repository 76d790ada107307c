"""Runs as the projection takes them, and a database with the tables that a run search reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb
import msgspec

from muniment_projections.base import Connection, Folded
from muniment_projections.runs.apply import RunsProjection
from muniment_schemas.envelope import Actor, Envelope
from muniment_schemas.events import DatasetInput, RunDeleted

CREATE_EXPERIMENTS = """
CREATE TABLE experiments (
    experiment_id VARCHAR, name VARCHAR, artifact_location VARCHAR, lifecycle VARCHAR,
    lifecycle_changed_at_ms BIGINT, created_at_ms BIGINT, updated_at_ms BIGINT,
    tags MAP(VARCHAR, VARCHAR), document BLOB
)
"""


class Metric(msgspec.Struct, frozen=True):
    """A metric's latest point."""

    value: float
    timestamp_ms: int = 0
    step: int = 0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run's state."""

    run_id: str
    experiment_id: str = "0"
    name: str = "run"
    user_id: str = "user"
    status: str = "FINISHED"
    start_time_ms: int = 0
    end_time_ms: int | None = None
    artifact_uri: str = "mlflow-artifacts:/0/artifacts"
    lifecycle: str = "active"
    lifecycle_changed_at_ms: int = 0
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    metrics: Mapping[str, Metric] = {}
    datasets: tuple[DatasetInput, ...] = ()


def dataset(name: str, digest: str, context: str | None = None) -> DatasetInput:
    """A dataset input, with its context when it has one."""
    tags = {} if context is None else {"mlflow.data.context": context}
    return DatasetInput(name=name, digest=digest, source_type="local", source="x", tags=tags)


def envelope(aggregate_id: str, kind: str = "run") -> Envelope:
    """An envelope that says what an event is about."""
    return Envelope(
        event_id="e",
        type="T",
        aggregate_kind=kind,
        aggregate_id=aggregate_id,
        actor=Actor(principal_id="p", auth_method="none"),
        request_id="r",
        recorded_at_ms=0,
    )


def folded(run: Run, void: str | None = None) -> Folded:
    """An event after which the run's state is this one."""
    return Folded("runs", 0, 0, RunDeleted(envelope=envelope(run.run_id)), void, run)


def database(runs: Iterable[Run] = ()) -> Connection:
    """A database in memory with active experiments 0 and 1, and these runs."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute(CREATE_EXPERIMENTS)
    RunsProjection().create(connection)
    for experiment_id in ("0", "1"):
        set_experiment(connection, experiment_id)
    store(connection, runs)
    return connection


def store(connection: Connection, runs: Iterable[Run]) -> None:
    """Apply the runs' states in one batch."""
    RunsProjection().apply(connection, [folded(run) for run in runs])


def set_experiment(
    connection: Connection, experiment_id: str, lifecycle: str = "active", changed_at_ms: int = 0
) -> None:
    """Replace an experiment's row."""
    connection.execute("DELETE FROM experiments WHERE experiment_id = ?", [experiment_id])
    connection.execute(
        "INSERT INTO experiments VALUES (?, ?, 'loc', ?, ?, 0, 0, MAP {}, ''::BLOB)",
        [experiment_id, f"experiment {experiment_id}", lifecycle, changed_at_ms],
    )


def run_ids(documents: Iterable[bytes]) -> list[str]:
    """The ids of the runs that a page holds."""
    return [msgspec.msgpack.decode(document, type=Run).run_id for document in documents]
