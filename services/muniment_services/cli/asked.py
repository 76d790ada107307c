"""Commands that ask a running server: which one, as whom, and what of its answers may be shown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from cyclopts import Parameter

from muniment_services.cli.options import settings_of
from muniment_services.cli.terminal import CliError

if TYPE_CHECKING:
    from muniment_services.cli.client import Client


SERVER_VARIABLES = ("MUNIMENT_SERVER", "MLFLOW_TRACKING_URI")
"""Where the environment may name a server; the first that does counts, as in muniment-client."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which server to talk to, and as whom."""

    url: Annotated[
        str | None,
        Parameter(
            help="Server to ask. [default: MUNIMENT_SERVER, else MLFLOW_TRACKING_URI, else the one "
            "that has the data folder]"
        ),
    ] = None
    token: Annotated[
        str | None,
        Parameter(
            help="Token to show; better in the environment, where it is not listed. "
            "[default: MUNIMENT_TOKEN, MLFLOW_TRACKING_TOKEN]"
        ),
    ] = None
    data_dir: Annotated[
        Path | None, Parameter(help="Data folder of the server. [default: ./muniment-data]")
    ] = None
    config: Annotated[Path | None, Parameter(help="TOML file with settings. [default: none]")] = (
        None
    )


def server_of(options: ServerOptions | None) -> Client:
    """The server that the options name, called with the token that they or the environment give.

    A data folder that is named means its server, whatever the environment says. Raises CliError
    when no server has the data folder.
    """
    from muniment_services.cli.client import Client, running_server_of

    chosen = options or ServerOptions()
    url = chosen.url
    if url is None and chosen.data_dir is None:
        url = _url_of(os.environ)
    if url is not None:
        return Client(url, chosen.token)
    data_dir = settings_of(chosen.data_dir, chosen.config).data_dir
    found = running_server_of(data_dir, chosen.token)
    if found is None:
        raise CliError(
            f"no server has {data_dir}. Name one by --url or {SERVER_VARIABLES[0]}, or start it."
        )
    return found


def _url_of(environment: Mapping[str, str]) -> str | None:
    """The server that the environment names. MLflow's variable may name files or a database too."""
    found = (environment.get(name, "") for name in SERVER_VARIABLES)
    return next((url for url in found if url.startswith(("http://", "https://"))), None)


def query_of(values: dict[str, Any], **more: Any) -> str:
    """The query string of what was given, with its question mark; "" when nothing was."""
    given = {name: value for name, value in (values | more).items() if value not in (None, [])}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def printable(text: str) -> str:
    """A text that cannot move the cursor of whoever reads it."""
    return text if text.isprintable() else json.dumps(text)[1:-1].replace("\x7f", "\\u007f")
