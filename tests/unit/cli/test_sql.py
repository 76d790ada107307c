"""`muniment sql` against a running server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from harness.server import Server, running_muniment
from muniment_projections.published.catalogue import TABLES
from unit.cli.conftest import Call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_muniment(tmp_path_factory.mktemp("sql") / "data") as running:
        yield running


def test_a_statement_and_its_answers(call: Call, server: Server, tmp_path: Path) -> None:
    at = ("--url", server.url)
    statement = "SELECT name, 'a' || chr(27) AS bell, ['x'] AS list, NULL AS no FROM experiments"
    assert call("sql", statement, *at).lines == [
        '"name","bell","list","no"',
        '"Default","a\x1b","[""x""]",',
    ]
    assert call("sql", statement, "--format", "table", *at).lines == [
        "name     bell     list   no",
        'Default  a\\u001b  ["x"]',
    ]
    told = json.loads(call("sql", statement, "--format", "json", *at).out)
    assert told["rows"] == [["Default", "a\x1b", ["x"], None]]
    file = tmp_path / "answer.parquet"
    assert call("sql", statement, "--format", "parquet", "--out", file, *at).out == ""
    assert pyarrow.parquet.read_table(file).column("name").to_pylist() == ["Default"]


def test_a_statement_from_standard_input(
    call: Call, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS one\n-- that is all\n"))
    assert call("sql", "-", "--url", server.url).lines == ['"one"', "1"]


def test_what_there_is_to_ask(call: Call, server: Server) -> None:
    listed = call("sql", "--tables", "--url", server.url)
    for name, table in TABLES.items():
        assert f"{name}: {table.meaning}" in listed.lines
    told = json.loads(call("sql", "--tables", "--format", "json", "--url", server.url).out)
    assert [table["name"] for table in told] == list(TABLES)


def test_an_export_is_whole_or_not_there(call: Call, server: Server, tmp_path: Path) -> None:
    at = ("--url", server.url)
    folder = tmp_path / "deep" / "tables"
    assert call("sql", "--export", folder, *at).status == 0
    assert {path.name for path in folder.iterdir()} == {*TABLES, "tables.json"}
    found = pyarrow.parquet.read_table(folder / "experiments")
    assert found.column("name").to_pylist() == ["Default"]
    again = call("sql", "--export", folder, *at)
    assert (again.status, "there already" in again.err) == (2, True)
    refused = call("sql", "--export", tmp_path / "other", "--url", "http://127.0.0.1:1")
    assert refused.status == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_what_cannot_be_asked(call: Call, server: Server) -> None:
    at = ("--url", server.url)
    assert "One SELECT at a time" in call("sql", "SELECT 1; DROP VIEW audit", *at).err
    for nothing in ((), ("SELECT 1", "--tables")):
        wrong = call("sql", *nothing, *at)
        assert (wrong.status, "say one SELECT" in wrong.err) == (2, True)
