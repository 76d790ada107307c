"""Settings of the trail's rules: tables [[audit_rules]] of the TOML file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from muniment_services.audit_levels import Level, Rule


class AuditRuleSettings(BaseModel):
    """One rule. permissions, routes: patterns with `*`, of which one of each has to match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["none", "metadata", "request"]
    permissions: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)

    def rule(self) -> Rule:
        """The rule as the rest knows it."""
        return Rule(Level(self.level), self.permissions, self.routes)
