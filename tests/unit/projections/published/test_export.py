"""Published tables as files: what is written again, what is kept, and what stays readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from muniment_projections.published.catalogue import AUDIT, FIRST_MS, LAST_MS, TABLES
from muniment_projections.published.export import Export
from muniment_projections.store import Store
from muniment_services import bootstrap
from muniment_services.config import Settings

INSERT = """
INSERT INTO audit_events (topic, "partition", "offset", event_id, at_ms, type, action, actor,
    auth_method, outcome, workspace, request_id)
SELECT 'access', 0, range, 'e' || range, ?, 'ApiCalled', 'run.read', 'ana', 'local', 'allowed',
    'default', 'r' FROM range(?, ?)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = bootstrap.projections_store(tmp_path / "p.duckdb", Settings(data_dir=tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def export(tmp_path: Path) -> Export:
    (tmp_path / "files").mkdir()
    return Export(tmp_path / "files")


def add(store: Store, begin: int, end: int, at_ms: int = 1000) -> None:
    store.read(lambda connection: connection.execute(INSERT, [at_ms, begin, end]))


def linked(export: Export, store: Store, folder: Path, *names: str) -> Path:
    folder.mkdir()
    store.read(lambda connection: export.link(connection, store, names, folder))
    return folder


def offsets(folder: Path) -> list[int]:
    sql = f"SELECT \"offset\" FROM '{folder}/audit/*.parquet' ORDER BY 1"
    with duckdb.connect() as connection:
        return [offset for (offset,) in connection.execute(sql).fetchall()]


def test_new_rows_are_added_and_old_files_kept(
    store: Store, export: Export, tmp_path: Path
) -> None:
    add(store, 0, 1000)
    first = linked(export, store, tmp_path / "first", "audit")
    add(store, 1000, 1010)
    second = linked(export, store, tmp_path / "second", "audit")
    again = linked(export, store, tmp_path / "again", "audit")
    assert offsets(first) == list(range(1000))
    assert offsets(second) == offsets(again) == list(range(1010))

    def inodes(folder: Path) -> list[int]:
        return [file.stat().st_ino for file in sorted((folder / "audit").iterdir())]

    assert inodes(first) == inodes(second)[:1]
    assert inodes(second) == inodes(again)


def test_small_files_become_larger_ones(store: Store, export: Export, tmp_path: Path) -> None:
    for turn in range(64):
        add(store, turn, turn + 1)
        folder = linked(export, store, tmp_path / f"turn-{turn}", "audit")
        assert offsets(folder) == list(range(turn + 1))
        parts = len(list((folder / "audit").iterdir()))
        assert parts <= (turn + 1).bit_length()
    assert len(list((tmp_path / "files").iterdir())) == parts


def test_other_tables_are_written_when_the_state_has_moved(
    store: Store, export: Export, tmp_path: Path
) -> None:
    def inode(name: str) -> int:
        folder = linked(export, store, tmp_path / name, "runs")
        return (folder / "runs" / "part-0.parquet").stat().st_ino

    first = inode("first")
    store.write((), {("access", 0): 1})
    assert inode("only-calls") == first
    store.write((), {("runs", 0): 1})
    assert inode("moved") != first
    assert len(list((tmp_path / "files").iterdir())) == 1


def test_another_store_has_files_of_its_own(store: Store, export: Export, tmp_path: Path) -> None:
    add(store, 0, 5)
    linked(export, store, tmp_path / "first", "audit", "runs")
    other = bootstrap.projections_store(tmp_path / "o.duckdb", Settings(data_dir=tmp_path))
    add(other, 7, 9)
    assert offsets(linked(export, other, tmp_path / "second", "audit")) == [7, 8]
    assert len(list((tmp_path / "files").iterdir())) == 1
    other.close()


def test_a_file_that_cannot_be_written_leaves_none(
    store: Store, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = AUDIT.columns[0].__class__("x", "INTEGER", "", "CAST('no number' AS INTEGER)")
    changed = AUDIT.__class__("audit", "", AUDIT.source, (broken,), grows=True)
    monkeypatch.setitem(TABLES, "audit", changed)
    add(store, 0, 5)
    with pytest.raises(duckdb.ConversionException):
        linked(export, store, tmp_path / "first", "audit")
    assert list((tmp_path / "files").iterdir()) == []
    monkeypatch.setitem(TABLES, "audit", AUDIT)
    assert offsets(linked(export, store, tmp_path / "second", "audit")) == list(range(5))


def test_what_is_no_time_is_none(store: Store, export: Export, tmp_path: Path) -> None:
    times = (FIRST_MS - 1, FIRST_MS, 1_700_000_000_123, LAST_MS, LAST_MS + 1, 2**63 - 1, -(2**63))
    for offset, at_ms in enumerate(times):
        add(store, offset, offset + 1, at_ms)
    folder = linked(export, store, tmp_path / "first", "audit")
    sql = f"SELECT epoch_ms(recorded_at) FROM '{folder}/audit/*.parquet' ORDER BY \"offset\""
    with duckdb.connect() as connection:
        found = [at_ms for (at_ms,) in connection.execute(sql).fetchall()]
    assert found == [None, FIRST_MS, 1_700_000_000_123, LAST_MS, None, None, None]


def test_columns_are_of_the_types_that_are_told(
    store: Store, export: Export, tmp_path: Path
) -> None:
    folder = linked(export, store, tmp_path / "first", *TABLES)
    with duckdb.connect() as connection:
        for name, table in TABLES.items():
            found = connection.execute(f"DESCRIBE FROM '{folder}/{name}/*.parquet'").fetchall()
            told = [(column.name, column.type) for column in table.columns]
            assert [(column, kind) for column, kind, *_ in found] == told
            assert all(column.meaning for column in table.columns)
