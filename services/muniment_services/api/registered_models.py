"""MLflow's registered models (and prompts): create, get, search, update, rename, delete, tags,
aliases, latest versions.
"""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_projections.search.entities.registry import REGISTERED_MODELS
from muniment_projections.search.page import Search, search
from muniment_services.api import wire
from muniment_services.api import wire_registry as shapes
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, pairs
from muniment_services.api.routes import Call, mlflow
from muniment_services.documents import parse
from muniment_services.domain import registered_model as domain
from muniment_services.domain import registry_life as life
from muniment_services.domain.commands import Command
from muniment_services.domain.registry_names import STAGES, stage_of
from muniment_services.write import Outcome

MAX_RESULTS_DEFAULT = 100
MAX_RESULTS_MAX = 1000

NAME: Fields = (Field("name", required=True),)
SEARCH: Fields = (
    Field("filter"),
    Field("max_results", "int"),
    Field("order_by", repeated=True),
    Field("page_token"),
)
_CREATE: Fields = (
    *NAME,
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
    Field("description"),
)
_UPDATE: Fields = (*NAME, Field("description"))
_RENAME: Fields = (*NAME, Field("new_name", required=True))
_LATEST: Fields = (*NAME, Field("stages", repeated=True))
_SET_TAG: Fields = (*NAME, Field("key", required=True), Field("value"))
_DELETE_TAG: Fields = (*NAME, Field("key", required=True))
_ALIAS: Fields = (*NAME, Field("alias", required=True))
_SET_ALIAS: Fields = (*_ALIAS, Field("version", required=True))


def _model(outcome: Outcome) -> bytes:
    assert isinstance(outcome.after, domain.RegisteredModel)
    return wire.encode({"registered_model": shapes.registered_model(outcome.after)})


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def create(call: Call) -> bytes:
    """POST registered-models/create."""
    params = call.params(_CREATE)
    command = life.CreateRegisteredModel(
        name=params["name"],
        description=params.get("description"),
        tags=pairs(params.get("tags")),
    )
    return await call.services.writer.submit(call.caller, command, _model)


async def get(call: Call) -> bytes:
    """GET registered-models/get."""
    name = call.params(NAME)["name"]
    await call.services.caught_up()
    found = domain.require(call.world, name)
    return wire.encode({"registered_model": shapes.registered_model(found)})


async def search_models(call: Call) -> bytes:
    """GET registered-models/search."""
    params = call.params(SEARCH)
    wanted = Search(
        filter=params.get("filter", ""),
        order_by=tuple(params.get("order_by", ())),
        max_results=at_most(params.get("max_results", MAX_RESULTS_DEFAULT), MAX_RESULTS_MAX),
        page_token=params.get("page_token") or None,
        visible=call.authority.visible_models(),
    )
    found = await call.services.read(
        lambda connection: search(connection, REGISTERED_MODELS, wanted)
    )
    states = (parse(domain.KIND, document) for document in found.documents)
    return wire.page(
        "registered_models",
        (shapes.registered_model(s) for s in states if isinstance(s, domain.RegisteredModel)),
        found.next_page_token,
    )


def at_most(max_results: int, limit: int) -> int:
    """max_results of a query string, if it is not over the limit; raises ApiError."""
    if max_results > limit:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid value \"{max_results}\" for parameter 'max_results' supplied:  Hint: Value "
            "was of type 'str'. See the API docs for more information about request parameters.",
        )
    return max_results


async def update(call: Call) -> bytes:
    """PATCH registered-models/update. Without a description, it becomes empty."""
    params = call.params(_UPDATE)
    command = life.UpdateRegisteredModel(
        name=params["name"], description=params.get("description", "")
    )
    return await call.services.writer.submit(call.caller, command, _model)


async def rename(call: Call) -> bytes:
    """POST registered-models/rename."""
    params = call.params(_RENAME)
    command = life.RenameRegisteredModel(name=params["name"], new_name=params["new_name"])
    return await call.services.writer.submit(call.caller, command, _model)


async def delete(call: Call) -> bytes:
    """DELETE registered-models/delete."""
    return await _submit(call, life.DeleteRegisteredModel(name=call.deletion_params(NAME)["name"]))


async def latest(call: Call) -> bytes:
    """POST or GET registered-models/get-latest-versions: per stage the highest version."""
    params = call.params(_LATEST)
    await call.services.caught_up()
    model = domain.require(call.world, params["name"])
    stages = {stage_of(stage) for stage in params.get("stages") or STAGES}
    found = [v for v in domain.latest_versions(model) if v.stage in stages]
    return wire.page("model_versions", shapes.with_aliases(model, found), None)


async def set_tag(call: Call) -> bytes:
    """POST registered-models/set-tag."""
    params = call.params(_SET_TAG)
    command = life.SetRegisteredModelTag(
        name=params["name"], key=params["key"], value=params.get("value", "")
    )
    return await _submit(call, command)


async def delete_tag(call: Call) -> bytes:
    """DELETE registered-models/delete-tag."""
    params = call.deletion_params(_DELETE_TAG)
    return await _submit(
        call, life.DeleteRegisteredModelTag(name=params["name"], key=params["key"])
    )


async def set_alias(call: Call) -> bytes:
    """POST registered-models/alias."""
    params = call.params(_SET_ALIAS)
    command = life.SetAlias(name=params["name"], alias=params["alias"], version=params["version"])
    return await _submit(call, command)


async def get_by_alias(call: Call) -> bytes:
    """GET registered-models/alias: the version that an alias points at."""
    params = call.params(_ALIAS)
    await call.services.caught_up()
    state = call.world
    found = domain.require_alias(state, params["name"], params["alias"])
    aliases = domain.aliases_of(domain.require(state, params["name"]), found.version)
    return wire.encode({"model_version": shapes.model_version(found, aliases)})


async def delete_alias(call: Call) -> bytes:
    """DELETE registered-models/alias."""
    params = call.params(_ALIAS)
    return await _submit(call, life.DeleteAlias(name=params["name"], alias=params["alias"]))


ROUTES = (
    *mlflow("POST", "registered-models/create", P.MODEL_CREATE, create),
    *mlflow("GET", "registered-models/get", P.MODEL_READ, get),
    *mlflow("GET", "registered-models/search", P.MODEL_READ, search_models),
    *mlflow("PATCH", "registered-models/update", P.MODEL_WRITE, update),
    *mlflow("POST", "registered-models/rename", P.MODEL_WRITE, rename),
    *mlflow("DELETE", "registered-models/delete", P.MODEL_DELETE, delete),
    *mlflow("POST", "registered-models/get-latest-versions", P.MODEL_READ, latest),
    *mlflow("GET", "registered-models/get-latest-versions", P.MODEL_READ, latest),
    *mlflow("POST", "registered-models/set-tag", P.MODEL_WRITE, set_tag),
    *mlflow("DELETE", "registered-models/delete-tag", P.MODEL_WRITE, delete_tag),
    *mlflow("POST", "registered-models/alias", P.MODEL_PROMOTE, set_alias),
    *mlflow("GET", "registered-models/alias", P.MODEL_READ, get_by_alias),
    *mlflow("DELETE", "registered-models/alias", P.MODEL_PROMOTE, delete_alias),
)
