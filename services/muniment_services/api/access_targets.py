"""What access is asked on, looked up: things as the policy sees them, and what a caller holds."""

from __future__ import annotations

from collections.abc import Mapping

from muniment_auth.resources import SERVER, Resource
from muniment_schemas.access_events import ANYTHING, ID_PREFIX, Grant
from muniment_services import access_text
from muniment_services.api.errors import ApiError
from muniment_services.authority import of_experiment, of_model
from muniment_services.domain.access import AccessState
from muniment_services.domain.commands import State
from muniment_services.domain.experiment import Experiment
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.state import CurrentState

AGGREGATES: Mapping[str, str] = {
    "experiment": "experiment",
    "model": "registered_model",
    "prompt": "registered_model",
}


def split_resource(text: str) -> tuple[str, str]:
    """`experiment:NAME`, `model:id:ID` or `server` as kind and name. Raises ApiError."""
    try:
        kind, name = access_text.resource_of(text)
    except ValueError as error:
        raise ApiError("INVALID_PARAMETER_VALUE", f"{error}.") from None
    if kind == ANYTHING:
        raise ApiError("INVALID_PARAMETER_VALUE", "'resource' must name one kind of thing, not *.")
    return kind, name


def resource_of(state: State) -> Resource:
    """An experiment or registered model as the policy sees it."""
    if isinstance(state, RegisteredModel):
        return of_model(state)
    assert isinstance(state, Experiment)
    return of_experiment(state)


def find(world: CurrentState, kind: str, name: str, workspace: str) -> Resource:
    """The thing of a name (or `id:ID`); what is not there has no id, and a name that may be."""
    if kind == "server":
        return SERVER
    aggregate = AGGREGATES[kind]
    by_id = name.startswith(ID_PREFIX)
    found = (
        world.get(aggregate, name.removeprefix(ID_PREFIX))
        if by_id
        else world.named(aggregate, name, workspace)
    )
    if found is not None:
        resource = resource_of(found)
        if resource.kind == kind and resource.workspace == workspace:
            return resource
    return Resource(kind, "", "" if by_id else name, None, workspace)


def target_of(world: CurrentState, grant: Grant) -> Resource | None:
    """The one thing that a grant's pattern means now, if it means one and that is there."""
    if grant.resource_kind not in AGGREGATES:
        return None
    if ANYTHING in grant.pattern or grant.workspace == ANYTHING:
        return None
    found = find(world, grant.resource_kind, grant.pattern, grant.workspace)
    return found if found.id else None


def roles_of(state: AccessState) -> Mapping[str, tuple[str, ...]]:
    """The defined roles, each with its permissions."""
    return {name: role.permissions for name, role in state.roles.items()}
