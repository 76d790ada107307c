"""Datasets as inputs of runs: what a run was trained and judged on, and how it is found again."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Dataset, DatasetInput, InputTag

from harness.reading import datasets_of


@pytest.fixture
def frame() -> pd.DataFrame:
    """A small table."""
    return pd.DataFrame({"age": [31.0, 45.5], "name": ["ä", "b"], "target": [0, 1]})


def test_a_table_is_logged_as_input(
    client: MlflowClient, experiment_id: str, frame: pd.DataFrame
) -> None:
    dataset = from_pandas(
        frame, source="https://example.com/rows.csv", name="rows", targets="target"
    )
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training", tags={"split": "first half"})
        mlflow.log_input(dataset, context="training", tags={"split": "first half"})
    (entry,) = datasets_of(client.get_run(run.info.run_id))
    assert {tag.key: tag.value for tag in entry.tags} == {
        "mlflow.data.context": "training",
        "split": "first half",
    }
    read = entry.dataset
    assert (read.name, read.digest, read.source_type) == ("rows", dataset.digest, "http")
    assert json.loads(read.source) == {"url": "https://example.com/rows.csv"}
    assert json.loads(read.profile or "") == {"num_rows": 2, "num_elements": 6}
    columns = json.loads(read.schema or "")["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["age", "name", "target"]
    source = mlflow.data.get_source(entry)
    assert isinstance(source, HTTPDatasetSource)
    assert source.url == "https://example.com/rows.csv"


def test_several_inputs_of_several_kinds(client: MlflowClient, experiment_id: str) -> None:
    train = from_numpy(np.arange(6).reshape(3, 2), name="train")
    evaluation = from_numpy(np.ones((2, 2)), name="eval")
    with mlflow.start_run() as run:
        mlflow.log_inputs([train, evaluation], ["training", "eval"], [None, {"fold": "2"}])
    inputs = datasets_of(client.get_run(run.info.run_id))
    contexts = {entry.dataset.name: {tag.key: tag.value for tag in entry.tags} for entry in inputs}
    assert contexts == {
        "train": {"mlflow.data.context": "training"},
        "eval": {"mlflow.data.context": "eval", "fold": "2"},
    }


def test_runs_are_found_by_their_dataset(client: MlflowClient, experiment_id: str) -> None:
    run_ids = []
    for name, digest, context in [("a", "d1", "train"), ("a", "d2", "eval"), ("b", "d1", "train")]:
        run_id = client.create_run(experiment_id).info.run_id
        dataset = Dataset(name, digest, "local", json.dumps({"uri": "/x"}))
        tags = [InputTag("mlflow.data.context", context)]
        client.log_inputs(run_id, [DatasetInput(dataset, tags)])
        run_ids.append(run_id)

    def found(filter_string: str) -> list[int]:
        runs = client.search_runs([experiment_id], filter_string)
        return sorted(run_ids.index(run.info.run_id) for run in runs)

    assert found("datasets.name = 'a'") == [0, 1]
    assert found("dataset.digest = 'd1'") == [0, 2]
    assert found("datasets.context IN ('eval')") == [1]
    assert found("datasets.name = 'a' AND datasets.context = 'train'") == [0]
    assert found("datasets.name LIKE '%z%'") == []
