"""Options that several commands have, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from muniment_services.cli.terminal import CliError

if TYPE_CHECKING:
    from muniment_services.config import Settings

DataDir = Annotated[
    Path | None,
    Parameter(help="Folder of the log and all that is made of it. [default: ./muniment-data]"),
]
Config = Annotated[Path | None, Parameter(help="TOML file with settings. [default: none]")]
AsJson = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print JSON instead of text."),
]

LOG_FILE = "log.sqlite"


def settings_of(data_dir: Path | None, config: Path | None) -> Settings:
    """The settings as the environment, a file and these options give them. Raises ConfigError."""
    from muniment_services.config import environment, load

    flags = {} if data_dir is None else {"data_dir": data_dir}
    return load(flags, environment(), config).settings


def settings_with_log(data_dir: Path | None, config: Path | None) -> Settings:
    """The settings, of a data folder in which there is a log. Raises ConfigError or CliError."""
    settings = settings_of(data_dir, config)
    if not (settings.data_dir / LOG_FILE).exists():
        raise CliError(
            f"there is no log in {settings.data_dir}. Name the server's data folder by --data-dir, "
            "or begin one by `muniment serve`."
        )
    return settings
