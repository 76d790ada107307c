"""MLflow's logged models: create, get, finalize, delete, search, tags, params."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from muniment_auth.permissions import Permission as P
from muniment_projections.base import Connection
from muniment_projections.logged_models.reader import model_points
from muniment_projections.metrics.reader import ModelPoint
from muniment_projections.search.entities.logged_models import on_datasets, order_item
from muniment_projections.search.page import Page, Search, search
from muniment_projections.search.predicate import Predicate
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, from_query, pairs
from muniment_services.api.routes import Call, mlflow
from muniment_services.documents import parse
from muniment_services.domain import experiment
from muniment_services.domain import logged_model as domain
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.logged_model import LoggedModel
from muniment_services.write import Outcome

MAX_RESULTS_DEFAULT = 100

_CREATE: Fields = (
    Field("experiment_id", required=True),
    Field("name"),
    Field("model_type"),
    Field("source_run_id"),
    Field("params", "message", repeated=True, fields=TAG_FIELDS),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
)
_GET: Fields = (Field("allow_deleted", checked=False),)
_FINALIZE: Fields = (
    Field("model_id", required=True),
    Field("status", "any", required=True, checked=False),
)
_TAGS: Fields = (Field("tags", "message", repeated=True, fields=TAG_FIELDS),)
_PARAMS: Fields = (
    Field("model_id", required=True),
    Field("params", "message", repeated=True, fields=TAG_FIELDS),
)
_DATASET: Fields = (Field("dataset_name"), Field("dataset_digest"))
_ORDER: Fields = (Field("field_name"), Field("ascending", "bool"), *_DATASET)
_SEARCH: Fields = (
    Field("experiment_ids", repeated=True, required=True),
    Field("filter"),
    Field("datasets", "message", repeated=True, fields=_DATASET),
    Field("max_results", "int"),
    Field("order_by", "message", repeated=True, fields=_ORDER),
    Field("page_token", checked=False),
)


async def create(call: Call) -> bytes:
    """POST logged-models."""
    params = call.params(_CREATE)
    command = domain.CreateLoggedModel(
        experiment_id=params["experiment_id"],
        name=params.get("name", ""),
        model_type=params.get("model_type", ""),
        source_run_id=params.get("source_run_id", ""),
        params=pairs(params.get("params")),
        tags=pairs(params.get("tags")),
    )
    return await _submit(call, command, _model)


async def get(call: Call) -> bytes:
    """GET logged-models/ID; `allow_deleted=true` finds deleted ones too."""
    model_id = call.path_params["model_id"]
    deleted_too = from_query(call.query, _GET).get("allow_deleted", "").lower() == "true"
    await call.look_up(domain.KIND, model_id)
    require = domain.require if deleted_too else domain.require_active
    found = require(call.world, model_id)
    points = await call.services.read(lambda connection: model_points(connection, [model_id]))
    return wire.encode({"model": logged_model(found, points.get(model_id, ()))})


async def finalize(call: Call) -> bytes:
    """PATCH logged-models/ID: an unknown status counts as unspecified."""
    params = call.params(_FINALIZE)
    command = domain.FinalizeLoggedModel(
        model_id=params["model_id"], status=_status(params["status"])
    )
    await _submit(call, command, wire.empty)
    model_id = command.model_id
    await call.look_up(domain.KIND, model_id)
    points = await call.services.read(lambda connection: model_points(connection, [model_id]))
    found = domain.require(call.world, model_id)
    return wire.encode({"model": logged_model(found, points.get(model_id, ()))})


async def delete(call: Call) -> bytes:
    """DELETE logged-models/ID."""
    command = domain.DeleteLoggedModel(model_id=call.path_params["model_id"])
    return await _submit(call, command, wire.empty)


async def set_tags(call: Call) -> bytes:
    """PATCH logged-models/ID/tags."""
    command = domain.SetLoggedModelTags(
        model_id=call.path_params["model_id"], tags=pairs(call.params(_TAGS).get("tags"))
    )
    return await _submit(call, command, wire.empty)


async def delete_tag(call: Call) -> bytes:
    """DELETE logged-models/ID/tags/KEY."""
    command = domain.DeleteLoggedModelTag(
        model_id=call.path_params["model_id"], key=call.path_params["key"]
    )
    return await _submit(call, command, wire.empty)


async def log_params(call: Call) -> bytes:
    """POST logged-models/ID/params."""
    params = call.params(_PARAMS)
    command = domain.LogLoggedModelParams(
        model_id=call.path_params["model_id"], params=pairs(params.get("params"))
    )
    return await _submit(call, command, wire.empty)


async def search_models(call: Call) -> bytes:
    """POST logged-models/search; experiments that do not exist have no models."""
    params = call.params(_SEARCH)
    experiment_ids = tuple(params.get("experiment_ids", ()))
    await call.services.caught_up()
    for experiment_id in experiment_ids:
        _check_id(call, experiment_id)
    datasets = tuple(_dataset(item) for item in params.get("datasets", ()))
    # MLflow takes 0 for its default, and less than that for no results.
    most = params.get("max_results") or MAX_RESULTS_DEFAULT
    wanted = Search(
        filter=params.get("filter", ""),
        order_by=tuple(_order(item) for item in params.get("order_by", ())),
        max_results=max(0, most),
        page_token=params.get("page_token") or None,
        scope=_scope(experiment_ids),
        context=(*experiment_ids, *(f"{name}\n{digest}" for name, digest in datasets)),
        visible=call.authority.visible_experiments(),
    )

    def query(connection: Connection) -> tuple[Page, dict[str, list[ModelPoint]]]:
        page = search(connection, on_datasets(datasets), wanted)
        ids = [model.model_id for model in _models(page)]
        return page, model_points(connection, ids)

    page, points = await call.services.read(query)
    models = (logged_model(model, points.get(model.model_id, ())) for model in _models(page))
    return wire.page("models", models, page.next_page_token if most > 0 else None)


def logged_model(state: LoggedModel, points: Sequence[ModelPoint]) -> wire.Json:
    """MLflow's LoggedModel. points: all of its metrics' points."""
    info: wire.Json = {
        "model_id": state.model_id,
        "experiment_id": state.experiment_id,
        "name": state.name,
        "creation_timestamp_ms": state.created_at_ms,
        "last_updated_timestamp_ms": state.updated_at_ms,
        "artifact_uri": state.artifact_uri,
        "status": state.status,
        "model_type": state.model_type,
        "source_run_id": state.source_run_id,
    }
    if state.tags:
        info["tags"] = wire.tags(state.tags)
    data: wire.Json = {}
    if state.params:
        data["params"] = wire.tags(state.params)
    if points:
        data["metrics"] = [_metric(state.model_id, point) for point in points]
    return {"info": info, "data": data}


def _metric(model_id: str, point: ModelPoint) -> wire.Json:
    return wire.without_none(
        **wire.metric(point.key, point.value, point.timestamp_ms, point.step),
        dataset_name=point.dataset_name,
        dataset_digest=point.dataset_digest,
        model_id=model_id,
        run_id=point.run_id,
    )


def _model(outcome: Outcome) -> bytes:
    # Of a model just created, which has no metrics yet.
    assert isinstance(outcome.after, LoggedModel)
    return wire.encode({"model": logged_model(outcome.after, ())})


async def _submit(call: Call, command: Command, render: Callable[[Outcome], bytes]) -> bytes:
    try:
        return await call.services.writer.submit(call.caller, command, render)
    except domain.KeyTaken as error:
        raise ApiError("BAD_REQUEST", error.message) from error


def _status(given: Any) -> str:
    # Enums come by name or by number.
    if isinstance(given, int) and 0 <= given < len(domain.STATUSES):
        return domain.STATUSES[given]
    return given if given in domain.STATUSES else domain.UNSPECIFIED


def _check_id(call: Call, experiment_id: str) -> None:
    try:
        experiment.require(call.world, experiment_id)
    except NotFound:
        return


def _scope(experiment_ids: Sequence[str]) -> Predicate:
    active = "t.lifecycle = 'active'"
    if not experiment_ids:
        return Predicate("FALSE")
    marks = ", ".join("?" for _ in experiment_ids)
    return Predicate(f"{active} AND t.experiment_id IN ({marks})", tuple(experiment_ids))


def _dataset(item: dict[str, str]) -> tuple[str, str | None]:
    if not item.get("dataset_name"):
        raise Invalid("`dataset_name` in the `datasets` clause must be specified.")
    return item["dataset_name"], item.get("dataset_digest") or None


def _order(item: dict[str, Any]) -> str:
    return order_item(
        item.get("field_name", ""),
        item.get("ascending", True),
        item.get("dataset_name"),
        item.get("dataset_digest"),
    )


def _models(page: Page) -> list[LoggedModel]:
    states = [parse(domain.KIND, document) for document in page.documents]
    return [state for state in states if isinstance(state, LoggedModel)]


ROUTES = (
    *mlflow("POST", "logged-models", P.LOGGED_MODEL_WRITE, create),
    *mlflow("POST", "logged-models/search", P.LOGGED_MODEL_READ, search_models),
    *mlflow("GET", "logged-models/{model_id}", P.LOGGED_MODEL_READ, get),
    *mlflow("PATCH", "logged-models/{model_id}", P.LOGGED_MODEL_WRITE, finalize),
    *mlflow("DELETE", "logged-models/{model_id}", P.LOGGED_MODEL_DELETE, delete),
    *mlflow("PATCH", "logged-models/{model_id}/tags", P.LOGGED_MODEL_WRITE, set_tags),
    *mlflow("DELETE", "logged-models/{model_id}/tags/{key:path}", P.LOGGED_MODEL_WRITE, delete_tag),
    *mlflow("POST", "logged-models/{model_id}/params", P.LOGGED_MODEL_WRITE, log_params),
)
