"""`muniment whoami`: see `muniment login`."""

from __future__ import annotations

from cyclopts import App

from muniment_services.cli.login import Server, run_client

app = App(name="whoami", help_epilogue="", help_format="plaintext")


@app.default
def whoami(server: Server = None) -> None:
    """Print who the server takes this user for."""
    run_client("whoami", server)
