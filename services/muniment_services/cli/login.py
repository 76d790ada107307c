"""`muniment login`, on a machine that has the server: handed to the package muniment-client.

The client is a distribution of its own with a command of its own (`muniment-client`), because two
distributions cannot both install a file named `muniment`. Where both are, this one offers it too.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter

from muniment_services.cli.terminal import CliError

CLIENT = "muniment_client.command"

Server = Annotated[
    str | None,
    Parameter(name=("--url", "--server"), help="URL of the server. [default: MLFLOW_TRACKING_URI]"),
]
Flag = Parameter(negative="", show_default=False)

app = App(name="login", help_epilogue="", help_format="plaintext")


@app.default
def login(
    server: Server = None,
    *,
    device: Annotated[bool, Flag, Parameter(help="Type a code on another device.")] = False,
    browser: Annotated[bool, Flag, Parameter(help="Use this machine's browser.")] = False,
    issuer: Annotated[str | None, Parameter(help="The identity provider, if several.")] = None,
    client_id: Annotated[str | None, Parameter(help="If the server does not name it.")] = None,
    scope: Annotated[str | None, Parameter(help="Instead of what the server asks for.")] = None,
) -> None:
    """Sign in, and store it for this user."""
    words = ["--device"] * device + ["--browser"] * browser
    for name, value in (("issuer", issuer), ("client-id", client_id), ("scope", scope)):
        words += [] if value is None else [f"--{name}={value}"]
    run_client("login", server, words)


def run_client(command: str, server: str | None, words: Sequence[str] = ()) -> None:
    """Run a command of muniment-client. Raises CliError when it is not installed, or failed."""
    try:
        client = importlib.import_module(CLIENT)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "muniment_client":
            raise
        raise CliError(
            f"{command} is done by the package muniment-client, which is not installed here: "
            "install it beside muniment (folder services/client)."
        ) from error
    status = client.main([command, *words, *([] if server is None else [server])], "muniment")
    if status:
        raise SystemExit(status)
