"""`muniment snapshot`: make, list and restore snapshots of the projections."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from muniment_services.cli import help
from muniment_services.cli.options import (
    AsJson,
    Config,
    DataDir,
    LogOptions,
    Url,
    settings_of,
    settings_with_log,
)
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json
from muniment_services.clock import now_ms

if TYPE_CHECKING:
    from muniment_services.cli.client import Client
    from muniment_services.config import Settings
    from muniment_services.snapshot import Manifest, Told

POLL_S = 0.2
ROUTE = "/api/v1/snapshots"
LATEST = "latest"

Snapshots = Annotated[
    str | None,
    Parameter(
        name="--snapshots",
        help="Where snapshots are kept. [default: snapshots in the data folder]",
    ),
]

app = App(name="snapshot", help_epilogue="", help_format="plaintext")


@app.command(help=help.SNAPSHOT_CREATE, help_epilogue="")
def create(
    *,
    data_dir: DataDir = None,
    url: Url = None,
    keep: Annotated[
        int, Parameter(help="Snapshots of this log that are kept, the newest ones. [default: 3]")
    ] = 3,
    snapshots: Snapshots = None,
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Make a snapshot, by the server that has the data folder, else in this process."""
    from muniment_services.cli.client import Client, server_of
    from muniment_services.instance import FolderInUse, held

    if keep < 1:
        raise CliError("--keep must be at least 1", 2)
    with mendable():
        if url is not None:
            _refuse_place(snapshots)
            _by_server(Client(url), keep, json)
            return
        settings = _settings(data_dir, config, snapshots)
        _require_projections(settings)
        try:
            with held(settings.data_dir):
                _by_us(settings, keep, json)
        except FolderInUse as error:
            server = server_of(settings.data_dir)
            if server is None:
                raise CliError(f"{error} Name its URL by --url to have it make one.") from None
            _refuse_place(snapshots)
            _by_server(server, keep, json)


def _refuse_place(snapshots: str | None) -> None:
    if snapshots is not None:
        raise CliError(
            "a running server makes the snapshot, and keeps it where its own setting `snapshots` "
            "says. Leave out --snapshots, or start the server with it.",
            2,
        )


def _settings(data_dir: Any, config: Any, snapshots: str | None) -> Settings:
    settings = settings_of(data_dir, config)
    return settings if snapshots is None else settings.model_copy(update={"snapshots": snapshots})


def _require_projections(settings: Settings) -> None:
    from muniment_services.projection_files import newest

    if newest(settings.data_dir) is None:
        raise CliError(
            f"there are no projections in {settings.data_dir}. Name the server's data folder by "
            "--data-dir, or make them by `muniment serve` or `muniment rebuild`."
        )


def _by_us(settings: Settings, keep: int, as_json: bool) -> None:
    from muniment_services import bootstrap
    from muniment_services.projection_files import settle
    from muniment_services.release import release
    from muniment_services.snapshot import in_events, open_shelf
    from muniment_services.snapshotter import Maker

    maker = Maker(
        folder=settings.data_dir,
        open_shelf=lambda: open_shelf(settings),
        version=release(),
        now_ms=now_ms,
        random=os.urandom,
    )
    store = bootstrap.projections_store(settle(settings.data_dir), settings)
    try:
        checkpoints = maker.copy(store)
    finally:
        store.close()
    with Meter("storing", as_json) as meter:

        def began(draft: Manifest) -> Told:
            meter.show(0, draft.events)
            return in_events(draft, meter.add)

        manifest = maker.store(checkpoints, keep, began)
    _done("made", manifest.name, manifest.events, meter, as_json)


