"""What jobs log into a run: metrics, params, tags, batches, inputs, outputs. The hot routes.

Well-formed bodies are decoded straight into typed structs in one pass. Anything else (quoted
numbers, an unknown field, a wrong type) takes the slow way through `requests.parse`, which knows
MLflow's leniency and its messages; what the fast way takes, the slow way takes alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_services.api import wire
from muniment_services.api.requests import (
    TAG_FIELDS,
    Field,
    Fields,
    check_content_type,
    from_json,
    missing,
    pairs,
)
from muniment_services.api.routes import Call, mlflow
from muniment_services.api.runs import RUN_ID, RUN_ID_ONLY, run_id_of
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import BATCH_METRICS_MAX, INT64_MAX, INT64_MIN, invalid_value
from muniment_services.domain.run import KIND, Run, require_active
from muniment_services.domain.run_data import DeleteRunTag, LogBatch, LogInputs, LogOutputs

LOGGED_MODEL_HISTORY_TAG = "mlflow.log-model.history"

_METRIC_FIELDS: Fields = (
    Field("key"),
    Field("value", "double"),
    Field("timestamp", "int"),
    Field("step", "int"),
    Field("dataset_name"),
    Field("dataset_digest"),
    Field("model_id"),
)
_LOG_METRIC: Fields = (
    *RUN_ID,
    Field("key", required=True),
    Field("value", "double", required=True),
    Field("timestamp", "int", required=True),
    Field("step", "int"),
    Field("model_id"),
    Field("dataset_name"),
    Field("dataset_digest"),
)
_LOG_PARAM: Fields = (*RUN_ID, Field("key", required=True), Field("value"))
_DELETE_TAG: Fields = (*RUN_ID_ONLY, Field("key", required=True))
_LOG_BATCH: Fields = (
    *RUN_ID_ONLY,
    Field("metrics", "message", repeated=True, fields=_METRIC_FIELDS, nullable=False),
    Field("params", "message", repeated=True, fields=TAG_FIELDS, nullable=False),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS, nullable=False),
)
_DATASET: Fields = (
    Field("name"),
    Field("digest"),
    Field("source_type"),
    Field("source"),
    Field("schema"),
    Field("profile"),
)
_LOG_INPUTS: Fields = (
    *RUN_ID_ONLY,
    Field(
        "datasets",
        "message",
        repeated=True,
        fields=(
            Field("tags", "message", repeated=True, fields=TAG_FIELDS),
            Field("dataset", "message", fields=_DATASET),
        ),
    ),
    Field("models", "message", repeated=True, fields=(Field("model_id"),)),
)
_LOG_OUTPUTS: Fields = (
    *RUN_ID_ONLY,
    Field(
        "models",
        "message",
        repeated=True,
        required=True,
        fields=(Field("model_id"), Field("step", "int")),
    ),
)
_LOG_MODEL: Fields = (*RUN_ID_ONLY, Field("model_json", required=True))
_MODEL_TAG_FIELDS = ("run_id", "artifact_path", "utc_time_created", "model_uuid")

Pairs = tuple[tuple[str, str], ...]
_Int64 = Annotated[int, msgspec.Meta(ge=INT64_MIN, le=INT64_MAX)]


class _Metric(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: float
    timestamp: _Int64
    step: _Int64 = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class _BatchMetric(_Metric, forbid_unknown_fields=True):
    # MLflow's client may repeat the batch's run in each point.
    run_id: str | None = None


class _LogMetric(_Metric, kw_only=True, forbid_unknown_fields=True):
    run_id: str
    run_uuid: str = ""


class _Pair(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: str = ""


class _LogPair(_Pair, kw_only=True, forbid_unknown_fields=True):
    run_id: str
    run_uuid: str = ""


class _LogBatch(msgspec.Struct, forbid_unknown_fields=True):
    run_id: str
    metrics: list[_BatchMetric] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


_decode_metric = msgspec.json.Decoder(_LogMetric).decode
_decode_pair = msgspec.json.Decoder(_LogPair).decode
_decode_batch = msgspec.json.Decoder(_LogBatch).decode


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def log_metric(call: Call) -> bytes:
    """POST runs/log-metric: a batch of one point."""
    check_content_type(call.content_type)
    return await _submit(call, quick_metric(call.body) or careful_metric(call.body))


def quick_metric(body: bytes) -> LogBatch | None:
    """The command of a clean log-metric body; None for any other."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = _decode_metric(body)
        if given.run_id and given.key:
            return _point(given.run_id, given)
    return None


def careful_metric(body: bytes) -> LogBatch:
    """The command of any log-metric body. Raises ApiError."""
    params = from_json(body, _LOG_METRIC)
    return _point(run_id_of(params), _metric_of(params))


