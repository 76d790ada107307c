"""`muniment audit reports`, `report` and `diff`: ready-made questions to a running server."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from muniment_services.cli.asked import ServerOptions, printable, query_of, server_of
from muniment_services.cli.terminal import mendable, write

FALLBACK_COLUMNS = (160, 24)
REPORTS = "/api/v1/audit/reports"
DIFF = "/api/v1/audit/diff"
CELL_CHARACTERS_MAX = 40


def reports(
    *,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", show_default=False, help="Print JSON.")
    ] = False,
    server: ServerOptions | None = None,
) -> None:
    """Print the catalogue."""
    with mendable():
        found = server_of(server).call("GET", REPORTS)["reports"]
        if as_json:
            write(json.dumps(found, ensure_ascii=False))
            return
        for one in found:
            write(f"{one['name']}  {one['question']}")
            for parameter in one["parameters"]:
                write(f"    --{parameter['name']:<10} {_described(one, parameter)}")
            if one["notes"]:
                write(f"    {one['notes']}")
            write("")


def _described(question: Mapping[str, Any], parameter: Mapping[str, Any]) -> str:
    told = str(parameter["meaning"])
    if parameter["required"]:
        return f"{told} (needed)"
    if parameter["name"] in question["one_of"]:
        return f"{told} (one of {', '.join(question['one_of'])} is needed)"
    return f"{told} [default: {parameter['default']}]" if parameter["default"] else told


def report(
    name: Annotated[str, Parameter(help="Which one; `muniment audit reports` lists them.")],
    /,
    *,
    format: Annotated[
        Literal["text", "json", "csv"] | None,
        Parameter(help="[default: text on a terminal, json elsewhere]"),
    ] = None,
    server: ServerOptions | None = None,
    **parameters: Annotated[str, Parameter(help="What the report takes, as --model fraud.")],
) -> None:
    """Print one answer."""
    chosen = format or ("text" if sys.stdout.isatty() else "json")
    path = f"{REPORTS}/{quote(name, safe='')}"
    with mendable():
        client = server_of(server)
        if chosen == "csv":
            content, _ = client.fetch(path + query_of({**parameters, "format": "csv"}))
            sys.stdout.buffer.write(content)
            return
        found = client.call("GET", path + query_of(dict(parameters)))
        if chosen == "json":
            write(json.dumps(found, ensure_ascii=False))
            return
        _print(found)


def diff(
    *,
    begin: Annotated[str, Parameter(name="--from", help="The earlier moment.")],
    end: Annotated[
        str, Parameter(name="--to", help="The later moment.", show_default=False)
    ] = "now",
    model: Annotated[
        str | None, Parameter(help="Of models of this name, or pattern, only. [default: all]")
    ] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", show_default=False, help="Print JSON.")
    ] = False,
    server: ServerOptions | None = None,
) -> None:
    """Print what changed."""
    with mendable():
        asked = query_of({"from": begin, "to": end, "model": model})
        found = server_of(server).call("GET", DIFF + asked)
        if as_json or not sys.stdout.isatty():
            write(json.dumps(found, ensure_ascii=False))
            return
        write(f"From {found['from']['as_of']} to {found['to']['as_of']}")
        for one in found["changes"]:
            version = f"/{one['version']}" if "version" in one else ""
            change = f"{one.get('before', '-')} => {one.get('after', '-')}"
            told = f"{one['what']:<8} {one['of']}{version}: {change}  ({one['event']})"
            write(printable(told))
        if found["truncated"]:
            write("There is more than this; narrow it by time or model.")


def _print(found: Mapping[str, Any]) -> None:
    write(found["question"])
    write(printable(found["verdict"]))
    for finding in found["findings"]:
        write(f"- {printable(finding)}")
    names, rows = found["names"], found["rows"]
    shown = [
        [column["name"], *(_cell(row.get(column["name"]), column, names) for row in rows)]
        for column in found["columns"]
    ]
    filled = [column for column in shown if any(column[1:])]
    if filled:
        write("")
    widths = [max(map(len, column)) for column in filled]
    width = shutil.get_terminal_size(FALLBACK_COLUMNS).columns
    for line in zip(*filled, strict=True):
        cells = (cell.ljust(size) for cell, size in zip(line, widths, strict=True))
        write("  ".join(cells).rstrip()[:width])
    if found["truncated"]:
        write("There is more than this; narrow it by time, model or principal.")
    if found["notes"]:
        write(found["notes"])
    rests_on = len(found["evidence"])
    write(f"Events that it rests on: {rests_on}; --format json names them.")


def _cell(value: Any, column: Mapping[str, str], names: Mapping[str, str]) -> str:
    if value is None:
        return ""
    text = str(value)
    if column["kind"] == "principal":
        text = ", ".join(names.get(one, one) for one in text.split(", "))
    if column["kind"] == "time":
        text = text[:19].replace("T", " ")
    text = printable(text)
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[: CELL_CHARACTERS_MAX - 1]}…"
