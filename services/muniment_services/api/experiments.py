"""MLflow's experiments: create, get, search, rename, delete, restore, tags."""

from __future__ import annotations

from collections.abc import Mapping

from muniment_auth.permissions import Permission as P
from muniment_projections.runs.reader import View, find_datasets
from muniment_projections.search.entities.experiments import EXPERIMENTS
from muniment_projections.search.page import Search, search
from muniment_projections.search.predicate import TRUE, Predicate
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, pairs
from muniment_services.api.routes import Call, Route, mlflow
from muniment_services.documents import parse
from muniment_services.domain import experiment as domain
from muniment_services.domain import workspace
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import NotFound
from muniment_services.write import Outcome

MAX_RESULTS_MAX = 50_000
DATASETS_EXPERIMENTS_MAX = 20

VIEWS: Mapping[str, View] = {"ACTIVE_ONLY": "active", "DELETED_ONLY": "deleted", "ALL": "all"}
"""MLflow's view types; an unknown name falls back to the default."""
VIEW_NUMBERS = ("", "ACTIVE_ONLY", "DELETED_ONLY", "ALL")
"""View types by the number that may stand for them."""

_ID: Fields = (Field("experiment_id", required=True),)
_CREATE: Fields = (
    Field("name", required=True),
    Field("artifact_location"),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
)
_GET_BY_NAME: Fields = (Field("experiment_name", required=True),)
_UPDATE: Fields = (Field("experiment_id", required=True), Field("new_name", required=True))
_SET_TAG: Fields = (
    Field("experiment_id", required=True),
    Field("key", required=True),
    Field("value"),
)
_DELETE_TAG: Fields = (Field("experiment_id", required=True), Field("key", required=True))
_DATASETS: Fields = (Field("experiment_ids", repeated=True),)
_SEARCH: Fields = (
    Field("view_type", "enum", checked=False, numbers=VIEW_NUMBERS),
    Field("max_results", "int"),
    Field("order_by", repeated=True),
    Field("filter"),
    Field("page_token"),
)


async def create(call: Call) -> bytes:
    """POST experiments/create."""
    params = call.params(_CREATE)
    command = domain.CreateExperiment(
        name=params["name"],
        artifact_location=params.get("artifact_location") or None,
        artifact_root=workspace.artifact_root(
            call.services.fold.state, call.caller.workspace, call.services.artifact_root
        ),
        tags=pairs(params.get("tags")),
    )
    return await call.services.writer.submit(call.caller, command, _created)


def _created(outcome: Outcome) -> bytes:
    assert outcome.event is not None
    return wire.encode({"experiment_id": outcome.event.envelope.aggregate_id})


async def get(call: Call) -> bytes:
    """GET experiments/get."""
    params = call.params(_ID)
    await call.services.caught_up()
    found = domain.require(call.world, params["experiment_id"])
    return wire.encode({"experiment": wire.experiment(found)})


async def get_by_name(call: Call) -> bytes:
    """GET experiments/get-by-name."""
    name = call.params(_GET_BY_NAME)["experiment_name"]
    await call.services.caught_up()
    found = call.world.named(domain.KIND, name)
    if found is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    assert isinstance(found, domain.Experiment)
    return wire.encode({"experiment": wire.experiment(found)})


async def search_experiments(call: Call) -> bytes:
    """POST or GET experiments/search."""
    params = call.params(_SEARCH)
    max_results = _max_results(params.get("max_results", 0))
    view = VIEWS.get(params.get("view_type", ""), "active")
    scope = TRUE if view == "all" else Predicate("t.lifecycle = ?", (view,))
    wanted = Search(
        filter=params.get("filter", ""),
        order_by=tuple(params.get("order_by", ())),
        max_results=max_results,
        page_token=params.get("page_token") or None,
        scope=scope,
        context=(view,),
        visible=call.authority.visible_experiments(),
    )

    found = await call.services.read(lambda connection: search(connection, EXPERIMENTS, wanted))
    states = (parse(domain.KIND, document) for document in found.documents)
    return wire.page(
        "experiments",
        (wire.experiment(state) for state in states if isinstance(state, domain.Experiment)),
        found.next_page_token,
    )


