"""`muniment rebuild`: the projections built anew from the log, by us or by the running server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from muniment_services.cli.options import (
    AsJson,
    Config,
    DataDir,
    LogOptions,
    settings_with_log,
)
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json

if TYPE_CHECKING:
    from muniment_services.cli.client import Client
    from muniment_services.config import Settings

POLL_S = 0.2

app = App(name="rebuild", help_epilogue="")


@app.default
def rebuild(
    *,
    data_dir: DataDir = None,
    url: Annotated[
        str | None,
        Parameter(help="Server to ask. [default: the one that has the data folder, if any]"),
    ] = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Rebuild by the server that has the data folder, else in this process."""
    from muniment_services.cli.client import Client, server_of
    from muniment_services.instance import FolderInUse

    with mendable():
        if url is not None:
            by_server(Client(url), json)
            return
        settings = settings_with_log(data_dir, config, log_options)
        try:
            by_us(settings, json)
        except FolderInUse as error:
            server = server_of(settings.data_dir)
            if server is None:
                raise CliError(f"{error} Name its URL by --url to have it rebuild.") from None
            by_server(server, json)


def by_us(settings: Settings, as_json: bool) -> None:
    """Rebuild in this process. Raises FolderInUse when a server has the data folder."""
    from muniment_services.instance import held

    with held(settings.data_dir):
        asyncio.run(_by_us(settings, as_json))


async def _by_us(settings: Settings, as_json: bool) -> None:
    from muniment_services import bootstrap
    from muniment_services.fold import FOLDED_TOPICS
    from muniment_services.log import opening
    from muniment_services.projection_files import settle
    from muniment_services.rebuild import build

    log = opening.open_log(settings, read_only=True)
    await log.start()
    try:
        ends = await log.end_offsets()
        with Meter("rebuilding", as_json) as meter:
            meter.show(0, sum(end for at, end in ends.items() if at.topic in FOLDED_TOPICS))
            await asyncio.to_thread(
                build,
                log,
                bootstrap.codec(log),
                settle(settings.data_dir),
                lambda path: bootstrap.projections_store(path, settings),
                ends,
                meter.add,
            )
    finally:
        await log.close()
    _done(meter, as_json)


def by_server(server: Client, as_json: bool) -> None:
    """Have a server rebuild, and show how far it is. Raises CliError when it cannot."""
    server.call("POST", "/api/v1/projections/rebuild")
    with Meter("rebuilding", as_json) as meter:
        while True:
            status = server.call("GET", "/api/v1/projections/rebuild")
            meter.show(status["events"], status["total"])
            if status["phase"] in ("done", "failed"):
                break
            time.sleep(POLL_S)
    if status["phase"] == "failed":
        raise CliError(f"the server could not rebuild: {status['error']}. The old ones serve on.")
    _done(meter, as_json)


def _done(meter: Meter, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "phase": "done",
                "events": meter.events,
                "seconds": round(meter.seconds, 3),
                "events_per_s": round(meter.per_s),
            }
        )
        return
    write(
        f"rebuilt the projections from {meter.events:,} events in {meter.seconds:.1f} s "
        f"({meter.per_s:,.0f} events/s)"
    )
