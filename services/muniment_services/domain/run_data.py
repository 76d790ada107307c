"""Decisions on what a run holds: params, tags, metrics, inputs and outputs.

`log-metric`, `log-parameter`, `set-tag` and `log-batch` are one command: a batch. All of a batch is
checked before any of it is taken, in MLflow's order of checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from muniment_schemas import events as e
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import (
    BATCH_ENTITIES_MAX,
    BATCH_METRICS_MAX,
    BATCH_PARAMS_MAX,
    BATCH_TAGS_MAX,
    DATASET_DIGEST_CHARS_MAX,
    DATASET_NAME_CHARS_MAX,
    DATASET_PROFILE_CHARS_MAX,
    DATASET_SCHEMA_CHARS_MAX,
    DATASET_SOURCE_CHARS_MAX,
    INPUT_TAG_KEY_CHARS_MAX,
    INPUT_TAG_VALUE_CHARS_MAX,
    KEY_CHARS_MAX,
    PARAM_VALUE_CHARS_MAX,
    TAG_VALUE_CHARS_MAX,
    check_key,
    check_length,
)
from muniment_services.domain.logged_model import KIND as MODEL
from muniment_services.domain.run import KIND, Run, require_active


class LogBatch(Command, frozen=True, kw_only=True):
    """Log params, tags and metric points, all or nothing.

    params, tags: (key, value) in the caller's order. metrics: packed columns, None for no points.
    paths: whether messages name the place in the batch (`params[0].key`) or just the field (`key`).
    """

    FRESH = False

    run_id: str
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    metrics: e.MetricColumns | None = None
    paths: bool = True

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run, and the models whose metrics are logged."""
        models = _models(self.metrics)
        return ((KIND, self.run_id), *((MODEL, model_id) for model_id in models))


class DeleteRunTag(Command, frozen=True, kw_only=True):
    """Remove one tag of a run."""

    run_id: str
    key: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


class LogInputs(Command, frozen=True, kw_only=True):
    """Note datasets and logged models that a run uses."""

    run_id: str
    datasets: tuple[e.DatasetInput, ...] = ()
    models: tuple[str, ...] = ()

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


class LogOutputs(Command, frozen=True, kw_only=True):
    """Note logged models that a run produced."""

    run_id: str
    models: tuple[e.ModelOutput, ...]

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


def log_batch(world: World, command: LogBatch, context: Context) -> e.BatchLogged | None:
    """None for an empty batch. Raises Invalid (limits, keys, a changed param) or NotFound."""
    _check_metrics(command)
    params = _checked_params(command)
    tags = _checked_tags(command)
    _check_counts(command)
    if len(params) != len(command.params):
        _refuse_duplicates([key for key, _ in command.params])
    run = require_active(world, command.run_id)
    for model_id in _models(command.metrics):
        if world.get(MODEL, model_id) is None:
            raise Invalid(f"Logged model {model_id!r}, which metrics are logged for, is unknown.")
    _refuse_changes(run, params, command.paths)
    if not params and not tags and command.metrics is None:
        return None
    return e.BatchLogged(
        envelope=context.envelope(e.BatchLogged, run.run_id),
        params=params,
        tags=tags,
        metrics=command.metrics,
    )


def delete_tag(world: World, command: DeleteRunTag, context: Context) -> e.RunTagDeleted:
    """Raises NotFound when the run has no such tag."""
    run = require_active(world, command.run_id)
    if command.key not in run.tags:
        raise NotFound(f"No tag with name: {command.key} in run with id {command.run_id}")
    return e.RunTagDeleted(envelope=context.envelope(e.RunTagDeleted, run.run_id), key=command.key)


def log_inputs(world: World, command: LogInputs, context: Context) -> e.InputsLogged | None:
    """None when the run has all of them already."""
    for dataset in command.datasets:
        _check_dataset(dataset)
    run = require_active(world, command.run_id)
    known = {(d.name, d.digest) for d in run.datasets}
    datasets = tuple(d for d in command.datasets if (d.name, d.digest) not in known)
    models = tuple(m for m in command.models if m not in run.model_inputs)
    if not datasets and not models:
        return None
    return e.InputsLogged(
        envelope=context.envelope(e.InputsLogged, run.run_id), datasets=datasets, models=models
    )


