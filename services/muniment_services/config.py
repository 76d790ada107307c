"""Settings: one typed model, read once from flags, environment, a TOML file and defaults.

Order of precedence: command line, environment (`MUNIMENT_…`), file (`--config` or MUNIMENT_CONFIG),
default. `muniment config show` prints each with its origin.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ENVIRONMENT_PREFIX = "MUNIMENT_"
CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
MEMORY_PATTERN = r"^\d+(\.\d+)? ?[KMGT]i?B$"


class ConfigError(Exception):
    """A setting is wrong; the message says which, where it came from and what to do."""


class Settings(BaseModel):
    """All settings of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=5000, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    data_dir: Path = Field(
        default=Path("./muniment-data"),
        description="Folder of the log, the projections and the artifacts.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names that the server is known by, besides loopback ones; * allows any.",
    )
    allow_unauthenticated_network_access: bool = Field(
        default=False,
        description="Listen beyond loopback although nobody has to sign in. Anyone who reaches the "
        "port can then read and change everything.",
    )
    runs_partitions: int = Field(
        default=6,
        ge=1,
        le=256,
        description="Partitions of the runs topic; fixed when the log is created.",
    )
    projections_memory: str = Field(
        default="2GB",
        pattern=MEMORY_PATTERN,
        description="Memory that DuckDB may use for the projections, as 512MB or 4GB.",
    )
    shutdown_s: int = Field(
        default=4,
        ge=0,
        le=600,
        description="Seconds that requests under way get to finish on SIGTERM.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of what is logged: debug, info, warning or error."
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for each, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None
) -> Loaded:
    """Read all sources. flags: those given on the command line. Raises ConfigError."""
    file = config_file or _path(environment.get(CONFIG_VARIABLE))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    sources = (
        (str(file), _from_file(file)),
        ("environment", _from_environment(environment)),
        ("command line", dict(flags)),
    )
    for origin, given in sources:
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    try:
        return Loaded(Settings(**values), origins)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name not in Settings.model_fields:
            raise ConfigError(_unknown(name, origins[name])) from None
        wrong = f"{name} (from {origins[name]}) cannot be {first['input']!r}: {first['msg']}."
        raise ConfigError(wrong) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: most likely a slip of the pen."""
    known = {CONFIG_VARIABLE, *(f"{ENVIRONMENT_PREFIX}{n.upper()}" for n in Settings.model_fields)}
    return sorted(
        name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )


def _unknown(name: str, origin: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields)
    meant = f"Did you mean {close[0]}?" if close else "`muniment config show` lists all."
    return f"{name} (from {origin}) is not a setting. {meant}"


def refuse_open_network(settings: Settings) -> None:
    """Raise ConfigError for a listener beyond loopback that nobody has to sign in to."""
    if is_loopback(settings.host) or settings.allow_unauthenticated_network_access:
        return
    raise ConfigError(
        f"--host {settings.host} would let anyone on the network read and change everything, since "
        "nobody has to sign in. Listen on 127.0.0.1 behind a proxy that authenticates, or say "
        "--allow-unauthenticated-network-access."
    )


def is_loopback(host: str) -> bool:
    """Whether a listen address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environment.get(f"{ENVIRONMENT_PREFIX}{name.upper()}")
        if value is not None:
            given[name] = tuple(value.split(",")) if name == "allowed_hosts" else value
    return given


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ
