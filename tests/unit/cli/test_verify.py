"""`muniment verify` sees what was changed, and nothing where nothing was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest

from muniment_schemas.codec import Codec
from muniment_schemas.subjects import Schemas
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.verify import _headers
from unit.cli.conftest import FILES, Call, Called

Spoil = Callable[[sqlite3.Connection], object]

LONGER = "CAST(value || x'00' AS BLOB)"
RUNS = "(id >> 40) > 0"
"""Records behind the catalog's partition."""


def spoil_log(data_dir: Path, spoil: Spoil) -> None:
    with sqlite3.connect(data_dir / "log.sqlite") as connection:
        spoil(connection)


def sql(statement: str) -> Spoil:
    return lambda connection: connection.execute(statement)


def verified(call: Call, data_dir: Path, *more: str) -> Called:
    return call("verify", "--data-dir", data_dir, *more)


def test_all_is_well_after_a_server(call: Call, data_dir: Path) -> None:
    text = verified(call, data_dir)
    assert text.status == 0, text.out
    assert text.lines[-1] == "all is well"
    ended = verified(call, data_dir, "--json")
    data = json.loads(ended.lines[-1])
    assert (ended.status, data["ok"], data["findings"]) == (0, True, [])
    assert data["fold"] == {"applied": data["records"], "void": {}}
    assert data["tables"]["runs"] == 1
    assert data["tables"]["points"] == 3


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (sql(f"UPDATE record SET value = x'0001' WHERE {RUNS}"), "No released schema"),
        (
            sql(f"UPDATE record SET value = CAST(value || x'00' AS BLOB) WHERE {RUNS}"),
            "bytes follow the value",
        ),
        (sql(f"UPDATE record SET key = x'61' WHERE {RUNS}"), "its key is b'a'"),
        (sql(f"UPDATE record SET timestamp_ms = 5 WHERE {RUNS}"), "its time is 5"),
        (sql("DELETE FROM record WHERE id = 3"), "catalog/0"),
        (sql("DELETE FROM record WHERE id = 0"), "publishes its schema"),
    ],
)
def test_what_was_changed_in_the_log_is_seen(
    call: Call, data_dir: Path, spoil: Spoil, says: str
) -> None:
    spoil_log(data_dir, spoil)
    ended = verified(call, data_dir)
    assert ended.status == 1
    assert "WRONG" in ended.out
    assert "see above" in ended.err
    if "publishes" not in says:
        assert says in ended.out


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM points WHERE step = 2", "points: it has 2 rows, a rebuild has 3"),
        ("UPDATE runs SET name = 'other'", "runs: its 1 rows are not those of a rebuild"),
        ("INSERT INTO points SELECT * FROM points", "points: it has 6 rows"),
        ("UPDATE points SET value = 0.6 WHERE step = 1", "points: its 3 rows"),
        ("DROP TABLE requests", "requests: the table is missing"),
        ("UPDATE checkpoints SET next_offset = 99", "ahead of the log"),
    ],
)
def test_what_was_changed_in_the_projections_is_seen_and_mended(
    call: Call, data_dir: Path, statement: str, says: str
) -> None:
    with duckdb.connect(str(data_dir / "projections.duckdb")) as connection:
        connection.execute(statement)
    ended = verified(call, data_dir)
    assert ended.status == 1
    assert says in ended.out
    assert verified(call, data_dir, "--no-projections").status == 0
    assert call("rebuild", "--data-dir", data_dir).status == 0
    assert verified(call, data_dir).status == 0


def test_projections_that_are_behind_are_compared_where_they_are(
    call: Call, data_dir: Path
) -> None:
    projections = data_dir / "projections.duckdb"
    projections.unlink()
    settings = Settings(data_dir=data_dir)
    bootstrap.projections_store(projections, settings).close()
    assert verified(call, data_dir).status == 0


def test_deleted_projections_are_no_loss(call: Call, data_dir: Path) -> None:
    (data_dir / "projections.duckdb").unlink()
    ended = verified(call, data_dir)
    assert ended.status == 0
    assert "no projections yet" in ended.out


def test_headers_are_those_that_the_write_path_makes(data_dir: Path) -> None:
    codec = Codec(Schemas.load())
    with sqlite3.connect(data_dir / "log.sqlite") as connection:
        rows = connection.execute("SELECT value, headers FROM record").fetchall()
    assert rows
    for value, headers in rows:
        event = codec.decode(value)
        packed = msgspec.msgpack.decode(headers, type=tuple[tuple[str, bytes], ...])
        assert dict(packed) == _headers(event)


def test_a_header_that_says_something_else_is_seen(call: Call, data_dir: Path) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        (packed,) = connection.execute("SELECT headers FROM record WHERE id = 1").fetchone()
        changed = packed.replace(b"SchemaPublished", b"SchemaUpdated..")
        assert changed != packed
        connection.execute("UPDATE record SET headers = ? WHERE id = 1", [changed])

    spoil_log(data_dir, spoil)
    ended = verified(call, data_dir)
    assert "catalog/0@1: header ce_type is b'SchemaUpdated..'" in ended.out
    assert ended.status == 1


def test_findings_are_json_too(call: Call, data_dir: Path) -> None:
    spoil_log(data_dir, sql("UPDATE record SET timestamp_ms = 5 WHERE id = 2"))
    ended = verified(call, data_dir, "--json")
    data = json.loads(ended.lines[-1])
    assert ended.status == 1
    assert data["ok"] is False
    assert data["findings"][0]["where"] == "catalog/0@2"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"what was forged", "the file is changed"), (b"", "is changed"), (None, "is missing")],
)
def test_a_file_that_is_not_as_recorded_is_seen(
    call: Call, data_dir: Path, content: bytes | None, says: str
) -> None:
    (path,) = (data_dir / FILES).rglob("a.txt")
    path.unlink() if content is None else path.write_bytes(content)
    ended = verified(call, data_dir)
    assert ended.status == 1
    assert says in ended.out
    assert verified(call, data_dir, "--no-artifacts").status == 0


def test_a_file_that_nobody_recorded_is_told_and_not_wrong(call: Call, data_dir: Path) -> None:
    (data_dir / FILES / "1" / "stray.txt").write_text("left by a crash")
    ended = verified(call, data_dir)
    assert ended.status == 0
    assert "1 that no event records" in ended.out
