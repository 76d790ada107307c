"""What the MLproject runs: train one forest and log it to the run that `mlflow run` has begun."""

import sys

import mlflow
import numpy as np
from sklearn.ensemble import RandomForestRegressor


def main(n_estimators: int, max_depth: int, label: str) -> None:
    """Train on data made here and log the score, a note and the model."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(100, 3))
    target = rows[:, 0] * 2
    with mlflow.start_run():
        model = RandomForestRegressor(n_estimators=n_estimators, max_depth=max_depth)
        model.fit(rows, target)
        mlflow.log_metric("training_score", model.score(rows, target))
        mlflow.log_text(label, "label.txt")
        mlflow.sklearn.log_model(
            model,
            name="model",
            skops_trusted_types=["sklearn.tree._tree.Tree"],
            pip_requirements=["scikit-learn", "skops"],
        )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
