"""`muniment logout`: see `muniment login`."""

from __future__ import annotations

from cyclopts import App

from muniment_services.cli.login import Server, run_client

app = App(name="logout", help_epilogue="", help_format="plaintext")


@app.default
def logout(server: Server = None) -> None:
    """Forget the sign-in, here and at the identity provider."""
    run_client("logout", server)
