"""`muniment hold`: legal holds of a running server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from muniment_services.cli import keeping_help as help
from muniment_services.cli.asked import ServerOptions, printable, query_of, server_of
from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import CliError, mendable, write, write_json

HOLDS = "/api/v1/holds"
WRONG_CALL = 2

Name = Annotated[str, Parameter(help="Name of the hold.")]
Reason = Annotated[str, Parameter(help="Why; it stays in the log. No personal data.")]

app = App(name="hold", help_epilogue="", help_format="plaintext")


@app.command(help=help.HOLD_PLACE, help_epilogue="")
def place(
    name: Name,
    /,
    *,
    reason: Reason,
    model: Annotated[str | None, Parameter(help="Registered models, by name.")] = None,
    experiment: Annotated[str | None, Parameter(help="Experiments, by name.")] = None,
    principal: Annotated[str | None, Parameter(help="Who made it, by id.")] = None,
    begin: Annotated[str | None, Parameter(name="--from", help="Made at or after.")] = None,
    until: Annotated[str | None, Parameter(help="Made before.")] = None,
    workspace: Annotated[
        str | None, Parameter(help="Workspace that it counts in; * for all. [default: yours]")
    ] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Place a hold, and print it."""
    body = {
        "reason": reason,
        "workspace": workspace,
        "models": model,
        "experiments": experiment,
        "principal_id": principal,
        "from_ms": _ms("--from", begin),
        "until_ms": _ms("--until", until),
    }
    with mendable():
        made = server_of(server).call("PUT", _path(name), body)["hold"]
    if json:
        write_json(made)
        return
    write(_line(made))


@app.command(name="list", help=help.HOLD_LIST, help_epilogue="")
def list_all(*, server: ServerOptions | None = None, json: AsJson = False) -> None:
    """Print the holds in force."""
    with mendable():
        found = server_of(server).call("GET", HOLDS)
    if json:
        write_json(found)
        return
    for hold in found["holds"]:
        write(_line(hold))
    if not found["holds"]:
        write("no holds")


@app.command(help=help.HOLD_RELEASE, help_epilogue="")
def release(name: Name, /, *, reason: Reason, server: ServerOptions | None = None) -> None:
    """Release a hold."""
    with mendable():
        server_of(server).call("DELETE", f"{_path(name)}{query_of({'reason': reason})}")
    write(printable(f"released the hold {name}"))


def _path(name: str) -> str:
    return f"{HOLDS}/{quote(name, safe='')}"


def _ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CliError(
            f"{option} {text!r} is no UTC date or time (2026-01-31, 2026-01-31T10:30).", WRONG_CALL
        ) from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def _line(hold: dict[str, Any]) -> str:
    parts = [f"models {hold['models']}"] if "models" in hold else []
    parts += [f"experiments {hold['experiments']}"] if "experiments" in hold else []
    parts += [] if parts else ["all models and experiments"]
    parts += [f"made by {hold['principal_id']}"] if "principal_id" in hold else []
    for word, key in (("from", "from_ms"), ("until", "until_ms")):
        if key in hold:
            parts.append(f"{word} {datetime.fromtimestamp(hold[key] / 1000, UTC):%Y-%m-%dT%H:%M}")
    return printable(f"{hold['name']}: {', '.join(parts)} in {hold['workspace']}; {hold['reason']}")
