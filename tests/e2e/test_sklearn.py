"""The random forest: train, compare five runs, load the model back; and autolog."""

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from harness.forest import FEATURES, Data, log_forest, make_data
from harness.reading import datasets_of, metrics_of, outputs_of


@pytest.fixture(scope="module")
def data() -> Data:
    """The rows that all models of this file learn from."""
    return make_data()


@pytest.mark.slow
def test_five_forests_are_compared_by_rmse(
    client: MlflowClient, experiment_id: str, data: Data
) -> None:
    sizes = [(1, 1), (2, 2), (5, 3), (20, 6), (3, 1)]
    trained = [log_forest(data, n_estimators=n, max_depth=d) for n, d in sizes]
    by_rmse = sorted(trained, key=lambda one: one.rmse)
    found = client.search_runs([experiment_id], order_by=["metrics.rmse ASC"])
    assert [run.info.run_id for run in found] == [one.run_id for one in by_rmse]
    assert [run.data.metrics["rmse"] for run in found] == [one.rmse for one in by_rmse]

    best = client.search_runs(
        [experiment_id], "params.max_depth = '6'", order_by=["metrics.rmse ASC"], max_results=1
    )[0]
    assert best.data.params == {"n_estimators": "20", "max_depth": "6"}
    assert set(best.data.metrics) == {"rmse", "mae"}
    (output,) = outputs_of(best)
    assert output.model_id == by_rmse[0].info.model_id
    frame = mlflow.search_runs(order_by=["metrics.rmse ASC"])
    assert list(frame["run_id"]) == [one.run_id for one in by_rmse]


@pytest.mark.slow
def test_a_forest_is_loaded_by_every_address(
    client: MlflowClient, experiment_id: str, data: Data
) -> None:
    trained = log_forest(data)
    expected = trained.model.predict(data.test)
    for uri in (
        f"runs:/{trained.run_id}/model",
        f"models:/{trained.info.model_id}",
        trained.info.model_uri,
    ):
        loaded = mlflow.pyfunc.load_model(uri)
        np.testing.assert_array_equal(loaded.predict(data.test), expected)
    native = mlflow.sklearn.load_model(f"runs:/{trained.run_id}/model")
    assert native.n_estimators == 10
    info = mlflow.models.get_model_info(trained.info.model_uri)
    assert info.signature.inputs.input_names() == list(FEATURES)
    assert info.run_id == trained.run_id
    logged = client.get_logged_model(trained.info.model_id)
    assert logged.status == LoggedModelStatus.READY
    assert logged.source_run_id == trained.run_id
    assert logged.experiment_id == experiment_id
    assert {"MLmodel", "model.skops", "requirements.txt"} <= {
        f.path for f in client.list_logged_model_artifacts(trained.info.model_id)
    }


@pytest.mark.slow
def test_sklearn_autolog(client: MlflowClient, experiment_id: str, data: Data) -> None:
    mlflow.sklearn.autolog(silent=True)
    pipeline = make_pipeline(StandardScaler(), LinearRegression(fit_intercept=True))
    with mlflow.start_run() as run:
        pipeline.fit(data.train, data.train_target)
        score = pipeline.score(data.test, data.test_target)
    read = client.get_run(run.info.run_id)
    assert read.info.status == "FINISHED"
    assert read.data.params["linearregression__fit_intercept"] == "True"
    assert read.data.params["standardscaler__with_mean"] == "True"
    assert {
        "training_mean_squared_error",
        "training_r2_score",
        "training_root_mean_squared_error",
    } <= read.data.metrics.keys()
    assert score == pytest.approx(
        next(v for k, v in read.data.metrics.items() if k.startswith("Pipeline_score"))
    )
    assert read.data.tags["estimator_name"] == "Pipeline"
    (dataset,) = [d for d in datasets_of(read) if d.tags[0].value == "train"]
    assert dataset.dataset.source_type == "code"
    (output,) = outputs_of(read)
    loaded = mlflow.sklearn.load_model(f"models:/{output.model_id}")
    np.testing.assert_allclose(loaded.predict(data.test), pipeline.predict(data.test))
    on_model = client.get_logged_model(output.model_id)
    assert on_model.params["linearregression__fit_intercept"] == "True"
    assert {m.key for m in metrics_of(client, output.model_id)} >= {"training_mean_squared_error"}


@pytest.mark.slow
def test_sklearn_autolog_of_a_grid_search_makes_children(
    client: MlflowClient, experiment_id: str, data: Data
) -> None:
    mlflow.sklearn.autolog(silent=True, log_models=False, max_tuning_runs=None)
    search = GridSearchCV(DecisionTreeRegressor(random_state=0), {"max_depth": [1, 2, 3]}, cv=2)
    search.fit(data.train, data.train_target)
    runs = client.search_runs([experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (parent,) = parents
    assert parent.data.params["best_max_depth"] == str(search.best_params_["max_depth"])
    assert parent.data.metrics["best_cv_score"] == pytest.approx(search.best_score_)
    children = client.search_runs(
        [experiment_id],
        f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["metrics.mean_test_score DESC"],
    )
    assert sorted(child.data.params["max_depth"] for child in children) == ["1", "2", "3"]
    assert children[0].data.params["max_depth"] == str(search.best_params_["max_depth"])
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} >= {"cv_results.csv"}
