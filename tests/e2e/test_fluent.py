"""The everyday fluent API: runs, params, metrics, tags, nesting, and what a user reads back."""

import math
import time

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException


def test_a_run_keeps_what_was_logged(client: MlflowClient, experiment_id: str) -> None:
    before_ms = int(time.time() * 1000) - 1
    with mlflow.start_run(run_name="first steps", description="what it is for") as run:
        mlflow.log_param("solver", "lbfgs")
        mlflow.log_params({"depth": 5, "rate": 0.1, "layers": [64, 32], "none": None})
        mlflow.log_metric("loss", 0.5)
        mlflow.log_metrics({"accuracy": 0.91, "f1": 1})
        mlflow.set_tag("team", "fraud")
        mlflow.set_tags({"stage": "try", "priority": 3})
    read = client.get_run(run.info.run_id)
    assert read.data.params == {
        "solver": "lbfgs",
        "depth": "5",
        "rate": "0.1",
        "layers": "[64, 32]",
        "none": "None",
    }
    assert read.data.metrics == {"loss": 0.5, "accuracy": 0.91, "f1": 1.0}
    assert read.data.tags["team"] == "fraud"
    assert read.data.tags["priority"] == "3"
    assert read.data.tags["mlflow.note.content"] == "what it is for"
    assert read.info.run_name == "first steps"
    assert read.info.status == "FINISHED"
    assert read.info.experiment_id == experiment_id
    assert read.info.lifecycle_stage == "active"
    assert before_ms <= read.info.start_time <= read.info.end_time
    assert read.info.artifact_uri.endswith(f"/{experiment_id}/{run.info.run_id}/artifacts")