def _point(run_id: str, metric: _Metric) -> LogBatch:
    _check_timestamps((metric,), paths=False)
    return LogBatch(run_id=run_id, metrics=_columns((metric,)), paths=False)


async def log_param(call: Call) -> bytes:
    """POST runs/log-parameter: a batch of one param."""
    run_id, pair = _pair(call)
    return await _submit(call, LogBatch(run_id=run_id, params=(pair,), paths=False))


async def set_tag(call: Call) -> bytes:
    """POST runs/set-tag: a batch of one tag."""
    run_id, pair = _pair(call)
    return await _submit(call, LogBatch(run_id=run_id, tags=(pair,), paths=False))


def _pair(call: Call) -> tuple[str, tuple[str, str]]:
    check_content_type(call.content_type)
    return quick_pair(call.body) or careful_pair(call.body)


def quick_pair(body: bytes) -> tuple[str, tuple[str, str]] | None:
    """Run id, key and value of a clean log-parameter or set-tag body; None for any other."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = _decode_pair(body)
        if given.run_id and given.key:
            return given.run_id, (given.key, given.value)
    return None


def careful_pair(body: bytes) -> tuple[str, tuple[str, str]]:
    """Run id, key and value of any log-parameter or set-tag body. Raises ApiError."""
    params = from_json(body, _LOG_PARAM)
    return run_id_of(params), (params["key"], params.get("value", ""))


async def log_batch(call: Call) -> bytes:
    """POST runs/log-batch: up to 1,000 points, params and tags as one event."""
    check_content_type(call.content_type)
    return await _submit(call, quick_batch(call.body) or careful_batch(call.body))


def quick_batch(body: bytes) -> LogBatch | None:
    """The command of a clean log-batch body; None for any other."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        batch = _decode_batch(body)
        if batch.run_id and _keys_present(batch):
            return _batch(
                batch.run_id,
                batch.metrics,
                tuple((param.key, param.value) for param in batch.params),
                tuple((tag.key, tag.value) for tag in batch.tags),
            )
    return None


def careful_batch(body: bytes) -> LogBatch:
    """The command of any log-batch body. Raises ApiError, Invalid."""
    params = from_json(body, _LOG_BATCH)
    _require_parts(params)
    run_id = run_id_of(params)
    if not run_id:
        raise invalid_value("run_id", "")
    return _batch(
        run_id,
        [_metric_of(metric) for metric in params.get("metrics", ())],
        pairs(params.get("params")),
        pairs(params.get("tags")),
    )


def _batch(run_id: str, metrics: Sequence[_Metric], params: Pairs, tags: Pairs) -> LogBatch:
    if len(metrics) > BATCH_METRICS_MAX:
        raise Invalid(
            f"A batch logging request can contain at most {BATCH_METRICS_MAX} metrics. "
            f"Got {len(metrics)} metrics. Please split up metrics across multiple requests and "
            "try again."
        )
    _check_timestamps(metrics, paths=True)
    return LogBatch(
        run_id=run_id,
        params=params,
        tags=tags,
        metrics=_columns(metrics) if metrics else None,
    )


def _keys_present(batch: _LogBatch) -> bool:
    return (
        all([metric.key for metric in batch.metrics])
        and all([pair.key for pair in batch.params])
        and all([pair.key for pair in batch.tags])
    )


def _require_parts(params: Mapping[str, Any]) -> None:
    for index, metric in enumerate(params.get("metrics", ())):
        for name in ("key", "value", "timestamp"):
            if metric.get(name) in (None, ""):
                raise missing(f"metrics[{index}].{name}")
    for place in ("params", "tags"):
        for index, pair in enumerate(params.get(place, ())):
            if not pair.get("key"):
                raise missing(f"{place}[{index}].key")


def _metric_of(params: dict[str, Any]) -> _Metric:
    return _Metric(
        key=params.get("key", ""),
        value=params.get("value", 0.0),
        timestamp=params.get("timestamp", 0),
        step=params.get("step", 0),
        model_id=params.get("model_id"),
        dataset_name=params.get("dataset_name"),
        dataset_digest=params.get("dataset_digest"),
    )


def _check_timestamps(metrics: Sequence[_Metric], paths: bool) -> None:
    if not metrics or min([metric.timestamp for metric in metrics]) >= 0:
        return
    index, bad = next((i, m) for i, m in enumerate(metrics) if m.timestamp < 0)
    path = f"metrics[{index}].timestamp" if paths else "timestamp"
    raise invalid_value(
        path,
        bad.timestamp,
        f"metric '{bad.key}' (value={bad.value}). "
        "Timestamp must be a nonnegative long (64-bit integer) ",
    )


