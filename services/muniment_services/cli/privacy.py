"""`muniment privacy`: what is kept of a person, and having it forgotten, on a running server."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from muniment_services.cli import keeping_help as help
from muniment_services.cli.asked import ServerOptions, printable, server_of
from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import CliError, mendable, write, write_json

PRINCIPALS = "/api/v1/privacy/principals"
WRONG_CALL = 2

app = App(name="privacy", help_epilogue="", help_format="plaintext")


@app.command(help=help.PRIVACY_SHOW, help_epilogue="")
def show(
    principal: Annotated[str | None, Parameter(help="Id of the principal.")] = None,
    /,
    *,
    issuer: Annotated[str | None, Parameter(help="Instead: its identity provider.")] = None,
    subject: Annotated[str | None, Parameter(help="Its subject there.")] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Print what is kept."""
    from muniment_auth.principal import principal_id

    if principal is None:
        if issuer is None or subject is None:
            raise CliError("name the principal by its id, or by --issuer and --subject", WRONG_CALL)
        principal = principal_id(issuer, subject)
    with mendable():
        found = server_of(server).call("GET", f"{PRINCIPALS}/{quote(principal, safe='')}")
    _print(found, json)


@app.command(help=help.PRIVACY_ERASE, help_epilogue="")
def erase(
    principal: Annotated[str, Parameter(help="Id of the principal.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; it stays in the log. No personal data.")],
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Erase, and print what is kept now."""
    path = f"{PRINCIPALS}/{quote(principal, safe='')}/erasure"
    with mendable():
        found = server_of(server).call("POST", path, {"reason": reason})
    _print(found, json)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(found)
        return
    who = found["identity"]
    name = "erased" if who is None else f"{who['name']} ({who['subject']} at {who['issuer']})"
    write(printable(f"{found['principal_id']}  {found['kind']}  {name}"))
    write(
        f"made {found['experiments']} experiments, {found['models']} models, "
        f"{found['versions']} versions; {len(found['credentials'])} tokens and sessions in force; "
        f"{len(found['grants'])} grants"
    )
    for grant in found["grants"]:
        write(printable(f"grant {grant}: `muniment access revoke {grant}` takes it back"))
    for hold in found["holds"]:
        write(printable(f"under the legal hold {hold}"))