async def search_datasets(call: Call) -> bytes:
    """POST experiments/search-datasets: the datasets of at most 20 experiments' runs."""
    experiment_ids = call.params(_DATASETS).get("experiment_ids", [])
    if not experiment_ids:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "SearchDatasets request must specify at least one experiment_id.",
        )
    if len(experiment_ids) > DATASETS_EXPERIMENTS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"SearchDatasets request cannot specify more than {DATASETS_EXPERIMENTS_MAX} "
            f"experiment_ids. Received {len(experiment_ids)} experiment_ids.",
        )
    wanted = [domain.checked_id(experiment_id) for experiment_id in experiment_ids]
    visible = call.authority.visible_experiments()
    found = await call.services.read(lambda connection: find_datasets(connection, wanted, visible))
    summaries = (
        wire.without_none(experiment_id=experiment_id, name=name, digest=digest, context=context)
        for experiment_id, name, digest, context in found
    )
    return wire.page("dataset_summaries", summaries, None)


def _max_results(given: int) -> int:
    # MLflow has no default here: a search that does not say how many is refused.
    if given < 1:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid value {given} for parameter 'max_results' supplied. "
            "It must be a positive integer",
        )
    if given > MAX_RESULTS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid value {given} for parameter 'max_results' supplied. "
            f"It must be at most {MAX_RESULTS_MAX}",
        )
    return given


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def update(call: Call) -> bytes:
    """POST experiments/update."""
    params = call.params(_UPDATE)
    return await _submit(
        call,
        domain.RenameExperiment(experiment_id=params["experiment_id"], name=params["new_name"]),
    )


async def delete(call: Call) -> bytes:
    """POST experiments/delete."""
    experiment_id = call.params(_ID)["experiment_id"]
    return await _submit(call, domain.DeleteExperiment(experiment_id=experiment_id))


async def restore(call: Call) -> bytes:
    """POST experiments/restore."""
    experiment_id = call.params(_ID)["experiment_id"]
    return await _submit(call, domain.RestoreExperiment(experiment_id=experiment_id))


async def set_tag(call: Call) -> bytes:
    """POST experiments/set-experiment-tag."""
    params = call.params(_SET_TAG)
    command = domain.SetExperimentTag(
        experiment_id=params["experiment_id"], key=params["key"], value=params.get("value", "")
    )
    return await _submit(call, command)


async def delete_tag(call: Call) -> bytes:
    """POST experiments/delete-experiment-tag."""
    params = call.params(_DELETE_TAG)
    command = domain.DeleteExperimentTag(experiment_id=params["experiment_id"], key=params["key"])
    return await _submit(call, command)


ROUTES = (
    *mlflow("POST", "experiments/create", P.EXPERIMENT_CREATE, create),
    *mlflow("GET", "experiments/get", P.EXPERIMENT_READ, get),
    *mlflow("GET", "experiments/get-by-name", P.EXPERIMENT_READ, get_by_name),
    *mlflow("GET", "experiments/search", P.EXPERIMENT_READ, search_experiments),
    *mlflow("POST", "experiments/search", P.EXPERIMENT_READ, search_experiments),
    Route(
        "POST",
        "/ajax-api/2.0/mlflow/experiments/search-datasets",
        P.EXPERIMENT_READ,
        search_datasets,
    ),
    *mlflow("POST", "experiments/update", P.EXPERIMENT_WRITE, update),
    *mlflow("POST", "experiments/delete", P.EXPERIMENT_DELETE, delete),
    *mlflow("POST", "experiments/restore", P.EXPERIMENT_DELETE, restore),
    *mlflow("POST", "experiments/set-experiment-tag", P.EXPERIMENT_WRITE, set_tag),
    *mlflow("POST", "experiments/delete-experiment-tag", P.EXPERIMENT_WRITE, delete_tag),
)
