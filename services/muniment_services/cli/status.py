"""`muniment status`: is a server ready, how far is its start, is all well with it?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from muniment_services.cli.options import AsJson, Config, DataDir, Url, settings_of
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json

if TYPE_CHECKING:
    from muniment_services.cli.client import Client

READY_PATH, HEALTH_PATH = "/readyz", "/api/v1/health"
OK = 200
NOT_TOLD = (401, 403)
"""Whether all is well is told to those who hold server:read; readiness to everybody."""
UNTOLD = "the server tells it to a token with server:read; set MUNIMENT_TOKEN"
POLL_S = 0.5

app = App(name="status", help_epilogue="")


@app.default
def status(
    *,
    data_dir: DataDir = None,
    url: Url = None,
    wait: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Wait until it is ready, and show the progress."
        ),
    ] = False,
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Tell readiness and health; exit status 1 when the server is not ready or not well."""
    from muniment_services.cli.client import Client, running_server_of

    with mendable():
        server = Client(url) if url is not None else None
        if server is None:
            folder = settings_of(data_dir, config).data_dir
            server = running_server_of(folder)
            if server is None:
                raise CliError(f"no server has {folder}. Name one by --url.")
        ready, told = _awaited(server, json) if wait else server.probe(READY_PATH)
        healthy, health = server.probe(HEALTH_PATH) if ready == OK else (OK, {})
    if healthy in NOT_TOLD:
        untold = {"status": "unknown", "name": "health", "message": UNTOLD}
        healthy, health = OK, {"checks": [untold]}
    (_print_json if json else _print)(ready, told, health)
    if ready != OK or healthy != OK:
        raise CliError("it is not ready" if ready != OK else "it is not well; see above")


def _awaited(server: Client, as_json: bool) -> tuple[int, dict[str, Any]]:
    with Meter("catching up", as_json) as meter:
        while True:
            ready, told = server.probe(READY_PATH)
            if ready == OK:
                return ready, told
            meter.show(told.get("events", 0), told.get("total", 0))
            time.sleep(POLL_S)


def _print(ready: int, told: dict[str, Any], health: dict[str, Any]) -> None:
    if ready == OK:
        write(f"ready        {told.get('projection_backlog_events', 0):,} events to be written")
    elif "phase" in told:
        left = f", {told['left_s']} s left" if told.get("left_s") is not None else ""
        write(
            f"not ready    {told['phase']}: {told['events']:,} of {told['total']:,} events, "
            f"{told['events_per_s']:,} events/s{left}"
        )
    else:
        write(f"not ready    {told.get('message', '')}")
    for check in health.get("checks", ()):
        write(f"{check['status']:12} {check['name']}: {check.get('message') or 'well'}")


def _print_json(ready: int, told: dict[str, Any], health: dict[str, Any]) -> None:
    write_json({"ready": ready == OK, "readiness": told, "health": health})