def _by_server(server: Client, keep: int, as_json: bool) -> None:
    server.call("POST", f"{ROUTE}?keep={keep}")
    with Meter("storing", as_json) as meter:
        while True:
            status = server.call("GET", ROUTE)
            events = status["events"]
            if status["bytes"]:
                meter.show(events * status["bytes"] // status["total"], events)
            if status["phase"] in ("done", "failed"):
                break
            time.sleep(POLL_S)
    if status["phase"] == "failed":
        raise CliError(f"the server could not make a snapshot: {status['error']}")
    _done("made", status["name"], status["events"], meter, as_json)


@app.command(name="list", help=help.SNAPSHOT_LIST, help_epilogue="")
def list_snapshots(
    *,
    data_dir: DataDir = None,
    snapshots: Snapshots = None,
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Print the snapshots that are there, the newest first."""
    from muniment_projections.store import LAYOUT_VERSION
    from muniment_services.snapshot import open_shelf

    with mendable():
        shelf = open_shelf(_settings(data_dir, config, snapshots))
        found = shelf.manifests()
    for manifest in found:
        created = datetime.fromtimestamp(manifest.created_at_ms / 1000, UTC)
        usable = manifest.layout_version == LAYOUT_VERSION
        if json:
            write_json(
                {
                    "name": manifest.name,
                    "created_at_ms": manifest.created_at_ms,
                    "events": manifest.events,
                    "file_bytes": manifest.file_bytes,
                    "stored_bytes": manifest.stored_bytes,
                    "log_id": manifest.log_id,
                    "layout_version": manifest.layout_version,
                    "muniment_version": manifest.muniment_version,
                    "usable": usable,
                }
            )
            continue
        write(
            f"{manifest.name}  {created:%Y-%m-%d %H:%M:%S} UTC  {manifest.events:,} events  "
            f"{manifest.stored_bytes / 1e6:,.0f} MB  log {manifest.log_id[:8]}"
            f"{'' if usable else '  of another layout: this release cannot use it'}"
        )
    if not found and not json:
        write(f"there is no snapshot in {shelf.place}")


@app.command(help=help.SNAPSHOT_RESTORE, help_epilogue="")
def restore(
    name: Annotated[
        str, Parameter(help="Which snapshot; latest is the newest one that fits.")
    ] = LATEST,
    /,
    *,
    data_dir: DataDir = None,
    force: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Replace the projections that are there."),
    ] = False,
    snapshots: Snapshots = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Put a snapshot into a data folder that no server has."""
    from muniment_projections.store import LAYOUT_VERSION
    from muniment_services.instance import held
    from muniment_services.projection_files import newest
    from muniment_services.snapshot import in_events, open_shelf
    from muniment_services.snapshot_restore import chosen
    from muniment_services.snapshot_restore import restore as restored

    with mendable():
        settings = settings_with_log(data_dir, config, log_options)
        if snapshots is not None:
            settings = settings.model_copy(update={"snapshots": snapshots})
        with held(settings.data_dir):
            if newest(settings.data_dir) is not None and not force:
                raise CliError(
                    f"there are projections in {settings.data_dir}. They may be newer than the "
                    "snapshot; --force replaces them, nothing is lost either way."
                )
            shelf = open_shelf(settings)
            log_id = asyncio.run(_log_id(settings))
            manifest = chosen(shelf, None if name == LATEST else name, log_id, LAYOUT_VERSION)
            with Meter("restoring", json) as meter:
                meter.show(0, manifest.events)
                restored(settings.data_dir, shelf, manifest, in_events(manifest, meter.add))
    _done("restored", manifest.name, manifest.events, meter, json)


async def _log_id(settings: Settings) -> str:
    from muniment_services.log import opening

    log = opening.open_log(settings, read_only=True)
    await log.start()
    try:
        return log.log_id
    finally:
        await log.close()


def _done(what: str, name: str, events: int, meter: Meter, as_json: bool) -> None:
    if as_json:
        seconds = round(meter.seconds, 3)
        write_json({"phase": "done", "name": name, "events": events, "seconds": seconds})
        return
    write(f"{what} snapshot {name} of {events:,} events in {meter.seconds:.1f} s")
