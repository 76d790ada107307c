"""Which rule decides, and what no rule can leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from muniment_services import bootstrap
from muniment_services.api.app import ROUTES
from muniment_services.audit_levels import Level, Levels, Rule
from muniment_services.config import ConfigError, Settings, load


def test_probes_are_not_recorded_and_everything_else_is() -> None:
    levels = Levels()
    silent = {route.path for route in ROUTES if levels.of(route.path, route.permission) == "none"}
    assert silent == {
        "/health",
        "/healthz",
        "/readyz",
        "/version",
        "/metrics",
        "/api/v1/health",
        "/.well-known/databricks-config",
        "/.well-known/oauth-protected-resource",
        "/api/3.0/mlflow/server-info",
        "/ajax-api/3.0/mlflow/server-info",
    }
    assert levels.of(None, None) is Level.METADATA


def test_the_first_rule_that_matches_decides() -> None:
    levels = Levels(
        [
            Rule(Level.REQUEST, permissions=("model:*",)),
            Rule(Level.NONE, permissions=("run:read", "model:*")),
            Rule(Level.METADATA, routes=("/health",)),
        ]
    )
    assert levels.of("/x", "model:promote") is Level.REQUEST
    assert levels.of("/x", "run:read") is Level.NONE
    assert levels.of("/x", "run:write") is Level.METADATA
    assert levels.of("/health", "public:read") is Level.METADATA


@pytest.mark.parametrize(
    "rule",
    [
        {"level": "none"},
        {"level": "none", "permissions": ["model:read"]},
        {"level": "none", "permissions": ["artifact:*"]},
        {"level": "none", "routes": ["/login*"]},
        {"level": "none", "permissions": ["audit:read"]},
        {"level": "none", "routes": ["*/logged-models/*"]},
    ],
)
def test_rules_that_leave_out_what_must_be_kept_are_refused_at_the_start(
    rule: dict[str, object],
) -> None:
    settings = Settings.model_validate({"audit_rules": [rule]})
    with pytest.raises(ConfigError, match="always recorded"):
        bootstrap.recording(settings)


def test_the_file_gives_rules(tmp_path: Path) -> None:
    file = tmp_path / "muniment.toml"
    file.write_text('[[audit_rules]]\nlevel = "none"\npermissions = ["run:read"]\n')
    settings = load({}, {}, file).settings
    bootstrap.recording(settings)
    assert [rule.rule().level for rule in settings.audit_rules] == [Level.NONE]
    file.write_text('[[audit_rules]]\nlevel = "all"\n')
    with pytest.raises(ConfigError, match="audit_rules"):
        load({}, {}, file)


def test_no_rule_leaves_out_what_was_asked_in_sql() -> None:
    levels = Levels([Rule(Level.NONE), Rule(Level.METADATA, permissions=("audit:*",))])
    assert levels.of("/api/v1/audit/sql", "audit:read") is Level.REQUEST