def test_system_tags_say_who_and_how(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
        assert active.info.status == RunStatus.to_string(RunStatus.RUNNING)
    tags = client.get_run(run.info.run_id).data.tags
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= tags.keys()
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlflow.runName"] == run.info.run_name
    assert run.info.run_name, "a run without a name gets one"
    last = mlflow.last_active_run()
    assert last is not None
    assert last.info.run_id == run.info.run_id


def test_an_exception_fails_the_run(client: MlflowClient, experiment_id: str) -> None:
    def train() -> None:
        with mlflow.start_run():
            mlflow.log_metric("before", 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    (read,) = client.search_runs([experiment_id])
    assert read.info.status == "FAILED"
    assert read.data.metrics == {"before": 1.0}


def test_a_run_is_taken_up_again(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("epoch", 1, step=1)
    with mlflow.start_run(run_id=run.info.run_id) as resumed:
        assert resumed.info.status == "RUNNING"
        mlflow.log_metric("epoch", 2, step=2)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.end_run("KILLED")
    read = client.get_run(run.info.run_id)
    assert read.info.status == "KILLED"
    assert [p.value for p in client.get_metric_history(run.info.run_id, "epoch")] == [1.0, 2.0]


def test_child_runs_know_their_parent(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as parent:
        for depth in (1, 2):
            with mlflow.start_run(nested=True, tags={"depth": str(depth)}) as child:
                with mlflow.start_run(nested=True) as grandchild:
                    mlflow.log_param("deepest", True)
                above = client.get_parent_run(grandchild.info.run_id)
                assert above is not None
                assert above.info.run_id == child.info.run_id
    children = client.search_runs(
        [experiment_id],
        f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["tags.depth"],
    )
    assert [child.data.tags["depth"] for child in children] == ["1", "2"]
    assert client.get_parent_run(parent.info.run_id) is None


def test_history_keeps_every_point_and_the_latest_wins_by_step(
    client: MlflowClient, experiment_id: str
) -> None:
    with mlflow.start_run() as run:
        for step in range(20):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metric("loss", 99.0, step=5)  # late news of an early step
        mlflow.log_metric("other", -1.5, step=-3)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert len(history) == 21
    assert {(p.step, p.value) for p in history} == {(s, 1 / (s + 1)) for s in range(20)} | {(5, 99)}
    read = client.get_run(run.info.run_id)
    assert read.data.metrics == {"loss": 1 / 20, "other": -1.5}
    assert client.get_metric_history(run.info.run_id, "never logged") == []


def test_nan_and_infinities_are_metrics(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("nan", math.nan)
        mlflow.log_metric("up", math.inf)
        mlflow.log_metric("down", -math.inf)
    metrics = client.get_run(run.info.run_id).data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["up"] > 1.7e308
    assert metrics["down"] < -1.7e308
    (point,) = client.get_metric_history(run.info.run_id, "nan")
    assert math.isnan(point.value)


def test_a_batch_lands_whole(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    at_ms = 1_700_000_000_000
    metrics = [Metric(f"m{i % 10}", i / 7, at_ms + i, i // 10) for i in range(2_500)]
    params = [Param(f"p{i}", str(i)) for i in range(250)]
    tags = [RunTag(f"t{i}", f"é{i}") for i in range(150)]
    client.log_batch(run_id, metrics=metrics[:1000], params=params[:0])
    for start in range(0, 250, 100):
        client.log_batch(run_id, params=params[start : start + 100])
    client.log_batch(run_id, tags=tags[:100])
    client.log_batch(run_id, tags=tags[100:])
    for start in (1000, 2000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    read = client.get_run(run_id)
    assert read.data.params == {p.key: p.value for p in params}
    assert {t.key: t.value for t in tags}.items() <= read.data.tags.items()
    assert read.data.metrics == {f"m{k}": (2490 + k) / 7 for k in range(10)}
    history = client.get_metric_history(run_id, "m3")
    assert [(p.step, p.value, p.timestamp) for p in history] == [
        (i // 10, i / 7, at_ms + i) for i in range(3, 2500, 10)
    ]


def test_points_said_twice_are_stored_once(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id).info.run_id
    for _ in range(3):
        client.log_metric(run_id, "k", 1.0, timestamp=1_700_000_000_000, step=1)
    client.log_metric(run_id, "k", 2.0, timestamp=1_700_000_000_000, step=1)
    assert sorted(p.value for p in client.get_metric_history(run_id, "k")) == [1.0, 2.0]
    assert client.get_run(run_id).data.metrics == {"k": 2.0}


def test_a_param_is_said_once(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_param("a", 1)
        mlflow.log_param("a", 1)
        with pytest.raises(
            MlflowException, match=r"[Cc]hanging param values is not allowed"
        ) as told:
            mlflow.log_param("a", 2)
        assert told.value.error_code == "INVALID_PARAMETER_VALUE"
        with pytest.raises(MlflowException, match="not allowed"):
            mlflow.log_params({"new": 1, "a": 3})
    assert client.get_run(run.info.run_id).data.params == {"a": "1"}


def test_long_values_are_cut_and_odd_names_kept(client: MlflowClient, experiment_id: str) -> None:
    odd = "größe/val loss-1.x:y"
    with mlflow.start_run() as run:
        mlflow.log_param("long", "x" * 7_000)
        mlflow.set_tag("long", "y" * 9_000)
        mlflow.log_metric(odd, 3.0)
        mlflow.log_param(odd, "naïve ☃ 😀\n\ttab")
        mlflow.set_tag("empty", "")
    read = client.get_run(run.info.run_id)
    assert read.data.params["long"] == "x" * 6_000
    assert read.data.tags["long"] == "y" * 8_000
    assert read.data.metrics == {odd: 3.0}
    assert read.data.params[odd] == "naïve ☃ 😀\n\ttab"
    assert read.data.tags["empty"] == ""


def test_tags_change_and_go(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        mlflow.set_tag("t", "one")
        mlflow.set_tag("t", "two")
        mlflow.set_tag("gone", "soon")
        mlflow.delete_tag("gone")
        with pytest.raises(MlflowException, match="No tag with name: gone") as told:
            mlflow.delete_tag("gone")
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    tags = client.get_run(run.info.run_id).data.tags
    assert tags["t"] == "two"
    assert "gone" not in tags


def test_a_run_is_renamed_both_ways(client: MlflowClient, experiment_id: str) -> None:
    run_id = client.create_run(experiment_id, run_name="one").info.run_id
    client.update_run(run_id, status="FAILED", name="two")
    read = client.get_run(run_id)
    assert (read.info.run_name, read.info.status) == ("two", "FAILED")
    assert read.data.tags["mlflow.runName"] == "two"
    client.set_tag(run_id, "mlflow.runName", "three")
    assert client.get_run(run_id).info.run_name == "three"


def test_metrics_logged_in_the_background_arrive(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        for step in range(50):
            mlflow.log_metric("m", float(step), step=step, synchronous=False)
        mlflow.log_params({"later": "yes"}, synchronous=False)
        mlflow.flush_async_logging()
    mlflow.flush_async_logging()
    history = client.get_metric_history(run.info.run_id, "m")
    assert sorted(p.step for p in history) == list(range(50))
    assert client.get_run(run.info.run_id).data.params == {"later": "yes"}


def test_search_runs_gives_a_data_frame(experiment_id: str) -> None:
    for rate in (0.1, 0.2):
        with mlflow.start_run():
            mlflow.log_param("rate", rate)
            mlflow.log_metric("loss", rate * 2)
    frame = mlflow.search_runs(order_by=["metrics.loss DESC"])
    assert list(frame["params.rate"]) == ["0.2", "0.1"]
    assert list(frame["metrics.loss"]) == [0.4, 0.2]
    assert list(frame["status"]) == ["FINISHED", "FINISHED"]
    assert set(frame["experiment_id"]) == {experiment_id}
    assert str(frame["start_time"].dt.tz) == "UTC"
