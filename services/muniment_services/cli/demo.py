"""A small training run, logged by MLflow's own client.

`python -m muniment_services.cli.demo URL DATA_DIR`; the folder is named in what it says at the end.

Random forests of several sizes learn scikit-learn's diabetes data set, which it ships with; nothing
is downloaded and nothing is made up. The best one is registered. A process of its own: the server
itself imports nothing of MLflow.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

EXPERIMENT = "diabetes-demo"
MODEL = "diabetes-forest"
ALIAS = "champion"
STAGE = "Staging"
SETTINGS = ((2, 20), (4, 40), (8, 60))
"""(max_depth, n_estimators) of each run."""

TREES_PER_STEP = 10
SEED = 7
REQUIREMENTS = ("scikit-learn", "skops", "numpy", "pandas")
TRUSTED_TYPES = ("sklearn.tree._tree.Tree", "numpy.dtype")
"""What skops may load of a forest besides plain types."""

QUIET: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

NEXT = """
{logged}. What to look at next, in another terminal:

  muniment events --data-dir {data_dir}

  export MLFLOW_TRACKING_URI={url}
  python - <<'END'
  import mlflow
  runs = mlflow.search_runs(experiment_names=["{experiment}"], order_by=["metrics.rmse"])
  print(runs[["params.max_depth", "metrics.rmse"]])
  forest = mlflow.sklearn.load_model("models:/{model}@{alias}")
  END
"""

LOGGED = "{runs} demo runs are logged; the best one (rmse {rmse:.1f}) is models:/{model}@{alias}"
THERE = "The demo runs are there from an earlier start"


def log_runs(url: str) -> str:
    """Train, log and register, unless that was done before; returns what was done.

    url: the tracking server's.
    """
    import mlflow
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    mlflow.set_tracking_uri(url)
    if mlflow.get_experiment_by_name(EXPERIMENT) is not None:
        return THERE
    mlflow.set_experiment(EXPERIMENT)
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    split = train_test_split(features, target, random_state=SEED)
    logged = [_log_run(depth, trees, split) for depth, trees in SETTINGS]
    rmse, model_uri = min(logged)
    _register(model_uri)
    return LOGGED.format(runs=len(logged), rmse=rmse, model=MODEL, alias=ALIAS)


def _log_run(max_depth: int, trees: int, split: Sequence[Any]) -> tuple[float, str]:
    import mlflow
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    train_x, test_x, train_y, test_y = split
    with mlflow.start_run(run_name=f"forest depth {max_depth}"):
        mlflow.log_params({"max_depth": max_depth, "n_estimators": trees, "random_state": SEED})
        forest = RandomForestRegressor(max_depth=max_depth, random_state=SEED, warm_start=True)
        for grown in range(TREES_PER_STEP, trees + 1, TREES_PER_STEP):
            forest.set_params(n_estimators=grown).fit(train_x, train_y)
            predicted = forest.predict(test_x)
            found = {
                "rmse": root_mean_squared_error(test_y, predicted),
                "mae": mean_absolute_error(test_y, predicted),
                "r2": r2_score(test_y, predicted),
            }
            mlflow.log_metrics(found, step=grown)
        mlflow.set_tag("data", "sklearn.datasets.load_diabetes")
        model = mlflow.sklearn.log_model(
            forest,
            name="forest",
            input_example=test_x.head(2),
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            # What we know; finding it out by loading the model in another process takes a while.
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )
    return float(found["rmse"]), str(model.model_uri)


def _register(model_uri: str) -> None:
    import mlflow

    number = mlflow.register_model(model_uri, MODEL).version
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(MODEL, ALIAS, number)
    client.transition_model_version_stage(MODEL, number, STAGE)


def main() -> None:
    """Log the runs against the server that the arguments name, and tell what there is to see."""
    os.environ.update(QUIET)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Stages are what this client calls deprecated, and what many registries are run by.
    warnings.simplefilter("ignore", FutureWarning)
    url, data_dir = sys.argv[1:]
    logged = log_runs(url)
    text = NEXT.format(
        logged=logged, url=url, data_dir=data_dir, experiment=EXPERIMENT, model=MODEL, alias=ALIAS
    )
    print(text, flush=True)


if __name__ == "__main__":
    main()
