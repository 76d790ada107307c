"""The small regression forest that several journeys train, log, register and serve."""

from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from mlflow.models.model import ModelInfo
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

ROWS = 240
TRAIN_ROWS = 180
FEATURES = ("age", "income", "tenure", "visits")
# skops refuses types that it was not told to trust; a forest is made of these.
FOREST_TYPES = ("sklearn.tree._tree.Tree",)
# Stated, because MLflow otherwise starts a process that imports the model: seconds each.
REQUIREMENTS = ("scikit-learn", "skops")


@dataclass(frozen=True, slots=True)
class Data:
    """Rows to train on and rows to judge by."""

    train: pd.DataFrame
    train_target: pd.Series
    test: pd.DataFrame
    test_target: pd.Series


@dataclass(frozen=True, slots=True)
class Trained:
    """A forest that was logged in a finished run."""

    run_id: str
    model: RandomForestRegressor
    info: ModelInfo
    rmse: float


def make_data(seed: int = 0) -> Data:
    """ROWS rows of four features and a target that a forest can learn; the same for each seed."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.normal(size=(ROWS, len(FEATURES))), columns=list(FEATURES))
    noise = random.normal(scale=0.1, size=ROWS)
    target = pd.Series(rows["age"] * 2 - rows["income"] ** 2 + noise, name="target")
    return Data(rows[:TRAIN_ROWS], target[:TRAIN_ROWS], rows[TRAIN_ROWS:], target[TRAIN_ROWS:])


def log_forest(
    data: Data, *, n_estimators: int = 10, max_depth: int = 4, register_as: str | None = None
) -> Trained:
    """Train and log one forest in a run of the active experiment: params, metrics and the model."""
    with mlflow.start_run(run_name=f"forest-{n_estimators}-{max_depth}") as run:
        model = RandomForestRegressor(
            n_estimators=n_estimators, max_depth=max_depth, random_state=7
        ).fit(data.train, data.train_target)
        predicted = model.predict(data.test)
        rmse = float(root_mean_squared_error(data.test_target, predicted))
        mlflow.log_params({"n_estimators": n_estimators, "max_depth": max_depth})
        mae = float(mean_absolute_error(data.test_target, predicted))
        mlflow.log_metrics({"rmse": rmse, "mae": mae})
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(data.train, predicted),
            input_example=data.train.head(2),
            registered_model_name=register_as,
            skops_trusted_types=list(FOREST_TYPES),
            pip_requirements=list(REQUIREMENTS),
        )
    return Trained(run.info.run_id, model, info, rmse)
