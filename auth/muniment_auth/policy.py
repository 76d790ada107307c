"""One decision: may this principal do this? Default deny."""

from __future__ import annotations

from dataclasses import dataclass

from muniment_auth.permissions import Permission
from muniment_auth.principal import Principal


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, and why, in words that an auditor can use."""

    allowed: bool
    reason: str


def decide(principal: Principal | None, permission: Permission) -> Decision:
    """Whether a principal holds a permission. None: nobody is signed in.

    The local user holds all, since whoever reaches a loopback listener owns the data folder.
    """
    if permission is Permission.PUBLIC:
        return Decision(True, "public")
    if principal is None:
        return Decision(False, "not authenticated")
    if principal.kind == "local":
        return Decision(True, "local user")
    return Decision(False, f"no grant gives {permission} to this principal")
