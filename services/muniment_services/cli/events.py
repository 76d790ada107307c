"""`muniment events`: the log, decoded, as people read logs."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from muniment_schemas.ids import Offset
from muniment_services.cli.options import (
    AsJson,
    Config,
    DataDir,
    LogOptions,
    settings_with_log,
)
from muniment_services.cli.terminal import flush, mendable, write, write_json
from muniment_services.clock import now_ms
from muniment_services.log.base import EventLog, Record, TopicPartition

if TYPE_CHECKING:
    from muniment_schemas.codec import Codec
    from muniment_services.cli import selection

READ_RECORDS = 500
READ_BYTES = 4 * 1024 * 1024
"""What is in memory of each partition while the history is merged."""

Several = Parameter(negative="")

app = App(name="events", help_epilogue="")


@app.default
def events(
    *,
    data_dir: DataDir = None,
    follow: Annotated[
        bool,
        Parameter(
            alias="-f",
            negative="",
            show_default=False,
            help="Go on as the log grows, until Ctrl-C.",
        ),
    ] = False,
    type: Annotated[
        list[str] | None, Several, Parameter(help="Only events of this type; can be repeated.")
    ] = None,
    aggregate: Annotated[
        list[str] | None,
        Several,
        Parameter(help="Only events of this thing: `run/ID`, `experiment/0`, or an id alone."),
    ] = None,
    topic: Annotated[
        list[str] | None, Several, Parameter(help="Only this topic: `catalog` or `runs`.")
    ] = None,
    actor: Annotated[
        list[str] | None,
        Several,
        Parameter(help="Only events by this principal (id or its start)."),
    ] = None,
    token: Annotated[
        list[str] | None,
        Several,
        Parameter(help="Only what this token did: its public id, or a provider's `jti`."),
    ] = None,
    since: Annotated[
        str | None,
        Parameter(
            help="From a UTC time (2026-01-31T10:30), so long ago (10m), or an offset (1200)."
        ),
    ] = None,
    limit: Annotated[
        int | None, Parameter(alias="-n", help="Stop after so many events. [default: no limit]")
    ] = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Print the chosen events. What each option does: `muniment events --help`."""
    from muniment_services import bootstrap
    from muniment_services.cli import selection
    from muniment_services.log import opening

    with mendable():
        settings = settings_with_log(data_dir, config, log_options)
        chosen = selection.Selection(
            types=selection.known_types(type or ()),
            aggregates=frozenset(aggregate or ()),
            actors=frozenset(actor or ()),
            tokens=frozenset(token or ()),
        )
        begin = selection.since(since, now_ms())
        log = opening.open_log(settings, read_only=True)
        printer = _Printer(bootstrap.codec(log), chosen, json, limit)
        asyncio.run(_print(log, printer, topic or [], begin, follow))


class _Printer:
    # Prints the chosen records until the limit is reached.
    def __init__(
        self, codec: Codec, chosen: selection.Selection, as_json: bool, limit: int | None
    ) -> None:
        self._codec = codec
        self._chosen = chosen
        self._as_json = as_json
        self._left = sys.maxsize if limit is None else limit
        self._coloured = not as_json and sys.stdout.isatty()

    @property
    def done(self) -> bool:
        return self._left <= 0

    def print(self, record: Record) -> None:
        from muniment_schemas.codec import CodecError
        from muniment_services.cli import event_lines

        if self.done or not self._chosen.may_take(record):
            return
        try:
            event = self._codec.decode(record.value)
        except CodecError as error:
            self._left -= 1
            if self._as_json:
                write_json(event_lines.unreadable_json(record, str(error)))
            else:
                write(event_lines.unreadable_line(record, str(error), self._coloured))
            return
        if not self._chosen.takes(event):
            return
        self._left -= 1
        if self._as_json:
            subject = self._codec.subject_of(record.value)
            schema = f"{subject.event_type}.v{subject.version}"
            write_json(event_lines.as_json(record, event, schema))
        else:
            write(event_lines.line(record, event, self._coloured))


async def _print(
    log: EventLog, printer: _Printer, topics: list[str], begin: selection.Since, follow: bool
) -> None:
    from muniment_services.cli.selection import chosen_partitions, start_of

    await log.start()
    ends = await log.end_offsets()
    starts = {at: start_of(log, at, ends[at], begin) for at in chosen_partitions(log, topics)}
    for record in _history(log, starts, ends):
        printer.print(record)
        if printer.done:
            break
    flush()
    if follow and not printer.done:
        await _follow(log, printer, {at: ends[at] for at in starts})
    await log.close()


async def _follow(log: EventLog, printer: _Printer, ends: Mapping[TopicPartition, Offset]) -> None:
    async for records in log.follow(ends):
        for record in records:
            printer.print(record)
        flush()
        if printer.done:
            return


def _history(
    log: EventLog, starts: Mapping[TopicPartition, Offset], ends: Mapping[TopicPartition, Offset]
) -> Iterator[Record]:
    parts = [_partition(log, at, start, ends[at]) for at, start in starts.items()]
    return heapq.merge(*parts, key=lambda record: (record.timestamp_ms, record.at))


def _partition(log: EventLog, at: TopicPartition, start: Offset, end: Offset) -> Iterator[Record]:
    while start < end:
        records = log.read(at, start, min(READ_RECORDS, end - start), READ_BYTES)
        yield from records
        start = Offset(records[-1].offset + 1)
