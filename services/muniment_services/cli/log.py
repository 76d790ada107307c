"""`muniment log copy`: a log carried from one place to another, and compared there."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from muniment_services.cli import help
from muniment_services.cli.options import LOG_FILE, AsJson, Config, settings_of
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json

if TYPE_CHECKING:
    from muniment_services.config import Settings
    from muniment_services.log.base import EventLog

USAGE_STATUS = 2
EMBEDDED, KAFKA = "embedded", "kafka"
_KAFKA_ADDRESS = re.compile(r"(?P<brokers>[^/]+)(?:/(?P<prefix>[^/]+))?")

app = App(name="log", help_epilogue="", help_format="plaintext")


@app.command(help=help.LOG_COPY, help_epilogue="")
def copy(
    *,
    source: Annotated[
        str, Parameter(name="--from", help="embedded:FOLDER or kafka:HOST:PORT,…[/PREFIX]")
    ],
    target: Annotated[
        str, Parameter(name="--to", help="embedded:FOLDER or kafka:HOST:PORT,…[/PREFIX]")
    ],
    json: AsJson = False,
    config: Config = None,
) -> None:
    """Copy, then read both back and compare; exit status 1 when anything is not the same."""
    from muniment_services.instance import held

    with mendable(), ExitStack() as folders:
        for address in (source, target):
            if (folder := _folder(address)) is not None:
                folders.enter_context(held(folder))
        asyncio.run(_copy(source, target, settings_of(None, config), json))


def _folder(address: str) -> Path | None:
    kind, _, place = address.partition(":")
    return Path(place) if kind == EMBEDDED and place else None


async def _copy(source: str, target: str, settings: Settings, as_json: bool) -> None:
    from muniment_services.log_copy import LogCopy

    read = _open(source, settings, read_only=True)
    await read.start()
    settings = settings.model_copy(update={"runs_partitions": read.partitions["runs"]})
    written = _open(target, settings, read_only=False)
    await written.start()
    try:
        copy = LogCopy(read, written)
        with Meter("copying", as_json) as meter:
            meter.show(0, await copy.missing())
            await copy.run(meter.add)
        with Meter("comparing", as_json) as compared:
            compared.show(0, sum((await read.end_offsets()).values()))
            found = await copy.verify(compared.add)
    finally:
        await written.close()
        await read.close()
    if as_json:
        write_json({"copied": meter.events, "seconds": round(meter.seconds, 3), **asdict(found)})
        return
    write(
        f"copied {meter.events:,} records in {meter.seconds:.1f} s; all {found.records:,} records "
        f"in {found.partitions} partitions are the same in both (SHA-256 {found.sha256})"
    )
    write(
        "Start servers on the new log now. Artifacts and keys were not touched: keep the data "
        "folder, or carry artifacts/ and keys/ along. Remove projections.duckdb there: it is of "
        "the old log, and is built anew."
    )


def _open(address: str, settings: Settings, read_only: bool) -> EventLog:
    from muniment_services.config import ConfigError, Settings
    from muniment_services.log import opening

    kind, _, place = address.partition(":")
    matched = _KAFKA_ADDRESS.fullmatch(place)
    if kind == EMBEDDED and place:
        if read_only and not (Path(place) / LOG_FILE).exists():
            raise CliError(f"there is no log in {place}")
        return opening.embedded_log(Path(place), settings, read_only)
    if kind == KAFKA and matched is not None:
        brokers = tuple(matched["brokers"].split(","))
        prefix = matched["prefix"] or settings.kafka_prefix
        try:
            Settings(log="kafka", kafka_bootstrap=brokers, kafka_prefix=prefix)
        except ValueError as error:
            raise ConfigError(f"{address} is not HOST:PORT,…[/PREFIX]") from error
        return opening.kafka_log(settings, brokers, prefix, read_only)
    raise CliError(
        f"{address!r} is neither embedded:FOLDER nor kafka:HOST:PORT,…[/PREFIX]", USAGE_STATUS
    )