def log_outputs(world: World, command: LogOutputs, context: Context) -> e.OutputsLogged | None:
    """None when there is nothing to note."""
    run = require_active(world, command.run_id)
    known = {(m.model_id, m.step) for m in run.model_outputs}
    models = tuple(m for m in command.models if (m.model_id, m.step) not in known)
    if not models:
        return None
    return e.OutputsLogged(envelope=context.envelope(e.OutputsLogged, run.run_id), models=models)


def _models(metrics: e.MetricColumns | None) -> tuple[str, ...]:
    contexts = metrics.contexts if metrics is not None else ()
    return tuple(dict.fromkeys(c.model_id for c in contexts if c.model_id is not None))


def _path(command: LogBatch, place: str, field: str) -> str:
    return f"{place}.{field}" if command.paths else field


def _check_metrics(command: LogBatch) -> None:
    if command.metrics is None:
        return
    for index, key in enumerate(command.metrics.keys):
        check_key(key, _path(command, f"metrics[{index}]", "name"))
        check_length("Metric name", key, KEY_CHARS_MAX)


def _checked_params(command: LogBatch) -> dict[str, str]:
    params = {}
    for index, (key, value) in enumerate(command.params):
        check_key(key, _path(command, f"params[{index}]", "key"))
        check_length("Param key", key, KEY_CHARS_MAX)
        params[key] = value[:PARAM_VALUE_CHARS_MAX]
    return params


def _checked_tags(command: LogBatch) -> dict[str, str]:
    tags = {}
    for index, (key, value) in enumerate(command.tags):
        path = _path(command, f"tags[{index}]", "key")
        check_key(key, path)
        check_length(path, key, KEY_CHARS_MAX)
        tags[key] = value[:TAG_VALUE_CHARS_MAX]
    return tags


def _check_counts(command: LogBatch) -> None:
    points = command.metrics.count if command.metrics is not None else 0
    counts = (
        ("metrics", points, BATCH_METRICS_MAX),
        ("params", len(command.params), BATCH_PARAMS_MAX),
        ("tags", len(command.tags), BATCH_TAGS_MAX),
        (
            "metrics, params, and tags",
            points + len(command.params) + len(command.tags),
            BATCH_ENTITIES_MAX,
        ),
    )
    for what, count, most in counts:
        if count > most:
            raise Invalid(
                f"A batch logging request can contain at most {most} {what}. Got {count} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )


def _refuse_duplicates(keys: Sequence[str]) -> None:
    seen: set[str] = set()
    repeated = []
    for key in keys:
        if key in seen:
            repeated.append(key)
        seen.add(key)
    raise Invalid(
        f"Duplicate parameter keys have been submitted: {repeated}. Please ensure the request "
        "contains only one param value per param key."
    )


def _refuse_changes(run: Run, params: dict[str, str], batch: bool) -> None:
    changed = [
        {"key": key, "old_value": run.params[key], "new_value": value}
        for key, value in params.items()
        if run.params.get(key, value) != value
    ]
    if not changed:
        return
    if batch:
        raise Invalid(
            f"Changing param values is not allowed. Params were already logged='{changed}' for "
            f"run ID='{run.run_id}'."
        )
    first = changed[0]
    raise Invalid(
        f"Changing param values is not allowed. Param with key='{first['key']}' was already logged "
        f"with value='{first['old_value']}' for run ID='{run.run_id}'. Attempted logging new value "
        f"'{first['new_value']}'."
    )


def _check_dataset(dataset: e.DatasetInput) -> None:
    for field, value, most in (
        ("name", dataset.name, DATASET_NAME_CHARS_MAX),
        ("digest", dataset.digest, DATASET_DIGEST_CHARS_MAX),
        ("source", dataset.source, DATASET_SOURCE_CHARS_MAX),
        ("schema", dataset.schema or "", DATASET_SCHEMA_CHARS_MAX),
        ("profile", dataset.profile or "", DATASET_PROFILE_CHARS_MAX),
    ):
        check_length(field, value, most)
    for key, value in dataset.tags.items():
        check_length("key", key, INPUT_TAG_KEY_CHARS_MAX)
        check_length("value", value, INPUT_TAG_VALUE_CHARS_MAX)
