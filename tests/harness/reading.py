"""What a run or a logged model holds, as lists: MLflow's own hints call each of them optional."""

from mlflow import MlflowClient
from mlflow.entities import (
    DatasetInput,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Run,
)


def outputs_of(run: Run) -> list[LoggedModelOutput]:
    """The models that a run made."""
    assert run.outputs is not None
    return list(run.outputs.model_outputs)


def datasets_of(run: Run) -> list[DatasetInput]:
    """The datasets that a run used, with their tags."""
    assert run.inputs is not None
    return list(run.inputs.dataset_inputs)


def models_used_by(run: Run) -> list[LoggedModelInput]:
    """The models that a run used."""
    assert run.inputs is not None
    return list(run.inputs.model_inputs)


def metrics_of(client: MlflowClient, model_id: str) -> list[Metric]:
    """The metrics of a logged model, as the server has them now."""
    metrics = client.get_logged_model(model_id).metrics
    assert metrics is not None
    return list(metrics)
