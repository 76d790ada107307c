"""What jobs log into a run: metrics, params, tags, batches, inputs, outputs. The hot routes.

Well-formed bodies are decoded straight into typed structs in one pass. Anything else (quoted
numbers, a missing field, a wrong type) takes the slow way through `requests.parse`, which knows
MLflow's leniency and its messages; both ways build the same command.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import (
    TAG_FIELDS,
    Field,
    Fields,
    check_content_type,
    missing,
    pairs,
)
from muniment_services.api.routes import Call, mlflow
from muniment_services.api.runs import RUN_ID, run_id_of
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import BATCH_METRICS_MAX, invalid_value
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
_DELETE_TAG: Fields = (*RUN_ID, Field("key", required=True))
_LOG_BATCH: Fields = (
    *RUN_ID,
    Field("metrics", "message", repeated=True, fields=_METRIC_FIELDS),
    Field("params", "message", repeated=True, fields=TAG_FIELDS),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
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
    *RUN_ID,
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
    *RUN_ID,
    Field("models", "message", repeated=True, fields=(Field("model_id"), Field("step", "int"))),
)
_LOG_MODEL: Fields = (*RUN_ID, Field("model_json", required=True))


class _Metric(msgspec.Struct):
    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class _LogMetric(_Metric, kw_only=True):
    run_id: str


class _Pair(msgspec.Struct):
    key: str
    value: str = ""


class _LogPair(_Pair, kw_only=True):
    run_id: str


class _LogBatch(msgspec.Struct):
    run_id: str
    metrics: list[_Metric] = []
    params: list[_Pair] = []
    tags: list[_Pair] = []


_decode_metric = msgspec.json.Decoder(_LogMetric).decode
_decode_pair = msgspec.json.Decoder(_LogPair).decode
_decode_batch = msgspec.json.Decoder(_LogBatch).decode


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, _empty)


def _empty(_: object) -> bytes:
    return b"{}"


async def log_metric(call: Call) -> bytes:
    """POST runs/log-metric: a batch of one point."""
    run_id, metric = _one_metric(call)
    _check_timestamps((metric,), paths=False)
    return await _submit(call, LogBatch(run_id=run_id, metrics=_columns((metric,)), paths=False))


def _one_metric(call: Call) -> tuple[str, _Metric]:
    check_content_type(call.content_type)
    with suppress(msgspec.DecodeError):
        given = _decode_metric(call.body)
        if given.run_id and given.key:
            return given.run_id, given
    params = call.params(_LOG_METRIC)
    return run_id_of(params), _metric_of(params)


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
    with suppress(msgspec.DecodeError):
        given = _decode_pair(call.body)
        if given.run_id and given.key:
            return given.run_id, (given.key, given.value)
    params = call.params(_LOG_PARAM)
    return run_id_of(params), (params.get("key", ""), params.get("value", ""))


async def log_batch(call: Call) -> bytes:
    """POST runs/log-batch: up to 1,000 points, params and tags as one event."""
    check_content_type(call.content_type)
    try:
        batch = _decode_batch(call.body)
    except msgspec.DecodeError:
        batch = None
    if batch is None or not batch.run_id or not _keys_present(batch):
        batch = _lenient_batch(call)
    metrics = batch.metrics
    if len(metrics) > BATCH_METRICS_MAX:
        raise Invalid(
            f"A batch logging request can contain at most {BATCH_METRICS_MAX} metrics. "
            f"Got {len(metrics)} metrics. Please split up metrics across multiple requests and "
            "try again."
        )
    _check_timestamps(metrics, paths=True)
    return await _submit(
        call,
        LogBatch(
            run_id=batch.run_id,
            params=tuple((p.key, p.value) for p in batch.params),
            tags=tuple((t.key, t.value) for t in batch.tags),
            metrics=_columns(metrics) if metrics else None,
        ),
    )


def _keys_present(batch: _LogBatch) -> bool:
    return (
        all([metric.key for metric in batch.metrics])
        and all([pair.key for pair in batch.params])
        and all([pair.key for pair in batch.tags])
    )


def _lenient_batch(call: Call) -> _LogBatch:
    params = call.params(_LOG_BATCH)
    for index, metric in enumerate(params.get("metrics", ())):
        for name in ("key", "value", "timestamp"):
            if metric.get(name) in (None, ""):
                raise missing(f"metrics[{index}].{name}")
    for place in ("params", "tags"):
        for index, pair in enumerate(params.get(place, ())):
            if not pair.get("key"):
                raise missing(f"{place}[{index}].key")
    return _LogBatch(
        run_id=run_id_of(params),
        metrics=[_metric_of(metric) for metric in params.get("metrics", ())],
        params=[_Pair(*pair) for pair in pairs(params.get("params"))],
        tags=[_Pair(*pair) for pair in pairs(params.get("tags"))],
    )


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
    contexts = [_context(metric) for metric in metrics] if _with_model(metrics) else []
    try:
        return pack(
            [metric.key for metric in metrics],
            [metric.value for metric in metrics],
            [metric.timestamp for metric in metrics],
            [metric.step for metric in metrics],
            contexts,
        )
    except (struct.error, OverflowError):
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "Timestamps and steps of metrics must be 64-bit integers.",
        ) from None


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
    for name in ("name", "digest", "source_type", "source"):
        if not given.get(name):
            raise missing(f"datasets[0].dataset.{name}")
    return e.DatasetInput(
        name=given["name"],
        digest=given["digest"],
        source_type=given["source_type"],
        source=given["source"],
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
    try:
        model = msgspec.json.decode(params["model_json"])
    except msgspec.DecodeError:
        raise Invalid(
            f"Malformed model info. \n {params['model_json']} \n is not valid JSON."
        ) from None
    _check_model(model)
    await call.services.state(KIND, run_id)
    run: Run = require_active(call.services.fold.state, run_id)
    history = msgspec.json.decode(run.tags.get(LOGGED_MODEL_HISTORY_TAG, "[]"))
    tag = wire.encode([*history, model]).decode()
    return await _submit(
        call, LogBatch(run_id=run_id, tags=((LOGGED_MODEL_HISTORY_TAG, tag),), paths=False)
    )


def _check_model(model: object) -> None:
    required = {"artifact_path", "flavors", "utc_time_created", "run_id"}
    absent = required - set(model) if isinstance(model, dict) else required
    if absent:
        raise Invalid(f"Model json is missing mandatory fields: {absent}")


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
