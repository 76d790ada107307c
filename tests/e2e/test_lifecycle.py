"""Experiments and runs come, change, go and return; what the client is told when it may not."""

import re
from collections.abc import Callable

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, ViewType
from mlflow.exceptions import MlflowException, RestException


def test_an_experiment_is_made_and_found(client: MlflowClient, unique: str) -> None:
    made = client.create_experiment(unique, tags={"team": "fraud"})
    client.set_experiment_tag(made, "owner", "ana")
    by_id = client.get_experiment(made)
    by_name = client.get_experiment_by_name(unique)
    assert by_name is not None
    assert by_name.experiment_id == by_id.experiment_id == made
    assert by_id.tags == {"team": "fraud", "owner": "ana"}
    assert by_id.lifecycle_stage == "active"
    assert by_id.artifact_location.endswith(f"/{made}")
    assert by_id.creation_time is not None
    assert by_id.creation_time > 1_600_000_000_000
    client.delete_experiment_tag(made, "team")
    assert client.get_experiment(made).tags == {"owner": "ana"}


def test_the_default_experiment_is_there(client: MlflowClient) -> None:
    default = client.get_experiment("0")
    assert default.name == "Default"
    found = client.get_experiment_by_name("Default")
    assert found is not None
    assert found.experiment_id == "0"


def test_set_experiment_makes_once_and_then_finds(unique: str) -> None:
    first = mlflow.set_experiment(unique)
    again = mlflow.set_experiment(unique)
    assert first.experiment_id == again.experiment_id
    with mlflow.start_run() as run:
        pass
    assert run.info.experiment_id == first.experiment_id


def test_a_name_is_taken_once(client: MlflowClient, unique: str) -> None:
    made = client.create_experiment(unique)
    with pytest.raises(MlflowException, match="already exists") as active:
        client.create_experiment(unique)
    client.delete_experiment(made)
    with pytest.raises(MlflowException, match="already exists") as deleted:
        client.create_experiment(unique)
    assert active.value.error_code == deleted.value.error_code == "RESOURCE_ALREADY_EXISTS"


def test_an_experiment_is_renamed(client: MlflowClient, unique: str) -> None:
    made = client.create_experiment(unique)
    before = client.get_experiment(made).last_update_time
    client.rename_experiment(made, f"{unique} renamed / ü")
    assert client.get_experiment_by_name(unique) is None
    after = client.get_experiment(made)
    assert after.name == f"{unique} renamed / ü"
    assert before is not None
    assert after.last_update_time is not None
    assert after.last_update_time >= before
    assert client.create_experiment(unique) != made, "the old name is free again"


def test_a_deleted_experiment_takes_its_runs_along_and_back(
    client: MlflowClient, experiment_id: str, unique: str
) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    client.log_metric(run_id, "m", 1.0)
    client.delete_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        client.create_run(experiment_id)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        client.log_metric(run_id, "m", 2.0)
    with pytest.raises(MlflowException, match="deleted experiment"):
        mlflow.set_experiment(unique)
    assert client.search_runs([experiment_id]) == []
    client.restore_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "active"
    (back,) = client.search_runs([experiment_id])
    assert back.info.run_id == run_id
    assert back.data.metrics == {"m": 1.0}


def test_experiments_are_seen_by_view(client: MlflowClient, unique: str) -> None:
    kept = client.create_experiment(f"{unique}-kept")
    gone = client.create_experiment(f"{unique}-gone")
    client.delete_experiment(gone)
    for view, expected in [
        (ViewType.ACTIVE_ONLY, [kept]),
        (ViewType.DELETED_ONLY, [gone]),
        (ViewType.ALL, [kept, gone]),
    ]:
        found = client.search_experiments(
            view,
            filter_string=f"name LIKE '{unique}%'",
            order_by=["creation_time", "experiment_id"],
        )
        assert [e.experiment_id for e in found] == expected


def test_a_deleted_run_is_kept_unseen_and_returns(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    client.log_param(run_id, "p", "1")
    client.delete_run(run_id)
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment_id]) == []
    (unseen,) = client.search_runs([experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert unseen.info.run_id == run_id
    told = f"The run {run_id} must be in the 'active' state. Current state is deleted."
    writes: list[Callable[[], object]] = [
        lambda: client.log_metric(run_id, "m", 1),
        lambda: client.log_param(run_id, "q", 1),
        lambda: client.set_tag(run_id, "t", 1),
        lambda: client.log_batch(run_id, [Metric("m", 1, 1, 1)], [Param("q", "1")]),
        lambda: client.update_run(run_id, "FINISHED"),
    ]
    for write in writes:
        with pytest.raises(MlflowException, match=re.escape(told)):
            write()
    client.restore_run(run_id)
    client.restore_run(run_id)
    (back,) = client.search_runs([experiment_id])
    assert back.data.params == {"p": "1"}
    assert back.data.metrics == {}


def test_what_is_missing_is_named(client: MlflowClient) -> None:
    absent = "0" * 31 + "f"
    with pytest.raises(RestException, match=f"Run with id={absent} not found") as run:
        client.get_run(absent)
    assert run.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(RestException, match="No Experiment with id=987654321 exists") as experiment:
        client.get_experiment("987654321")
    assert experiment.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(RestException) as write:
        client.log_metric(absent, "m", 1.0)
    assert write.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert client.get_experiment_by_name("no such experiment, ever") is None


def test_what_is_wrong_is_refused_and_changes_nothing(
    client: MlflowClient, experiment_id: str
) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    refused: list[Callable[[], object]] = [
        lambda: client.log_metric(run_id, "a!b", 1.0),
        lambda: client.log_metric(run_id, "../up", 1.0),
        lambda: client.log_param(run_id, "a//b", 1),
        lambda: client.log_metric(run_id, "k" * 251, 1.0),
        lambda: client.set_tag(run_id, "k" * 251, "v"),
        lambda: client.log_metric(run_id, "m", 1.0, timestamp=-1),
        lambda: client.log_batch(run_id, params=[Param("d", "1"), Param("d", "2")]),
        lambda: client.search_runs([experiment_id], "metrics.m > 'text'"),
        lambda: client.search_runs([experiment_id], "params.a = 1 OR params.b = 2"),
        lambda: client.search_runs([experiment_id], max_results=50_001),
        lambda: client.search_runs([experiment_id], page_token="?"),
        lambda: client.search_runs([experiment_id], order_by=["metrics.m UP"]),
        lambda: client.get_experiment("abc"),
        lambda: client.create_experiment("n" * 501),
    ]
    for call in refused:
        with pytest.raises(MlflowException) as told:
            call()
        assert told.value.error_code == "INVALID_PARAMETER_VALUE", told.value.message
    read = client.get_run(run_id)
    assert read.data.metrics == {}
    assert read.data.params == {}
    assert set(read.data.tags) == {"mlflow.runName"}
