"""What may be stated, and the wall behind it: a database that opens nothing but the tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import msgspec
import pytest

from harness.statements import ANSWERED, REFUSED
from muniment_projections.published.catalogue import TABLES
from muniment_services.sql import process
from muniment_services.sql.process import Order
from muniment_services.sql.statement import PARTS, STATEMENT_CHARACTERS_MAX, Refused, check

SECRET = "the-secret-in-the-file"
STATED = [s for s in REFUSED if s[:1].isalpha() and "sleep" not in s]
"""Those that say something, and do not only take time."""


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    secret, folder = tmp_path / "secret.csv", tmp_path / "writable"
    secret.write_text(f"a\n{SECRET}\n")
    folder.mkdir()
    return {"secret": str(secret), "folder": str(folder)}


@pytest.mark.parametrize("statement", ANSWERED)
def test_a_select_over_the_tables_may_be_stated(
    connection: duckdb.DuckDBPyConnection, statement: str
) -> None:
    check(connection, statement, TABLES)


@pytest.mark.parametrize("statement", [s for s in REFUSED if not s.endswith(("?", "$name"))])
def test_nothing_else_may_be_stated(
    connection: duckdb.DuckDBPyConnection, places: dict[str, str], statement: str
) -> None:
    with pytest.raises(Refused):
        check(connection, statement.format(**places), TABLES)


def test_a_statement_has_an_end(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(Refused, match=str(STATEMENT_CHARACTERS_MAX)):
        check(connection, "SELECT 1" + " " * STATEMENT_CHARACTERS_MAX, TABLES)


def test_what_nobody_thought_of_is_refused(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.sql.statement.PARTS", PARTS - {"JOIN"})
    with pytest.raises(Refused, match="JOIN"):
        check(connection, "SELECT * FROM runs JOIN params USING (run_id)", TABLES)


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Order:
    folder = tmp_path_factory.mktemp("tables")
    for name in TABLES:
        (folder / name).mkdir(parents=True)
        with duckdb.connect() as made:
            made.execute(f"COPY (SELECT 1 AS actor) TO '{folder / name / 'part-0.parquet'}'")
    return Order(
        statement="",
        format="json",
        folder=str(folder),
        tables=tuple(TABLES),
        time_s=60,
        memory_bytes=200_000_000,
        rows_max=1000,
        bytes_max=100_000,
    )


@pytest.mark.parametrize("statement", STATED)
def test_the_second_wall_stands_alone(order: Order, places: dict[str, str], statement: str) -> None:
    """Stated to the database as if nobody had checked: no file is read, and none is written."""
    told = ""
    with process.database(order) as database:
        try:
            told = str(database.execute(statement.format(**places)).fetchall())
        except duckdb.Error as error:
            told = str(error)
    assert SECRET not in told
    assert list(Path(places["folder"]).iterdir()) == []


def test_settings_stay_as_they_are(order: Order) -> None:
    with process.database(order) as database:
        for change in ("SET enable_external_access = true", "SET memory_limit = '100GB'"):
            with pytest.raises(duckdb.Error):
                database.execute(change)


def said(order: Order, statement: str, **changes: object) -> str:
    report, body = process.answered(msgspec.structs.replace(order, statement=statement, **changes))
    assert bool(report.error) == (not body)
    return report.error or ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such limit")
@pytest.mark.parametrize(
    ("attempt", "sign"),
    [
        ("open({path!r}, 'w').write('x' * 100_000)", "File too large"),
        ("bytearray(8 * 1024**3)", "MemoryError"),
    ],
)
def test_the_operating_system_keeps_the_process_within_its_limits(
    order: Order, tmp_path: Path, attempt: str, sign: str
) -> None:
    path = tmp_path / "written"
    code = (
        "import msgspec, sys; from muniment_services.sql.process import Order, confine; "
        "confine(msgspec.json.decode(sys.argv[1], type=Order)); " + attempt.format(path=str(path))
    )
    command = [sys.executable, "-c", code, msgspec.json.encode(order).decode()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert sign in ended.stderr
    assert not path.exists() or path.read_bytes() == b""


def test_limits_are_said_by_name(order: Order) -> None:
    assert said(order, "SELECT * FROM range(1000)") == ""
    assert "more than 1000 rows" in said(order, "SELECT * FROM range(1001)")
    assert "more than 0 MiB" in said(order, "SELECT repeat('x', 200000)")
    wide = "SELECT list(range ORDER BY hash(range)) FROM range(100000000)"
    assert "MiB of memory" in said(order, wide, memory_bytes=50_000_000)
    assert "no table" in said(order, "SELECT * FROM nowhere")
    for unbound in ("SELECT ?", "SELECT $name"):
        assert said(order, unbound)
