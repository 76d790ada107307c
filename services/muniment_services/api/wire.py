"""States to MLflow's JSON: the one place that knows MLflow's field names.

Integers stay numbers, enums are names, unset fields are left out, empty texts that were set stay.
Source: MLflow 3.17 REST API; answers of its server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from muniment_services.domain.experiment import Experiment
from muniment_services.domain.run import Run

WORKSPACE = "default"
FLOAT_MAX = 1.7976931348623157e308

Json = dict[str, Any]

encode = msgspec.json.Encoder().encode


def number(value: float) -> float | str:
    """A metric value: NaN as the text "NaN", infinities as the largest double."""
    if math.isnan(value):
        return "NaN"
    return max(-FLOAT_MAX, min(FLOAT_MAX, value))


def tags(items: Mapping[str, str]) -> list[Json]:
    """A mapping as MLflow's list of {key, value}."""
    return [{"key": key, "value": value} for key, value in items.items()]


def without_none(**fields: Any) -> Json:
    """A JSON object of the fields that are set."""
    return {name: value for name, value in fields.items() if value is not None}


def experiment(state: Experiment) -> Json:
    """MLflow's Experiment."""
    answer: Json = {
        "experiment_id": state.experiment_id,
        "name": state.name,
        "artifact_location": state.artifact_location,
        "lifecycle_stage": state.lifecycle,
        "last_update_time": state.updated_at_ms,
        "creation_time": state.created_at_ms,
    }
    if state.tags:
        answer["tags"] = tags(state.tags)
    return {**answer, "workspace": WORKSPACE}


def run_info(run: Run, lifecycle: str) -> Json:
    """MLflow's RunInfo. lifecycle: the run's effective stage."""
    return without_none(
        run_uuid=run.run_id,
        experiment_id=run.experiment_id,
        run_name=run.name,
        user_id=run.user_id,
        status=run.status,
        start_time=run.start_time_ms,
        end_time=run.end_time_ms,
        artifact_uri=run.artifact_uri,
        lifecycle_stage=lifecycle,
        run_id=run.run_id,
    )


def run(state: Run, lifecycle: str) -> Json:
    """MLflow's Run with its data, inputs and outputs."""
    return {**new_run(state, lifecycle), "outputs": _run_outputs(state)}


def new_run(state: Run, lifecycle: str) -> Json:
    """MLflow's Run as its creation answers it: without outputs."""
    return {
        "info": run_info(state, lifecycle),
        "data": _run_data(state),
        "inputs": _run_inputs(state),
    }


def _run_data(state: Run) -> Json:
    data: Json = {}
    if state.metrics:
        data["metrics"] = [
            metric(key, m.value, m.timestamp_ms, m.step) for key, m in state.metrics.items()
        ]
    if state.params:
        data["params"] = tags(state.params)
    if state.tags:
        data["tags"] = tags(state.tags)
    return data


def metric(key: str, value: float, timestamp_ms: int, step: int) -> Json:
    """MLflow's Metric."""
    return {"key": key, "value": number(value), "timestamp": timestamp_ms, "step": step}


def _run_inputs(state: Run) -> Json:
    inputs: Json = {}
    if state.datasets:
        inputs["dataset_inputs"] = [
            {
                **({"tags": tags(d.tags)} if d.tags else {}),
                "dataset": without_none(
                    name=d.name,
                    digest=d.digest,
                    source_type=d.source_type,
                    source=d.source,
                    schema=d.schema,
                    profile=d.profile,
                ),
            }
            for d in state.datasets
        ]
    if state.model_inputs:
        inputs["model_inputs"] = [{"model_id": model_id} for model_id in state.model_inputs]
    return inputs


def _run_outputs(state: Run) -> Json:
    if not state.model_outputs:
        return {}
    return {
        "model_outputs": [{"model_id": m.model_id, "step": m.step} for m in state.model_outputs]
    }


def empty(_: object) -> bytes:
    """The answer to a change that says nothing but 200."""
    return b"{}"


def page(name: str, items: Iterable[Json], next_page_token: str | None) -> bytes:
    """One page of a list; an empty list is left out, as MLflow does."""
    listed = list(items)
    answer: Json = {name: listed} if listed else {}
    if next_page_token:
        answer["next_page_token"] = next_page_token
    return encode(answer)
