"""`muniment proof`: the keys that sign the heads of the log, and a witness of them."""

from __future__ import annotations

from cyclopts import App

from muniment_services.cli import help
from muniment_services.cli.options import AsJson, Config, DataDir, Url, settings_of
from muniment_services.cli.terminal import CliError, mendable, write, write_json
from muniment_services.cli.witness import witness

ROTATE_PATH = "/api/v1/proof/rotate"

app = App(name="proof", help_epilogue="", help_format="plaintext")
app.command(witness, help=help.PROOF_WITNESS, help_epilogue="")


@app.command(help=help.PROOF_ROTATE, help_epilogue="")
def rotate(
    *,
    data_dir: DataDir = None,
    url: Url = None,
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Bring a new set of signing keys into use."""
    from muniment_services.cli.client import Client, running_server_of

    with mendable():
        server = Client(url) if url else running_server_of(settings_of(data_dir, config).data_dir)
        if server is None:
            raise CliError("no server has this data folder; name one by --url")
        found = server.call("POST", ROTATE_PATH)
    if json:
        write_json(found)
    else:
        write(f"Heads are signed by set {found['number']} of keys from now on.")
