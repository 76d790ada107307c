"""Who may approve a promotion, and by what: the policy's answer, for decisions on approvals."""

from __future__ import annotations

from collections.abc import Callable

from muniment_auth import policy
from muniment_auth.permissions import Permission
from muniment_auth.resources import Attributes
from muniment_schemas.access_events import Grant
from muniment_schemas.promotion_events import ALIAS
from muniment_services.authority import Authority, of_model
from muniment_services.domain.access import state_of
from muniment_services.domain.commands import World
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.review import Target

APPROVE = Permission.MODEL_APPROVE


def attributes_of(target: Target) -> Attributes:
    """A promotion's target as the policy asks for it."""
    if target.kind == ALIAS:
        return Attributes(alias=target.name)
    return Attributes(stage=target.name)


def rights_of(authority: Authority) -> Callable[[RegisteredModel, Target], tuple[str, ...]]:
    """All that a caller may approve by, of a model and a target."""
    return lambda model, target: authority.rights(of_model(model), APPROVE, attributes_of(target))


def gives(world: World, grant: Grant, model: RegisteredModel, target: Target, now_ms: int) -> bool:
    """Whether those whom a grant is made to may approve by it."""
    roles = {name: role.permissions for name, role in state_of(world).roles.items()}
    return policy.gives(grant, APPROVE, of_model(model), attributes_of(target), roles, now_ms)