def _columns(metrics: Sequence[_Metric]) -> e.MetricColumns:
    return pack(
        [metric.key for metric in metrics],
        [metric.value for metric in metrics],
        [metric.timestamp for metric in metrics],
        [metric.step for metric in metrics],
        [_context(metric) for metric in metrics] if _with_model(metrics) else [],
    )


def _with_model(metrics: Sequence[_Metric]) -> bool:
    return any([metric.model_id for metric in metrics])


def _context(metric: _Metric) -> e.MetricContext | None:
    if not metric.model_id:
        return None
    return e.MetricContext(
        model_id=metric.model_id,
        dataset_name=metric.dataset_name or None,
        dataset_digest=metric.dataset_digest or None,
    )


async def delete_tag(call: Call) -> bytes:
    """POST runs/delete-tag."""
    params = call.params(_DELETE_TAG)
    return await _submit(call, DeleteRunTag(run_id=run_id_of(params), key=params["key"]))


async def log_inputs(call: Call) -> bytes:
    """POST runs/log-inputs."""
    params = call.params(_LOG_INPUTS)
    datasets = tuple(_dataset(item) for item in params.get("datasets", ()))
    models = tuple(model.get("model_id", "") for model in params.get("models", ()))
    return await _submit(
        call, LogInputs(run_id=run_id_of(params), datasets=datasets, models=models)
    )


def _dataset(item: dict[str, Any]) -> e.DatasetInput:
    given = item.get("dataset", {})
    return e.DatasetInput(
        name=given.get("name", ""),
        digest=given.get("digest", ""),
        source_type=given.get("source_type", ""),
        source=given.get("source", ""),
        schema=given.get("schema"),
        profile=given.get("profile"),
        tags=dict(pairs(item.get("tags"))),
    )


async def log_outputs(call: Call) -> bytes:
    """POST runs/outputs."""
    params = call.params(_LOG_OUTPUTS)
    models = tuple(
        e.ModelOutput(model_id=model.get("model_id", ""), step=model.get("step", 0))
        for model in params.get("models", ())
    )
    return await _submit(call, LogOutputs(run_id=run_id_of(params), models=models))


async def log_model(call: Call) -> bytes:
    """POST runs/log-model: appends to the run's tag of logged models (older clients)."""
    params = call.params(_LOG_MODEL)
    run_id = run_id_of(params)
    model = _model_tag(params["model_json"])
    await call.look_up(KIND, run_id)
    run: Run = require_active(call.world, run_id)
    tag = json.dumps([*_history(run), model])
    return await _submit(
        call, LogBatch(run_id=run_id, tags=((LOGGED_MODEL_HISTORY_TAG, tag),), paths=False)
    )


def _history(run: Run) -> list[object]:
    try:
        found = json.loads(run.tags.get(LOGGED_MODEL_HISTORY_TAG, "[]"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise Invalid(f"The run's tag {LOGGED_MODEL_HISTORY_TAG!r} is no JSON list; delete it.")
    return found


def _model_tag(text: str) -> Mapping[str, object]:
    """What the run's tag keeps of a model: MLflow's selection, in its order."""
    try:
        model = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid(f"Malformed model info. \n {text} \n is not a valid JSON.") from None
    required = {"artifact_path", "flavors", "utc_time_created", "run_id"}
    absent = required - set(model) if isinstance(model, dict) else required
    if absent:
        raise Invalid(f"Model json is missing mandatory fields: {absent}")
    if not isinstance(model["flavors"], dict):
        raise Invalid("The 'flavors' of a model must be a JSON object.")
    flavors = {
        name: {key: value for key, value in flavor.items() if key != "config"}
        if isinstance(flavor, dict)
        else flavor
        for name, flavor in model["flavors"].items()
    }
    return {**{name: model.get(name) for name in _MODEL_TAG_FIELDS}, "flavors": flavors}


ROUTES = (
    *mlflow("POST", "runs/log-metric", P.RUN_WRITE, log_metric),
    *mlflow("POST", "runs/log-parameter", P.RUN_WRITE, log_param),
    *mlflow("POST", "runs/set-tag", P.RUN_WRITE, set_tag),
    *mlflow("POST", "runs/log-batch", P.RUN_WRITE, log_batch),
    *mlflow("POST", "runs/delete-tag", P.RUN_WRITE, delete_tag),
    *mlflow("POST", "runs/log-inputs", P.RUN_WRITE, log_inputs),
    *mlflow("POST", "runs/outputs", P.RUN_WRITE, log_outputs),
    *mlflow("POST", "runs/log-model", P.RUN_WRITE, log_model),
)
