"""MLflow's model versions: create, get, search, update, stages, tags, download URI, delete."""

from __future__ import annotations

import dataclasses

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_projections.logged_models.reader import newest_of_run
from muniment_projections.search.entities.registry import MODEL_VERSIONS
from muniment_projections.search.page import Search, search
from muniment_services.api import wire
from muniment_services.api import wire_registry as shapes
from muniment_services.api.errors import ApiError
from muniment_services.api.registered_models import NAME, SEARCH, at_most
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, pairs
from muniment_services.api.routes import Call, mlflow
from muniment_services.domain import model_version as domain
from muniment_services.domain.commands import Command
from muniment_services.domain.promotion_guard import origins_of
from muniment_services.domain.registered_model import (
    ModelVersion,
    RegisteredModel,
    aliases_of,
    require_version,
)
from muniment_services.domain.registry_source import named_of_run
from muniment_services.domain.run import KIND as RUN
from muniment_services.domain.run import Run
from muniment_services.domain.version_files import place_told
from muniment_services.write import Outcome

MAX_RESULTS_DEFAULT = 10_000
MAX_RESULTS_MAX = 200_000

_CREATE: Fields = (
    *NAME,
    Field("source", required=True),
    Field("run_id"),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
    Field("run_link"),
    Field("description"),
    Field("model_id"),
)
VERSION: Fields = (*NAME, Field("version", required=True))
_UPDATE: Fields = (*VERSION, Field("description"))
TRANSITION: Fields = (
    *VERSION,
    Field("stage", required=True),
    Field("archive_existing_versions", "bool"),
    Field("comment"),
)
_SET_TAG: Fields = (*VERSION, Field("key", required=True), Field("value"))
_DELETE_TAG: Fields = (*VERSION, Field("key", required=True))
_DOWNLOAD: Fields = (Field("name"), Field("version"))


class _Registered(msgspec.Struct):
    name: str
    version: str


class _Created(msgspec.Struct):
    model_version: _Registered


async def create(call: Call) -> bytes:
    """POST model-versions/create; a logged model that is registered learns of it.

    The logged model's tag is a second event, and a repeatable one: should the server stop between
    the two, the version exists and says itself which logged model it is; a repeat of the request
    under the same Idempotency-Key adds the tag.
    """
    params = call.params(_CREATE)
    command = domain.CreateModelVersion(
        name=params["name"],
        source=params["source"],
        run_id=params.get("run_id"),
        logged_model_id=params.get("model_id"),
        run_link=params.get("run_link", ""),
        description=params.get("description", ""),
        tags=pairs(params.get("tags")),
        model_of_run=await _model_of_run(call, params["source"]),
    )
    answer = await call.services.writer.submit(call.caller, command, _created)
    if command.registers_logged_model:
        assert command.logged_model_id is not None
        registered = msgspec.json.decode(answer, type=_Created).model_version
        note = domain.NoteRegistration(
            logged_model_id=command.logged_model_id,
            name=registered.name,
            version=int(registered.version),
        )
        unkeyed = dataclasses.replace(call.caller, idempotency_key=None, request=b"")
        await call.services.writer.submit(unkeyed, note, wire.empty)
    return answer


async def _model_of_run(call: Call, source: str) -> str | None:
    """The logged model that clients load by a `runs:/` source, as the log is now."""
    try:
        named = named_of_run(source)
    except ValueError:
        return None  # The decision says what is wrong with it.
    services = call.services
    if named is None or not named[1]:
        return None
    run_id, name, _ = named
    await services.caught_up()
    await services.fold.ensure_loaded([(RUN, run_id)])
    found = call.authority.view(services.fold.state).get(RUN, run_id)
    if not isinstance(found, Run):
        return None
    experiment_id = found.experiment_id
    return await services.read(lambda c: newest_of_run(c, experiment_id, run_id, name))


def _created(outcome: Outcome) -> bytes:
    model = outcome.after
    assert isinstance(model, RegisteredModel)
    return wire.encode({"model_version": shapes.model_version(model.versions[model.last_version])})


async def get(call: Call) -> bytes:
    """GET model-versions/get."""
    params = call.params(VERSION)
    await call.services.caught_up()
    number = params["version"]
    model, version = require_version(call.world_of_version(number), params["name"], number)
    aliases = aliases_of(model, version.version)
    return wire.encode({"model_version": shapes.model_version(version, aliases)})


