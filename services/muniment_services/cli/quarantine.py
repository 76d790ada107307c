"""`muniment quarantine`: records that could not be folded, and taking them up after the fix."""

from __future__ import annotations

import json as json_text
from typing import TYPE_CHECKING, Any

from cyclopts import App

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
from muniment_services.cli.terminal import CliError, mendable, write, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from muniment_services.cli.client import Client

PATH = "/api/v1/quarantine"
COLUMNS = (
    "topic", "partition", "offset", "kind", "id", "event_type", "reason", "held",
)  # fmt: skip

app = App(name="quarantine", help_epilogue="", help_format="plaintext")


@app.command(name="list", help=help.QUARANTINE_LIST, help_epilogue="")
def show(
    *, data_dir: DataDir = None, url: Url = None, json: AsJson = False, config: Config = None
) -> None:
    """Print every history that stands still; exit status 0 whether or not there are any."""
    with mendable():
        entries = _entries(_server(data_dir, url, config), data_dir, config)
    _print(entries, json)


@app.command(help=help.QUARANTINE_REPLAY, help_epilogue="")
def replay(
    *,
    data_dir: DataDir = None,
    url: Url = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Fold the log anew with this release; exit status 1 when something is still in quarantine."""
    from muniment_services.cli.rebuild import by_server, by_us

    with mendable():
        server = _server(data_dir, url, config)
        before = _entries(server, data_dir, config)
        if not before:
            _print(before, json)
            return
        if server is not None:
            by_server(server, json)
        else:
            by_us(settings_with_log(data_dir, config, log_options), json)
        left = _entries(server, data_dir, config)
    _print(left, json)
    if left:
        raise CliError(f"{len(left)} of {len(before)} are still in quarantine; see above.")


def _server(data_dir: Path | None, url: str | None, config: Path | None) -> Client | None:
    from muniment_services.cli.client import Client, running_server_of

    if url is not None:
        return Client(url)
    return running_server_of(settings_of(data_dir, config).data_dir)


def _entries(
    server: Client | None, data_dir: Path | None, config: Path | None
) -> list[dict[str, Any]]:
    if server is not None:
        found: list[dict[str, Any]] = server.call("GET", PATH)["quarantine"]
        return found
    return _from_file(settings_of(data_dir, config).data_dir)


def _from_file(data_dir: Path) -> list[dict[str, Any]]:
    import duckdb

    from muniment_projections.quarantine.apply import ALL
    from muniment_services.projection_files import newest

    path = newest(data_dir)
    if path is None:
        raise CliError(
            f"there are no projections in {data_dir}, and no server has it. Name a server by --url."
        )
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in connection.execute(ALL).fetchall()]
    first = {(row["kind"], row["id"]): row | {"held_records": 0} for row in rows if not row["held"]}
    for row in rows:
        first[row["kind"], row["id"]]["held_records"] += row["held"]
    for entry in first.values():
        del entry["held"]
    return list(first.values())


def _print(entries: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        write_json({"quarantine": entries})
        return
    for entry in entries:
        place = f"{entry['topic']}/{entry['partition']}@{entry['offset']}"
        write(
            f"{entry['kind']}/{entry['id']}: {entry['event_type'] or 'record'} {place} could not "
            f"be folded: {json_text.dumps(entry['reason'], ensure_ascii=False)}; "
            f"{entry['held_records']} later records wait"
        )
    if not entries:
        write("nothing is in quarantine")
