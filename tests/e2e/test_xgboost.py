"""XGBoost: autolog with a point per round, and an Optuna sweep whose trials are child runs."""

import mlflow
import numpy as np
import optuna
import pytest
import xgboost
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.metrics import root_mean_squared_error

from harness.forest import Data, make_data
from harness.reading import outputs_of

ROUNDS = 12
TRIALS = 8


@pytest.fixture(scope="module")
def data() -> Data:
    """The rows that all models of this file learn from."""
    return make_data(seed=3)


@pytest.mark.slow
def test_xgboost_autolog(client: MlflowClient, experiment_id: str, data: Data) -> None:
    mlflow.xgboost.autolog(silent=True)
    train = xgboost.DMatrix(data.train, label=data.train_target)
    test = xgboost.DMatrix(data.test, label=data.test_target)
    seen: dict[str, dict[str, list[float]]] = {}
    with mlflow.start_run() as run:
        booster = xgboost.train(
            {"max_depth": 3, "eta": 0.3, "nthread": 1},
            train,
            num_boost_round=ROUNDS,
            evals=[(train, "train"), (test, "test")],
            evals_result=seen,
            verbose_eval=False,
        )
    read = client.get_run(run.info.run_id)
    assert read.data.params["max_depth"] == "3"
    assert read.data.params["num_boost_round"] == str(ROUNDS)
    for part in ("train", "test"):
        history = client.get_metric_history(run.info.run_id, f"{part}-rmse")
        assert [point.step for point in history] == list(range(ROUNDS))
        np.testing.assert_allclose([point.value for point in history], seen[part]["rmse"])
        assert read.data.metrics[f"{part}-rmse"] == history[-1].value
    paths = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"feature_importance_weight.json", "feature_importance_weight.png"} <= paths
    (output,) = outputs_of(read)
    loaded = mlflow.xgboost.load_model(f"models:/{output.model_id}")
    np.testing.assert_allclose(loaded.predict(test), booster.predict(test))


@pytest.mark.slow
def test_an_optuna_sweep(client: MlflowClient, experiment_id: str, data: Data) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        params = {
            "max_depth": trial.suggest_int("max_depth", 1, 6),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.5, log=True),
        }
        with mlflow.start_run(nested=True, run_name=f"trial-{trial.number}"):
            model = xgboost.XGBRegressor(n_estimators=20, n_jobs=1, **params)
            model.fit(data.train, data.train_target)
            rmse = float(root_mean_squared_error(data.test_target, model.predict(data.test)))
            mlflow.log_params(params)
            mlflow.log_metric("rmse", rmse)
        return rmse

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    with mlflow.start_run(run_name="sweep") as parent:
        study.optimize(objective, n_trials=TRIALS)
        mlflow.log_params({f"best_{key}": value for key, value in study.best_params.items()})
        mlflow.log_metric("best_rmse", study.best_value)
        best_model = xgboost.XGBRegressor(n_estimators=20, n_jobs=1, **study.best_params)
        best_model.fit(data.train, data.train_target)
        info = mlflow.xgboost.log_model(best_model, name="best", pip_requirements=["xgboost"])

    trials: list[Run] = client.search_runs(
        [experiment_id],
        f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["metrics.rmse ASC"],
    )
    assert {run.info.run_name for run in trials} == {f"trial-{n}" for n in range(TRIALS)}
    best = trials[0]
    assert best.info.run_name == f"trial-{study.best_trial.number}"
    assert best.data.metrics["rmse"] == study.best_value
    assert best.data.params["max_depth"] == str(study.best_params["max_depth"])
    read = client.get_run(parent.info.run_id)
    assert read.data.metrics == {"best_rmse": study.best_value}
    assert read.data.params["best_learning_rate"] == str(study.best_params["learning_rate"])
    assert len(client.search_runs([experiment_id])) == TRIALS + 1
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    np.testing.assert_allclose(loaded.predict(data.test), best_model.predict(data.test), rtol=1e-6)