async def download_uri(call: Call) -> bytes:
    """GET model-versions/get-download-uri."""
    params = call.params(_DOWNLOAD)
    await call.services.caught_up()
    name, number = params.get("name", ""), params.get("version", "")
    model, version = require_version(call.world_of_version(number), name, number)
    await call.services.fold.ensure_loaded(origins_of(version))
    return wire.encode({"artifact_uri": place_told(call.services.fold.state, model, version)})


async def search_versions(call: Call) -> bytes:
    """GET model-versions/search."""
    params = call.params(SEARCH)
    max_results = at_most(params.get("max_results", MAX_RESULTS_DEFAULT), MAX_RESULTS_MAX)
    if max_results < 1:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid value for max_results. It must be a positive integer, but got {max_results}",
        )
    wanted = Search(
        filter=params.get("filter", ""),
        order_by=tuple(params.get("order_by", ())),
        max_results=max_results,
        page_token=params.get("page_token") or None,
        visible=call.authority.visible_models(),
    )
    found = await call.services.read(lambda connection: search(connection, MODEL_VERSIONS, wanted))
    versions = (msgspec.msgpack.decode(document, type=ModelVersion) for document in found.documents)
    return wire.page("model_versions", map(shapes.model_version, versions), found.next_page_token)


async def update(call: Call) -> bytes:
    """PATCH model-versions/update. Without a description, the version has none any more."""
    params = call.params(_UPDATE)
    command = domain.UpdateModelVersion(
        name=params["name"], version=params["version"], description=params.get("description")
    )
    return await _changed(call, command)


async def transition(call: Call) -> bytes:
    """POST model-versions/transition-stage."""
    return await _changed(call, transition_command(call.params(TRANSITION)))


def transition_command(params: wire.Json) -> domain.TransitionStage:
    """The command of a request to move a version. params: as in TRANSITION."""
    return domain.TransitionStage(
        name=params["name"],
        version=params["version"],
        stage=params["stage"],
        archive_others=params.get("archive_existing_versions", False),
        comment=params.get("comment"),
    )


async def _changed(
    call: Call, command: domain.UpdateModelVersion | domain.TransitionStage
) -> bytes:
    def render(outcome: Outcome) -> bytes:
        model = outcome.after
        assert isinstance(model, RegisteredModel)
        version = model.versions[int(command.version)]
        aliases = aliases_of(model, version.version)
        return wire.encode({"model_version": shapes.model_version(version, aliases)})

    return await call.services.writer.submit(call.caller, command, render)


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def delete(call: Call) -> bytes:
    """DELETE model-versions/delete."""
    params = call.deletion_params(VERSION)
    return await _submit(
        call, domain.DeleteModelVersion(name=params["name"], version=params["version"])
    )


async def set_tag(call: Call) -> bytes:
    """POST model-versions/set-tag."""
    params = call.params(_SET_TAG)
    command = domain.SetModelVersionTag(
        name=params["name"],
        version=params["version"],
        key=params["key"],
        value=params.get("value", ""),
    )
    return await _submit(call, command)


async def delete_tag(call: Call) -> bytes:
    """DELETE model-versions/delete-tag."""
    params = call.deletion_params(_DELETE_TAG)
    command = domain.DeleteModelVersionTag(
        name=params["name"], version=params["version"], key=params["key"]
    )
    return await _submit(call, command)


ROUTES = (
    *mlflow("POST", "model-versions/create", P.MODEL_WRITE, create),
    *mlflow("GET", "model-versions/get", P.MODEL_READ, get),
    *mlflow("GET", "model-versions/get-download-uri", P.MODEL_READ, download_uri),
    *mlflow("GET", "model-versions/search", P.MODEL_READ, search_versions),
    *mlflow("PATCH", "model-versions/update", P.MODEL_WRITE, update),
    *mlflow("POST", "model-versions/transition-stage", P.MODEL_PROMOTE, transition),
    *mlflow("DELETE", "model-versions/delete", P.MODEL_DELETE, delete),
    *mlflow("POST", "model-versions/set-tag", P.MODEL_WRITE, set_tag),
    *mlflow("DELETE", "model-versions/delete-tag", P.MODEL_WRITE, delete_tag),
)
