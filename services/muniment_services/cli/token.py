"""`muniment token`: personal and service tokens of a running server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from cyclopts import App, Parameter

from muniment_services.cli import help
from muniment_services.cli.asked import ServerOptions, server_of
from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import mendable, write, write_json

PATH = "/api/v1/tokens"
SERVICE_PATH = "/api/v1/service-tokens"

app = App(name="token", help_epilogue="", help_format="plaintext")


@app.command(help=help.TOKEN_CREATE, help_epilogue="")
def create(
    name: Annotated[str, Parameter(help="What it is called; with --service, the service's name.")],
    /,
    *,
    service: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Make it a token of a service principal."),
    ] = False,
    scope: Annotated[
        list[str] | None,
        Parameter(negative="", help="What it may do; can be repeated. [default: all that you may]"),
    ] = None,
    days: Annotated[
        int | None, Parameter(help="How long it lives, 1 to 366. [default: 90]")
    ] = None,
    description: Annotated[str | None, Parameter(help="What it is for. [default: none]")] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Print the token on standard output, and what to know of it on standard error."""
    wanted = {
        "name": name,
        "scopes": scope,
        "life_days": days,
        "description": description,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    with mendable():
        made = server_of(server).call("POST", SERVICE_PATH if service else PATH, body)
    if json:
        write_json(made)
        return
    write(made["secret"])
    print(
        f"{_line(made['token'])}\nIt is not shown again. Keep it where secrets are kept.",
        file=sys.stderr,
    )


@app.command(name="list", help=help.TOKEN_LIST, help_epilogue="")
def show(
    *,
    all: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Everybody's; needs access:read."),
    ] = False,
    ended: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Also revoked and expired ones."),
    ] = False,
    sessions: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also logins by browser.")
    ] = False,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Print one token a line."""
    asked = {"all": all, "ended": ended, "sessions": sessions}
    query = urlencode({key: "true" for key, wanted in asked.items() if wanted})
    with mendable():
        found = server_of(server).call("GET", f"{PATH}?{query}" if query else PATH)
    if json:
        write_json(found)
        return
    for one in found["tokens"]:
        write(_line(one))
    if not found["tokens"]:
        write("there are no tokens")


@app.command(help=help.TOKEN_REVOKE, help_epilogue="")
def revoke(
    id: Annotated[str, Parameter(help="Its id, or the token itself.")],
    /,
    *,
    reason: Annotated[
        str | None, Parameter(help="Why, for the trail. [default: revoked by request]")
    ] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Revoke one token; exit status 1 when there is none of that id."""
    body = {} if reason is None else {"reason": reason}
    with mendable():
        found = server_of(server).call("DELETE", f"{PATH}/{quote(_id_of(id), safe='')}", body)
    if json:
        write_json(found)
        return
    write(_line(found["token"]) if "token" in found else f"{_id_of(id)} is revoked")


def _id_of(text: str) -> str:
    # Whoever finds a token has its id in hand; the rest of it goes nowhere.
    parts = text.split("_")
    return parts[1] if text.startswith("mnt_") and len(parts) > 1 else text


def _line(one: dict[str, Any]) -> str:
    until = datetime.fromtimestamp(one["expires_at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    scopes = ", ".join(one["scopes"]) or "no limit of scope"
    state = "" if one["state"] == "live" else f" ({one['state']})"
    unknown = f"; not all groups count: {one['groups_unknown']}" if "groups_unknown" in one else ""
    return f"{one['id']} {one['kind']} {one['name']}: {scopes}, until {until} UTC{state}{unknown}"
