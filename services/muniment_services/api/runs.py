"""MLflow's runs: create, update, get, search, delete, restore."""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_projections.runs.reader import RunSearch, search_runs
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.experiments import VIEW_NUMBERS, VIEWS
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, pairs
from muniment_services.api.routes import Call, mlflow
from muniment_services.documents import parse
from muniment_services.domain import run as domain
from muniment_services.domain.experiment import KIND as EXPERIMENT
from muniment_services.domain.experiment import checked_id
from muniment_services.domain.run_life import CreateRun, DeleteRun, RestoreRun, UpdateRun
from muniment_services.write import Outcome

MAX_RESULTS_DEFAULT = 1000
MAX_RESULTS_MAX = 50_000

STATUS_NUMBERS = ("", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")

RUN_ID: Fields = (Field("run_id", required=True), Field("run_uuid"))
RUN_ID_ONLY: Fields = (Field("run_id", required=True),)
_CREATE: Fields = (
    Field("experiment_id"),
    Field("user_id"),
    Field("run_name"),
    Field("start_time", "int"),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
)
_UPDATE: Fields = (
    *RUN_ID,
    Field("end_time", "int"),
    Field("status", "enum", numbers=STATUS_NUMBERS),
    Field("run_name"),
)
_SEARCH: Fields = (
    Field("experiment_ids", repeated=True),
    Field("filter"),
    Field("run_view_type", "enum", checked=False, numbers=VIEW_NUMBERS),
    Field("max_results", "int", nullable=False, most=MAX_RESULTS_MAX),
    Field("order_by", repeated=True),
    Field("page_token", checked=False),
)


def run_id_of(params: wire.Json) -> str:
    """The run that a request names, by either of MLflow's two fields."""
    run_id = params.get("run_id") or params.get("run_uuid") or ""
    assert isinstance(run_id, str)
    return run_id


async def create(call: Call) -> bytes:
    """POST runs/create."""
    params = call.params(_CREATE)
    command = CreateRun(
        experiment_id=params.get("experiment_id", ""),
        name=params.get("run_name", ""),
        user_id=params.get("user_id", ""),
        start_time_ms=params.get("start_time", 0),
        tags=pairs(params.get("tags")),
    )
    return await call.services.writer.submit(call.caller, command, _created)


def _created(outcome: Outcome) -> bytes:
    assert isinstance(outcome.after, domain.Run)
    return wire.encode({"run": wire.new_run(outcome.after, outcome.after.lifecycle)})


async def update(call: Call) -> bytes:
    """POST runs/update."""
    params = call.params(_UPDATE)
    run_id = run_id_of(params)
    command = UpdateRun(
        run_id=run_id,
        status=params.get("status"),
        end_time_ms=params.get("end_time"),
        name=params.get("run_name"),
    )
    world = call.services.fold.state

    def render(outcome: Outcome) -> bytes:
        after = outcome.after if outcome.event is not None else world.get(domain.KIND, run_id)
        assert isinstance(after, domain.Run)
        return wire.encode({"run_info": wire.run_info(after, after.lifecycle)})

    return await call.services.writer.submit(call.caller, command, render)


async def get(call: Call) -> bytes:
    """GET runs/get. Answered from memory for runs that are in use."""
    run_id = run_id_of(call.params(RUN_ID))
    await call.look_up(domain.KIND, run_id)
    world = call.world
    found = domain.require(world, run_id)
    return wire.encode({"run": wire.run(found, domain.lifecycle_of(world, found))})


async def delete(call: Call) -> bytes:
    """POST runs/delete."""
    command = DeleteRun(run_id=run_id_of(call.params(RUN_ID_ONLY)))
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def restore(call: Call) -> bytes:
    """POST runs/restore."""
    command = RestoreRun(run_id=run_id_of(call.params(RUN_ID_ONLY)))
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def search(call: Call) -> bytes:
    """POST runs/search."""
    params = call.params(_SEARCH)
    max_results = params.get("max_results", MAX_RESULTS_DEFAULT)
    if max_results < 1:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid value {max_results} for parameter 'max_results' supplied. "
            "It must be a positive integer",
        )
    wanted = RunSearch(
        experiment_ids=tuple(map(checked_id, params.get("experiment_ids", ()))),
        filter=params.get("filter", ""),
        view=VIEWS.get(params.get("run_view_type", ""), "active"),
        order_by=tuple(params.get("order_by", ())),
        max_results=max_results,
        page_token=params.get("page_token") or None,
    )
    for experiment_id in wanted.experiment_ids:
        call.authority.touch(EXPERIMENT, experiment_id)
    visible = call.authority.visible_experiments()
    found = await call.services.read(lambda connection: search_runs(connection, wanted, visible))
    runs = []
    for document, lifecycle in zip(found.documents, found.lifecycles, strict=True):
        run = parse(domain.KIND, document)
        assert isinstance(run, domain.Run)
        runs.append(wire.run(run, lifecycle))
    return wire.page("runs", runs, found.next_page_token)


ROUTES = (
    *mlflow("POST", "runs/create", P.RUN_WRITE, create),
    *mlflow("POST", "runs/update", P.RUN_WRITE, update),
    *mlflow("GET", "runs/get", P.RUN_READ, get),
    *mlflow("POST", "runs/delete", P.RUN_DELETE, delete),
    *mlflow("POST", "runs/restore", P.RUN_DELETE, restore),
    *mlflow("POST", "runs/search", P.RUN_READ, search),
)
