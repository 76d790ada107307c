"""Settings: where each comes from, which one counts, and what a wrong one says."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path

import pytest

from muniment_auth.issuers import is_loopback
from muniment_services.cli.options import LogOptions
from muniment_services.cli.serve import (
    ProcessOptions,
    ProofOptions,
    SignInOptions,
    StorageOptions,
    TrailOptions,
    serve,
)
from muniment_services.config import (
    SECRETS,
    TABLES,
    ConfigError,
    Settings,
    load,
    unknown_variables,
)
from unit.cli.conftest import Call
from unit.cli.conftest import call as call


def test_defaults_count_when_nothing_is_said() -> None:
    loaded = load({}, {}, None)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.origins.keys() == Settings.model_fields.keys()


def test_command_line_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "muniment.toml"
    file.write_text("port = 1\nhost = '::1'\nshutdown_s = 1\n")
    variables = {"MUNIMENT_CONFIG": str(file), "MUNIMENT_PORT": "2", "MUNIMENT_HOST": "localhost"}
    loaded = load({"port": 3}, variables, None)
    s = loaded.settings
    assert (s.port, s.host, s.shutdown_s, s.log_level) == (3, "localhost", 1, "info")
    o = loaded.origins
    origins = (o["port"], o["host"], o["shutdown_s"], o["log_level"])
    assert origins == ("command line", "environment", str(file), "default")


def test_a_list_in_the_environment_is_separated_by_commas() -> None:
    loaded = load({}, {"MUNIMENT_ALLOWED_HOSTS": "a.example,b.example"}, None)
    assert loaded.settings.allowed_hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("flags", "variables", "says"),
    [
        ({"port": -1}, {}, r"port \(from command line\) cannot be -1"),
        ({}, {"MUNIMENT_PORT": "x"}, r"port \(from environment\) cannot be 'x'"),
        ({"log_level": "loud"}, {}, "'debug', 'info', 'warning' or 'error'"),
        ({"projections_memory": "much"}, {}, "projections_memory"),
        ({"prot": 1}, {}, r"prot \(from command line\) is not a setting. Did you mean port"),
        ({"zzz": 1}, {}, "muniment config show"),
        ({}, {"MUNIMENT_CONFIG": "/nowhere.toml"}, "cannot read /nowhere.toml"),
    ],
)
def test_a_wrong_setting_says_which_and_where(
    flags: dict[str, object], variables: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(flags, variables, None)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"log": "kafka"}, "kafka_bootstrap, as HOST:PORT"),
        ({"kafka_bootstrap": ("a:1",)}, "say --log kafka"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "kafka_sasl_mechanism needs"),
        ({"kafka_username": "u"}, "kafka_username needs kafka_security_protocol SASL"),
        ({"kafka_security_protocol": "SASL_SSL"}, "SASL_SSL needs kafka_sasl_mechanism"),
        ({"kafka_cert_file": "c.pem"}, "go together"),
    ],
)
def test_settings_of_kafka_that_do_not_fit_together(flags: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(flags, {}, None)


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("port = = 1")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load({}, {}, file)


def test_variables_that_are_no_settings_are_found() -> None:
    variables = {"MUNIMENT_PROT": "1", "MUNIMENT_PORT": "2", "MUNIMENT_CONFIG": "x", "PATH": "y"}
    assert unknown_variables(variables) == ["MUNIMENT_PROT"]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True), ("127.0.0.9", True), ("::1", True),
        ("0.0.0.0", False), ("::", False), ("example.com", False),
    ],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_every_setting_is_documented_and_can_be_given_to_serve() -> None:
    options = {
        *inspect.signature(serve).parameters,
        *(
            field.name
            for kind in (
                LogOptions,
                ProcessOptions,
                ProofOptions,
                SignInOptions,
                StorageOptions,
                TrailOptions,
            )
            for field in fields(kind)
        ),
    }
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert (name in options) is (name not in SECRETS | TABLES), name


def test_config_show_lists_all_with_origin(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUNIMENT_PORT", "8080")
    monkeypatch.setenv("MUNIMENT_PROT", "8081")
    data = json.loads(call("config", "show", "--json").out)
    assert data["settings"].keys() == Settings.model_fields.keys()
    port = data["settings"]["port"]
    assert (port["value"], port["origin"]) == (8080, "environment")
    assert "MUNIMENT_PROT" in data["ignored_environment"]
    text = call("config", "show").lines
    assert any(line.split() == ["port", "8080", "environment"] for line in text)
    assert any("Port to listen on" in line for line in text)


def test_serve_shows_the_settings_own_defaults(call: Call) -> None:
    shown = call("serve", "--help").out.replace("│", "")
    flat = " ".join(shown.split())
    for name in (
        "host",
        "port",
        "runs_partitions",
        "projections_memory",
        "shutdown_s",
        "log_level",
    ):
        assert f"[default: {getattr(Settings(), name)}]" in flat, name
