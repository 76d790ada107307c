"""The `muniment` command line: what it offers, and how errors are shown."""

from __future__ import annotations

import sys

from cyclopts import App

from muniment_services.cli.serve import serve
from muniment_services.config import ConfigError
from muniment_services.log.base import LogError

app = App(
    name="muniment",
    help="An MLflow tracking and registry server whose source of truth is an append-only log.",
    help_format="markdown",
)
app.command(serve)


def main() -> None:
    """Run the command line; errors that the user can mend are one line and exit status 1."""
    try:
        app()
    except (ConfigError, LogError) as error:
        print(f"muniment: {error}", file=sys.stderr)
        sys.exit(1)
