"""The process in which one statement of an analyst is answered. Not for people.

`python -m muniment_services.sql.process` gets an Order as JSON on standard input and prints a
Report as one line, then the answer's bytes. It has no environment, no files but the tables', no
network, room and time for itself only; whoever ordered it kills it when it takes too long.

Two walls stand between a statement and the rest of the machine: what may be stated at all
(`statement.py`), and a database that is told, before it sees the statement, to open nothing but the
tables' folder and never to listen to another setting. The operating system's limits stand behind.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa

from muniment_services.sql import answer
from muniment_services.sql.answer import FORMATS
from muniment_services.sql.statement import Refused, check

MEMORY_BEYOND_BYTES = 4 * 1024**3
"""Address space of interpreter and libraries besides the database's own memory."""

NICENESS = 10
"""The server that waits for us comes first."""

SECONDS_BEYOND = 5
"""After so much more than its time the process ends itself, should nobody be left to kill it."""

ERROR_CHARACTERS_MAX = 4000

CONFIGURATION = (
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET allow_persistent_secrets = false",
    "SET max_temp_directory_size = '0B'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
"""In this order: the last but one closes the files, the last one this list."""


class Order(msgspec.Struct, frozen=True):
    """What is to be answered. folder: has a folder of Parquet files for each of the tables that it
    may mean, of all `tables` that there are.

    format: of `answer.FORMATS`. time_s, memory_bytes, rows_max, bytes_max: all that it may take.
    """

    statement: str
    format: str
    folder: str
    tables: tuple[str, ...]
    time_s: int
    memory_bytes: int
    rows_max: int
    bytes_max: int


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it went. error: why there is no answer, in words for whoever asked."""

    rows: int = 0
    error: str | None = None


def database(order: Order) -> duckdb.DuckDBPyConnection:
    """A database of the tables and of nothing else, closed to the rest of the machine."""
    connection = duckdb.connect(
        ":memory:",
        config={"threads": 1, "memory_limit": f"{order.memory_bytes}B", "temp_directory": ""},
    )
    for place in sorted(Path(order.folder).iterdir()):
        files = _quoted(str(place / "*.parquet"))
        connection.execute(f'CREATE VIEW "{place.name}" AS FROM read_parquet({files})')
    connection.execute(f"SET allowed_directories = [{_quoted(order.folder)}]")
    for setting in CONFIGURATION:
        connection.execute(setting)
    return connection


def found(connection: duckdb.DuckDBPyConnection, order: Order) -> pa.Table:
    """The rows of a statement that may be stated. Raises Refused."""
    check(connection, order.statement, order.tables)
    batches, rows, size = [], 0, 0
    try:
        relation = connection.sql(order.statement)
        assert relation is not None, "a SELECT has rows"
        reader = relation.to_arrow_reader(answer.BATCH_ROWS)
        for batch in reader:
            batches.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > order.rows_max:
                raise Refused(
                    f"The answer has more than {order.rows_max} rows: add a LIMIT, or count."
                )
            if size > order.bytes_max:
                raise Refused(_too_large(order))
    except duckdb.OutOfMemoryException:
        raise Refused(
            f"The statement needs more than {order.memory_bytes // 1024**2} MiB of memory: "
            "ask for less at a time."
        ) from None
    except duckdb.Error as error:
        raise Refused(str(error)) from None
    return pa.Table.from_batches(batches, reader.schema)


def answered(order: Order) -> tuple[Report, bytes]:
    """The answer to an order, or why there is none."""
    try:
        rows = found(database(order), order)
        body = FORMATS[order.format](rows)
        if len(body) > order.bytes_max:
            raise Refused(_too_large(order))
    except Refused as refused:
        return Report(error=_cut(str(refused))), b""
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return Report(error=_cut(f"The answer cannot be shown as {order.format}: {error}")), b""
    return Report(rows=len(rows)), body


def _cut(text: str) -> str:
    return text[:ERROR_CHARACTERS_MAX]


def _too_large(order: Order) -> str:
    return (
        f"The answer has more than {order.bytes_max // 1024**2} MiB: ask for fewer rows or columns."
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def confine(order: Order) -> None:
    """Have the operating system end what goes beyond the order's limits, and forbid writing."""
    os.nice(NICENESS)
    signal.alarm(order.time_s + SECONDS_BEYOND)
    space = order.memory_bytes + MEMORY_BEYOND_BYTES
    limits = [(resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)]
    if sys.platform == "linux":  # Elsewhere there is no such limit that can be kept.
        limits.append((resource.RLIMIT_AS, space))
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Answer the order on standard input."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    confine(order)
    report, body = answered(order)
    with suppress(BrokenPipeError):  # Nobody waits for it any more.
        os.write(sys.stdout.fileno(), msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
