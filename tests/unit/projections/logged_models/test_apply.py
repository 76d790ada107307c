"""The logged_models table: the last state of each model, and its document."""

from __future__ import annotations

import duckdb
import msgspec

from harness.world import TestWorld
from muniment_projections.base import Connection, Folded
from muniment_projections.logged_models.apply import LoggedModelsProjection
from muniment_projections.logged_models.reader import find_documents, model_points
from muniment_projections.metrics import tables as metrics
from muniment_services.domain.commands import Command
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.logged_model import (
    CreateLoggedModel,
    DeleteLoggedModel,
    FinalizeLoggedModel,
    LoggedModel,
    SetLoggedModelTags,
)


def folded(world: TestWorld, command: Command) -> Folded:
    event = world.decide(command)
    assert event is not None
    return Folded("runs", 0, 0, event, None, world.fold(event))


def table() -> tuple[Connection, LoggedModelsProjection]:
    connection = duckdb.connect()
    projection = LoggedModelsProjection()
    projection.create(connection)
    return connection, projection


def test_a_row_is_the_last_state_of_its_model() -> None:
    world = TestWorld()
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    created = folded(world, CreateLoggedModel(experiment_id="1", name="m", params=(("p", "1"),)))
    model_id = created.event.envelope.aggregate_id
    tagged = folded(world, SetLoggedModelTags(model_id=model_id, tags=(("k", "v"),)))
    finished = folded(world, FinalizeLoggedModel(model_id=model_id, status="LOGGED_MODEL_READY"))
    deleted = folded(world, DeleteLoggedModel(model_id=model_id))

    connection, projection = table()
    projection.apply(connection, [created, tagged])
    projection.apply(connection, [finished, deleted])

    rows = connection.execute(
        "SELECT status, lifecycle, params, tags FROM logged_models"
    ).fetchall()
    assert rows == [("LOGGED_MODEL_READY", "deleted", {"p": "1"}, {"k": "v"})]
    documents = find_documents(connection, [model_id, "m-none"])
    assert list(documents) == [model_id]
    assert msgspec.msgpack.decode(documents[model_id], type=LoggedModel) == deleted.after


def test_all_points_of_a_model_are_read_once_in_the_order_of_logging() -> None:
    connection = duckdb.connect()
    connection.execute(metrics.CREATE)
    for key, step, value in (("b", 0, 1.0), ("a", 1, 2.0), ("b", 0, 1.0), ("a", 0, 3.0)):
        row = ["m-1", "run", key, step, 9, value, None, None]
        connection.execute("INSERT INTO model_points VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    points = model_points(connection, ["m-1", "m-2"])
    assert list(points) == ["m-1"]
    found = [(point.key, point.step, point.value) for point in points["m-1"]]
    assert found == [("b", 0, 1.0), ("a", 1, 2.0), ("a", 0, 3.0)]
