"""How much of a call the trail keeps: rules in order, of which the first that matches decides.

    [[audit_rules]]
    level = "request"
    permissions = ["model:*"]

    [[audit_rules]]
    level = "none"
    routes = ["/api/2.0/mlflow/metrics/*"]

Before the operator's rules come those of IN_FULL, behind them those of NOISE, and what none of them
matches is METADATA.
Refusals (401, 403) are in the trail whatever the rules say.
Source: Kubernetes' audit policy, whose levels and first match these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from muniment_schemas.patterns import matches


class Level(StrEnum):
    """none: nothing. metadata: who, what, when, how it came out. request: also what was sent."""

    NONE = "none"
    METADATA = "metadata"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Rule:
    """A level for the routes and permissions that one of the patterns matches each."""

    level: Level
    permissions: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)

    def covers(self, route: str, permission: str) -> bool:
        """Whether the rule is about a route."""
        return any(matches(pattern, permission) for pattern in self.permissions) and any(
            matches(pattern, route) for pattern in self.routes
        )


IN_FULL = (Rule(Level.REQUEST, routes=("/api/v1/audit/sql",)),)
"""What is asked in a language of its own, so that nothing else tells what was asked."""

NOISE = (
    Rule(
        Level.NONE,
        routes=(
            "/health",
            "/healthz",
            "/readyz",
            "/version",
            "/metrics",
            "/api/v1/health",
            "/.well-known/*",
            "/static/*",
            "*/mlflow/server-info",
        ),
    ),
)
"""What probes, scrapes and browsers ask all day and nobody is told anything by."""

ALWAYS_KEPT = ("access:*", "artifact:*", "audit:*", "model:*")
"""Permissions whose calls are never left out."""

ALWAYS_KEPT_ROUTES = ("*artifact*", "/login*", "/logout")
"""Routes whose calls are never left out, whatever their permission."""


class Levels:
    """The level of each route."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = (*IN_FULL, *rules, *NOISE)
        self._known: dict[tuple[str, str], Level] = {}

    def of(self, route: str | None, permission: str | None) -> Level:
        """The level of a route; a call that met none is METADATA."""
        if route is None or permission is None:
            return Level.METADATA
        key = (route, permission)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._first(route, permission)
        return found

    def left_out_wrongly(self, routes: Iterable[tuple[str, str]]) -> Sequence[str]:
        """Those (route, permission) that must be kept and are not, as texts."""
        return [
            f"{route} ({permission})"
            for route, permission in routes
            if self.of(route, permission) is Level.NONE and _always_kept(route, permission)
        ]

    def _first(self, route: str, permission: str) -> Level:
        for rule in self._rules:
            if rule.covers(route, permission):
                return rule.level
        return Level.METADATA


def _always_kept(route: str, permission: str) -> bool:
    return any(matches(pattern, permission) for pattern in ALWAYS_KEPT) or any(
        matches(pattern, route) for pattern in ALWAYS_KEPT_ROUTES
    )
