"""LoggedModels by themselves: made, fed with metrics, finished, found, tagged and deleted."""

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.exceptions import MlflowException

from harness.reading import metrics_of, models_used_by, outputs_of


def test_a_model_from_start_to_end(client: MlflowClient, experiment_id: str) -> None:
    with mlflow.start_run() as run:
        made = mlflow.initialize_logged_model(
            "tiny", params={"depth": "3"}, tags={"team": "fraud"}, model_type="tree"
        )
        assert made.status == LoggedModelStatus.PENDING
        assert made.model_id.startswith("m-")
        ready = mlflow.finalize_logged_model(made.model_id, "READY")
    assert ready.status == LoggedModelStatus.READY
    read = client.get_logged_model(made.model_id)
    assert (read.name, read.model_type) == ("tiny", "tree")
    assert read.params == {"depth": "3"}
    assert read.tags["team"] == "fraud"
    assert read.source_run_id == run.info.run_id
    assert read.experiment_id == experiment_id
    assert read.artifact_location.endswith(f"/models/{made.model_id}/artifacts")
    assert read.last_updated_timestamp >= read.creation_timestamp

    client.set_logged_model_tags(made.model_id, {"team": "risk", "more": "x"})
    client.delete_logged_model_tag(made.model_id, "more")
    tags = client.get_logged_model(made.model_id).tags
    assert tags["team"] == "risk"
    assert "more" not in tags
    client.delete_logged_model(made.model_id)
    with pytest.raises(MlflowException, match=f"'{made.model_id}' not found") as gone:
        client.get_logged_model(made.model_id)
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_params_may_follow(client: MlflowClient, experiment_id: str) -> None:
    model = client.create_logged_model(experiment_id, params={"a": "1"})
    assert model.name, "a model without a name gets one"
    client.log_model_params(model.model_id, {f"p{n}": str(n) for n in range(250)})
    read = client.get_logged_model(model.model_id)
    assert read.params == {"a": "1"} | {f"p{n}": str(n) for n in range(250)}
    client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
    assert client.get_logged_model(model.model_id).status == LoggedModelStatus.FAILED


def test_metrics_land_on_the_run_and_on_the_model(client: MlflowClient, experiment_id: str) -> None:
    data = from_pandas(pd.DataFrame({"x": [1, 2]}), name="eval rows")
    with mlflow.start_run() as run:
        model = mlflow.create_external_model("judged")
        mlflow.log_metric("loss", 0.5, step=1, model_id=model.model_id)
        mlflow.log_metric("loss", 0.25, step=2, model_id=model.model_id)
        mlflow.log_metrics({"f1": 0.9}, dataset=data, model_id=model.model_id)
    metrics = metrics_of(client, model.model_id)
    latest = {m.key: m.value for m in metrics if m.step == 2 or m.key == "f1"}
    assert latest == {"loss": 0.25, "f1": 0.9}
    (f1,) = [m for m in metrics if m.key == "f1"]
    assert (f1.dataset_name, f1.dataset_digest) == ("eval rows", data.digest)
    assert f1.run_id == run.info.run_id
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.25, "f1": 0.9}


def test_the_active_model_takes_metrics_and_traces(
    client: MlflowClient, experiment_id: str
) -> None:
    model = mlflow.set_active_model(name="agent-v1")
    try:
        with mlflow.start_run():
            mlflow.log_metric("score", 3.0, model_id=model.model_id)
        with mlflow.start_span("ask"):
            pass
        mlflow.flush_trace_async_logging()
        found = mlflow.search_traces(model_id=model.model_id, return_type="list")
    finally:
        mlflow.clear_active_model()
    assert [metric.value for metric in metrics_of(client, model.model_id)] == [3.0]
    (trace,) = found
    assert trace.info.trace_metadata["mlflow.modelId"] == model.model_id


def test_models_are_outputs_and_inputs_of_runs(client: MlflowClient, experiment_id: str) -> None:
    model = mlflow.create_external_model("passed on")
    with mlflow.start_run() as maker:
        mlflow.log_outputs(models=[mlflow.entities.LoggedModelOutput(model.model_id, step=4)])
    with mlflow.start_run() as user:
        mlflow.log_input(model=mlflow.entities.LoggedModelInput(model.model_id))
    (output,) = outputs_of(client.get_run(maker.info.run_id))
    assert (output.model_id, output.step) == (model.model_id, 4)
    (used,) = models_used_by(client.get_run(user.info.run_id))
    assert used.model_id == model.model_id


@pytest.fixture
def zoo(client: MlflowClient, experiment_id: str) -> list[LoggedModel]:
    """Four models that differ in name, params, tags and accuracy."""
    models = []
    with mlflow.start_run():
        for number, name in enumerate(["ape", "bear", "cat", "ape"]):
            model = client.create_logged_model(
                experiment_id, name, params={"n": str(number)}, tags={"odd": str(number % 2)}
            )
            mlflow.log_metric("accuracy", number / 10, model_id=model.model_id)
            client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            models.append(model)
    return models


def test_models_are_searched(
    client: MlflowClient, experiment_id: str, zoo: list[LoggedModel]
) -> None:
    order = [model.model_id for model in zoo]

    def search(filter_string: str | None = None, field: str = "creation_timestamp") -> list[int]:
        found = client.search_logged_models(
            [experiment_id], filter_string, order_by=[{"field_name": field, "ascending": True}]
        )
        return [order.index(model.model_id) for model in found]

    assert sorted(search()) == [0, 1, 2, 3]
    assert search("name = 'ape'", "metrics.accuracy") == [0, 3]
    assert search("tags.odd = '1'", "metrics.accuracy") == [1, 3]
    assert search("params.n = '2'") == [2]
    assert search("metrics.accuracy >= 0.2", "metrics.accuracy") == [2, 3]
    assert search("metrics.accuracy < 0.25 AND name != 'ape'", "metrics.accuracy") == [1, 2]
    assert search("status = 'PENDING'") == []
    frame = mlflow.search_logged_models(experiment_ids=[experiment_id])
    assert sorted(frame["model_id"]) == sorted(order)


def test_models_are_paged(client: MlflowClient, experiment_id: str, zoo: list[LoggedModel]) -> None:
    by_accuracy = [{"field_name": "metrics.accuracy", "ascending": False}]
    first = client.search_logged_models([experiment_id], max_results=3, order_by=by_accuracy)
    rest = client.search_logged_models(
        [experiment_id], max_results=3, order_by=by_accuracy, page_token=first.token
    )
    found = [model.model_id for model in [*first, *rest]]
    assert found == [model.model_id for model in reversed(zoo)]
    assert not rest.token


def test_a_model_holds_files(client: MlflowClient, experiment_id: str) -> None:
    def double(model_input: list[float]) -> list[float]:
        return [value * 2 for value in model_input]

    info = mlflow.pyfunc.log_model(
        name="doubler", python_model=double, pip_requirements=[], params={"factor": "2"}
    )
    listed = {f.path for f in client.list_logged_model_artifacts(info.model_id)}
    assert {"MLmodel", "python_model.pkl"} <= listed
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    assert loaded.predict([1.5, 2.0]) == [3.0, 4.0]
    read = client.get_logged_model(info.model_id)
    assert read.status == LoggedModelStatus.READY
    assert read.params == {"factor": "2"}
    last = mlflow.last_logged_model()
    assert last is not None
    assert last.model_id == info.model_id
