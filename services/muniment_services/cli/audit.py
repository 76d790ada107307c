"""`muniment audit`: questions to the trail of a running server."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from muniment_services.cli import audit_help
from muniment_services.cli.asked import ServerOptions, printable, query_of, server_of
from muniment_services.cli.terminal import CliError, mendable, write
from muniment_services.cli.verify_pack import kept_head_at

EVENTS = "/api/v1/audit/events"
FACETS = "/api/v1/audit/facets"
STREAM = "/api/v1/audit/stream"
HASH = "/api/v1/audit/hash"
PACK = "/api/v1/audit/export"

PAGE_EVENTS = 1000
FILE_EVENTS = 100_000
LIMIT_DEFAULT = 100
RECONNECT_S = 1.0
FALLBACK_COLUMNS = (160, 24)

SUFFIXES: Mapping[str, str] = {"csv": "csv", "parquet": "parquet", "ocsf": "ocsf.jsonl"}

Query = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="What to look for; everything, if not given. Put it in quotes.",
    ),
]

app = App(name="audit", help_epilogue="", help_format="plaintext")
app.command("muniment_services.cli.audit_reports:reports", help=audit_help.REPORTS)
app.command("muniment_services.cli.audit_reports:report", help=audit_help.REPORT, version_flags=[])
app.command("muniment_services.cli.audit_reports:diff", help=audit_help.DIFF)


@app.command(help=audit_help.QUERY, help_epilogue="")
def query(
    text: Query = "",
    /,
    *,
    limit: Annotated[int, Parameter(help="Events at most.")] = LIMIT_DEFAULT,
    order: Annotated[
        Literal["desc", "asc"], Parameter(help="The newest first (desc), or the oldest (asc).")
    ] = "desc",
    format: Annotated[
        Literal["table", "jsonl", "csv", "parquet", "ocsf"] | None,
        Parameter(help="[default: table on a terminal, jsonl elsewhere]"),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Folder for csv, parquet or ocsf: a file per page. [default: stdout]"),
    ] = None,
    server: ServerOptions | None = None,
) -> None:
    """Print what matches, page by page."""
    chosen = format or ("table" if sys.stdout.isatty() else "jsonl")
    if chosen == "parquet" and out is None and limit > FILE_EVENTS:
        raise CliError(f"more than {FILE_EVENTS} events as Parquet are several files; say --out", 2)
    with mendable():
        if chosen in SUFFIXES:
            _export(text, limit, order, chosen, out, server)
            return
        shown = _Table() if chosen == "table" else None
        for event in _events(text, limit, order, server):
            write(json.dumps(event, ensure_ascii=False) if shown is None else shown.line(event))


@app.command(help=audit_help.FACETS, help_epilogue="")
def facets(
    text: Query = "",
    /,
    *,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", show_default=False, help="Print JSON.")
    ] = False,
    server: ServerOptions | None = None,
) -> None:
    """Print counts."""
    with mendable():
        found = server_of(server).call("GET", FACETS + query_of({"q": text or None}))["facets"]
    if as_json or not sys.stdout.isatty():
        write(json.dumps(found, ensure_ascii=False))
        return
    for name, values in found.items():
        write(name)
        for one in values:
            write(f"  {one['events']:>10}  {printable(one.get('name') or one['value'])}")


@app.command(help=audit_help.TAIL, help_epilogue="")
def tail(text: Query = "", /, *, server: ServerOptions | None = None) -> None:
    """Print events as they come."""
    shown = _Table() if sys.stdout.isatty() else None
    with mendable():
        for event in _tailed(text, server):
            write(json.dumps(event, ensure_ascii=False) if shown is None else shown.line(event))
            sys.stdout.flush()


@app.command(name="hash", help=audit_help.HASH, help_epilogue="")
def hashed(*, server: ServerOptions | None = None) -> None:
    """Print the hash of the value on standard input."""
    with mendable():
        value = sys.stdin.read()
        write(server_of(server).call("POST", HASH, {"value": value})["hash"])


@app.command(help=audit_help.EXPORT, help_epilogue="")
def export(
    *,
    out: Annotated[Path, Parameter(help="File to write.")],
    query: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="What to look for, as `query` has it."),
    ] = None,
    question: Annotated[
        str | None, Parameter(help="Name of a ready-made question, instead of a query.")
    ] = None,
    param: Annotated[
        list[str] | None,
        Parameter(negative="", help="A parameter of the question, as NAME=VALUE; can be repeated."),
    ] = None,
    complete: Annotated[
        bool,
        Parameter(
            negative="", help="Put all records in, from the first to the last event of each tree."
        ),
    ] = False,
    head: Annotated[
        list[Path] | None,
        Parameter(negative="", help="A signed head that you kept; can be repeated."),
    ] = None,
    server: ServerOptions | None = None,
) -> None:
    """Have a pack made, and keep it."""
    asked: dict[str, Any] = {"q": query, "question": question, "parameter": param}
    body = {name: value for name, value in asked.items() if value is not None}
    body["complete"] = complete
    with mendable():
        kept = [kept_head_at(path) for path in head or ()]
        body["earlier"] = [f"{one.at}/{one.size}" for one in kept]
        headers = server_of(server).save(PACK, body, out)
    write(f"{out}: {out.stat().st_size:,} bytes; manifest SHA-256 {headers['muniment-pack']}")
    write(f"muniment verify --pack {out}")


def _events(
    text: str, limit: int, order: str, server: ServerOptions | None
) -> Iterator[dict[str, Any]]:
    client, token = server_of(server), None
    while limit > 0:
        asked = {
            "q": text or None,
            "order": order,
            "max_results": min(limit, PAGE_EVENTS),
            "page_token": token,
        }
        page = client.call("GET", EVENTS + query_of(asked))
        found = page.get("events", [])
        yield from found
        limit -= len(found)
        token = page.get("next_page_token")
        if token is None:
            return


def _export(
    text: str, limit: int, order: str, format: str, out: Path | None, server: ServerOptions | None
) -> None:
    client, token, place = server_of(server), None, 0
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    while limit > 0:
        asked = {
            "q": text or None,
            "order": order,
            "format": format,
            "max_results": min(limit, FILE_EVENTS),
            "page_token": token,
        }
        content, headers = client.fetch(EVENTS + query_of(asked))
        if out is None:
            sys.stdout.buffer.write(content)
        else:
            (out / f"events-{place:05}.{SUFFIXES[format]}").write_bytes(content)
        limit, place = limit - FILE_EVENTS, place + 1
        token = headers.get("muniment-next-page-token")
        if token is None:
            return


def _tailed(text: str, server: ServerOptions | None) -> Iterator[dict[str, Any]]:
    client, last = server_of(server), None
    while True:
        for place, event in client.events(STREAM + query_of({"q": text or None}), last):
            last = place
            yield event
        time.sleep(RECONNECT_S)


class _Table:
    """Events as lines of a width."""

    def __init__(self) -> None:
        self._columns = shutil.get_terminal_size(FALLBACK_COLUMNS).columns
        write(_row("time", "actor", "action", "outcome", "resource")[: self._columns])

    def line(self, event: dict[str, Any]) -> str:
        """One event."""
        name = event.get("resource_name") or event.get("resource_id") or ""
        version = f"/{event['resource_version']}" if "resource_version" in event else ""
        kind = event.get("resource_kind", "")
        why = event.get("reason") or event.get("comment") or ""
        cells = _row(
            event["at"][:19].replace("T", " "),
            event.get("actor_name") or event["actor"],
            event["action"],
            event["outcome"],
            f"{kind} {name}{version}{'  ' if why else ''}{why}".strip(),
        )
        return printable(cells)[: self._columns]


def _row(at: str, actor: str, action: str, outcome: str, rest: str) -> str:
    return f"{at:<19}  {actor[:20]:<20}  {action:<20}  {outcome:<8}  {rest}"
