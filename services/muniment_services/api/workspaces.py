"""MLflow's workspaces: list, create, get, update, delete. Served when the server has them switched
on (`--workspaces`).
"""

from __future__ import annotations

import dataclasses

from muniment_auth.permissions import Permission as P
from muniment_auth.policy import EVERYTHING
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Answer, Call, mlflow
from muniment_services.authority import Authority
from muniment_services.domain import experiment, workspace
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound
from muniment_services.write import Outcome

_CREATE: Fields = (
    Field("name", required=True),
    Field("description"),
    Field("default_artifact_root"),
)
_UPDATE: Fields = _CREATE[1:]
_MODE: Fields = (Field("mode", checked=False),)

MODES = ("SET_DEFAULT", "CASCADE", "RESTRICT")
"""MLflow's deletion modes. Only the last is served: nothing is moved or deleted along."""


def _served(call: Call) -> None:
    if not call.authority.isolated:
        raise ApiError(
            "TEMPORARILY_UNAVAILABLE",
            "This server runs without workspaces. `muniment serve --workspaces` switches them on.",
        )


async def list_all(call: Call) -> bytes:
    """GET 3.0 workspaces: those that the caller has anything in."""
    _served(call)
    await call.services.caught_up()
    listed = call.services.fold.state.of_kind(workspace.KIND)
    found = [workspace.DEFAULT, *(w for w in listed if isinstance(w, workspace.Workspace))]
    reached = (w for w in found if call.authority.reaches(w.workspace_id))
    return wire.encode({"workspaces": [workspace.builtins(w) for w in reached]})


async def create(call: Call) -> Answer:
    """POST 3.0 workspaces: a workspace with its Default experiment."""
    _served(call)
    params = call.params(_CREATE)
    command = workspace.CreateWorkspace(
        workspace=params["name"],
        description=params.get("description"),
        artifact_root=params.get("default_artifact_root"),
    )
    body = await call.services.writer.submit(call.caller, command, _shown)
    await _default_experiment(call, command.workspace)
    return Answer(body, 201)


async def _default_experiment(call: Call, name: str) -> None:
    services = call.services
    root = workspace.artifact_root(services.fold.state, name, services.artifact_root)
    first = experiment.CreateExperiment(
        name=experiment.DEFAULT_NAME, artifact_location=None, artifact_root=root
    )
    # What the workspace begins with is the server's doing, whoever made the workspace.
    inside = Authority(
        lambda: EVERYTHING, P.EXPERIMENT_CREATE, services.now_ms, workspace=name, isolated=True
    )
    caller = dataclasses.replace(
        call.caller, workspace=name, authority=inside, idempotency_key=None, request=b""
    )
    try:
        await services.writer.submit(caller, first, lambda _: b"")
    except AlreadyExists:
        return  # A repeat of the request.


async def get(call: Call) -> bytes:
    """GET 3.0 workspaces/NAME."""
    _served(call)
    await call.services.caught_up()
    name = call.path_params["workspace_name"]
    found = workspace.require(call.services.fold.state, name)
    if not call.authority.reaches(name):
        raise NotFound(f"Workspace '{name}' not found")
    return wire.encode({"workspace": workspace.builtins(found)})


async def update(call: Call) -> bytes:
    """PATCH 3.0 workspaces/NAME."""
    _served(call)
    params = call.params(_UPDATE)
    command = workspace.UpdateWorkspace(
        workspace=call.path_params["workspace_name"],
        description=params.get("description"),
        artifact_root=params.get("default_artifact_root"),
    )
    return await call.services.writer.submit(call.caller, command, _shown)


async def delete(call: Call) -> Answer:
    """DELETE 3.0 workspaces/NAME?mode=RESTRICT: an empty one."""
    _served(call)
    mode = from_query(call.query, _MODE).get("mode") or "RESTRICT"
    if mode not in MODES:
        raise Invalid(f"Invalid deletion mode '{mode}'. Must be one of: {', '.join(MODES)}")
    if mode != "RESTRICT":
        raise Invalid(
            f"Deletion mode '{mode}' is not supported: what is in a workspace has a history that "
            "names it. Delete what is in it, or leave it."
        )
    command = workspace.DeleteWorkspace(workspace=call.path_params["workspace_name"])
    await call.services.writer.submit(call.caller, command, lambda _: b"")
    return Answer(b"", 204)


def _shown(outcome: Outcome) -> bytes:
    assert isinstance(outcome.after, workspace.Workspace)
    return wire.encode({"workspace": workspace.builtins(outcome.after)})


ROUTES = (
    *mlflow("GET", "workspaces", P.SELF_USE, list_all, "3.0"),
    *mlflow("POST", "workspaces", P.SERVER_ADMIN, create, "3.0"),
    *mlflow("GET", "workspaces/{workspace_name}", P.SELF_USE, get, "3.0"),
    *mlflow("PATCH", "workspaces/{workspace_name}", P.SERVER_ADMIN, update, "3.0"),
    *mlflow("DELETE", "workspaces/{workspace_name}", P.SERVER_ADMIN, delete, "3.0"),
)
