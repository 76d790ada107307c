"""`muniment sql`: statements over the published tables of a running server, and the tables."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from muniment_services.cli.asked import ServerOptions, printable, server_of
from muniment_services.cli.terminal import CliError, mendable, write

if TYPE_CHECKING:
    from muniment_services.cli.client import Client

STATEMENT = "/api/v1/audit/sql"
TABLES = "/api/v1/audit/tables"
ARCHIVE = "/api/v1/audit/tables.tar"

STANDARD_INPUT = "-"
CELL_CHARACTERS_MAX = 80
"""Of a cell of a table on a terminal; the other formats have all of it."""

_MEMBER = re.compile(r"tables\.json|[a-z_]+/part-\d+\.parquet")
"""What there is in an archive."""

app = App(name="sql", help_epilogue="", help_format="plaintext")


@app.default
def sql(
    statement: Annotated[
        str | None,
        Parameter(allow_leading_hyphen=True, help="One SELECT, in quotes; -: from standard input."),
    ] = None,
    /,
    *,
    tables: Annotated[
        bool, Parameter(negative="", show_default=False, help="Tell which tables there are.")
    ] = False,
    export: Annotated[
        Path | None, Parameter(help="New folder for all tables as Parquet files.")
    ] = None,
    format: Annotated[
        Literal["table", "json", "csv", "parquet"] | None,
        Parameter(help="[default: table on a terminal, csv elsewhere]"),
    ] = None,
    out: Annotated[Path | None, Parameter(help="File for the answer. [default: stdout]")] = None,
    server: ServerOptions | None = None,
) -> None:
    """Print the answer, or what there is to ask, or export it."""
    if sum((statement is not None, tables, export is not None)) != 1:
        raise CliError("say one SELECT, or --tables, or --export FOLDER; see `--help`", 2)
    with mendable():
        if tables:
            _describe(server_of(server), as_json=format == "json")
        elif export is not None:
            _export(server_of(server), export)
        else:
            assert statement is not None
            text = sys.stdin.read() if statement == STANDARD_INPUT else statement
            _answer(server_of(server), text, format, out)


def _answer(client: Client, statement: str, format: str | None, out: Path | None) -> None:
    on_terminal = out is None and sys.stdout.isatty()
    chosen = format or ("table" if on_terminal else "csv")
    asked = {"statement": statement, "format": "json" if chosen == "table" else chosen}
    content, _ = client.fetch(STATEMENT, asked)
    if chosen == "table":
        found = json.loads(content)
        content = "".join(f"{line}\n" for line in _lines(found["columns"], found["rows"])).encode()
    if out is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    else:
        out.write_bytes(content)


def _lines(columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    cells = [[column["name"] for column in columns], *([_cell(v) for v in row] for row in rows)]
    shown = [[printable(cell)[:CELL_CHARACTERS_MAX] for cell in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _describe(client: Client, as_json: bool) -> None:
    found = client.call("GET", TABLES)["tables"]
    if as_json:
        write(json.dumps(found, ensure_ascii=False))
        return
    for table in found:
        write(f"{table['name']}: {table['meaning']}")
        for column in table["columns"]:
            write(f"  {column['name']:<18} {column['type']:<24} {column['meaning']}")
        write("")


def _export(client: Client, folder: Path) -> None:
    """The folder is there when it is complete, and not before."""
    if folder.exists():
        raise CliError(f"{folder} is there already; name a new folder", 2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with (
            client.opened(ARCHIVE) as answer,
            tarfile.open(fileobj=answer, mode="r|") as archive,
        ):
            for member in archive:
                _unpack(archive, member, unfinished)
        unfinished.rename(folder)
    except (tarfile.TarError, http.client.HTTPException) as error:
        raise CliError(f"the server broke off, and nothing was written: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    content = archive.extractfile(member)
    if content is None or _MEMBER.fullmatch(member.name) is None:
        raise CliError(f"the server sent {printable(member.name)}, which is no table")
    path = folder / member.name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
