"""Statements answered by a process of their own, over tables that are as new as the store."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from harness.door import Door
from muniment_projections.published.catalogue import TABLES
from muniment_services import bootstrap
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.sql import analysts
from muniment_services.sql.analysts import FOLDER, StatementRefused

SQL = "/api/v1/audit/sql"
RUNS = "/api/2.0/mlflow/runs/"

Test = Callable[[Services, Door], Awaitable[None]]


def served(folder: Path, test: Test) -> None:
    """Run a test on a server's services, asked as the local user."""

    async def run() -> None:
        async with bootstrap.services(Settings(data_dir=folder)) as services:
            await test(services, Door(services, bootstrap.local_user()))

    asyncio.run(run())


async def rows(door: Door, statement: str) -> Any:
    answer = await door.ask("POST", SQL, {"statement": statement})
    assert answer.status == 200, answer.body
    return answer.json["rows"]


async def new_run(door: Door, **params: str) -> str:
    made = await door.ask("POST", f"{RUNS}create", {"experiment_id": "0"})
    run_id = str(made.json["run"]["info"]["run_id"])
    listed = [{"key": key, "value": value} for key, value in params.items()]
    body = {"run_id": run_id, "params": listed}
    assert (await door.ask("POST", f"{RUNS}log-batch", body)).status == 200
    return run_id


def test_a_statement_sees_what_was_written_before_it(tmp_path: Path) -> None:
    async def test(_: Services, door: Door) -> None:
        for count in (1, 2, 3):
            run_id = await new_run(door, lr="0.1")
            assert [run_id] in await rows(door, "SELECT run_id FROM runs")
            logged = "SELECT count(*) FROM params WHERE key = 'lr'"
            assert await rows(door, logged) == [[count]]
            done = "SELECT count(*) FROM audit WHERE action = 'run.create'"
            assert await rows(door, done) == [[count]]

    served(tmp_path, test)


def test_two_at_a_time_may_be_the_first(tmp_path: Path) -> None:
    async def test(_: Services, door: Door) -> None:
        for _turn in range(3):
            counted = "SELECT count(*) > 0 FROM audit"
            both = await asyncio.gather(rows(door, counted), rows(door, counted))
            assert list(both) == [[[True]], [[True]]]

    served(tmp_path, test)


def test_the_data_folder_may_be_named_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is by default: ./muniment-data."""
    monkeypatch.chdir(tmp_path)

    async def test(_: Services, door: Door) -> None:
        assert await rows(door, "SELECT count(*) > 0 FROM audit") == [[True]]

    served(Path("data"), test)


def test_nothing_of_it_stays(tmp_path: Path) -> None:
    async def test(services: Services, door: Door) -> None:
        (tmp_path / FOLDER).mkdir()
        (tmp_path / FOLDER / "of-a-server-that-was-killed").touch()
        await rows(door, "SELECT * FROM audit")
        answer = await door.ask("POST", SQL, {"statement": "SELECT nothing FROM audit"})
        assert answer.status == 400
        kept = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
        assert kept == ["audit-1.parquet"]
        assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0
        assert not services.analysts.busy

    served(tmp_path, test)
    assert not (tmp_path / FOLDER).exists()


def test_every_format_has_every_row(tmp_path: Path) -> None:
    async def test(_: Services, door: Door) -> None:
        statement = (
            "SELECT 2 AS a, 'x, \"y\"' AS b, ['p', 'q'] AS c, 'NaN'::DOUBLE AS d, "
            "TIMESTAMPTZ '2026-01-31 12:00:00Z' AS e, sum(range) AS f FROM range(4)"
        )

        async def as_(name: str) -> bytes:
            answer = await door.ask("POST", SQL, {"statement": statement, "format": name})
            assert answer.status == 200, answer.body
            return answer.body

        told = json.loads(await as_("json"))
        assert [column["name"] for column in told["columns"]] == list("abcdef")
        assert told["rows"] == [[2, 'x, "y"', ["p", "q"], "NaN", "2026-01-31T12:00:00Z", 6]]
        assert (await as_("csv")).decode().splitlines() == [
            '"a","b","c","d","e","f"',
            '2,"x, ""y""","[""p"",""q""]",nan,2026-01-31 12:00:00.000000Z,6',
        ]
        table = pyarrow.parquet.read_table(io.BytesIO(await as_("parquet")))
        assert table.column("c").to_pylist() == [["p", "q"]]
        wrong = await door.ask("POST", SQL, {"statement": "SELECT 1", "format": "xml"})
        assert (wrong.status, "format is one of" in wrong.json["message"]) == (400, True)

    served(tmp_path, test)


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    async def test(services: Services, _: Door) -> None:
        services.analysts._time_s = 1
        endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < b.range"
        with pytest.raises(StatementRefused, match="longer than 1 s"):
            await services.analysts.answer(services.runner, endless, "json")

    served(tmp_path, test)


def test_one_that_breaks_its_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysts, "COMMAND", (sys.executable, "-c", "raise SystemExit(9)"))

    async def test(services: Services, _: Door) -> None:
        with pytest.raises(StatementRefused, match="has ended"):
            await services.analysts.answer(services.runner, "SELECT 1", "json")

    served(tmp_path, test)


def test_tables_that_cannot_be_written_are_no_fault_of_the_statement(tmp_path: Path) -> None:
    async def test(_: Services, door: Door) -> None:
        (tmp_path / FOLDER).write_text("where the folder should be")
        answer = await door.ask("POST", SQL, {"statement": "SELECT * FROM audit"})
        assert (answer.status, "cannot be written" in answer.json["message"]) == (503, True)
        (tmp_path / FOLDER).unlink()
        assert await rows(door, "SELECT count(*) > 0 FROM audit") == [[True]]

    served(tmp_path, test)


def test_tables_of_a_rebuild_are_written_anew(tmp_path: Path) -> None:
    async def test(services: Services, door: Door) -> None:
        run_id = await new_run(door)
        assert await rows(door, "SELECT run_id FROM runs") == [[run_id]]
        services.rebuilder.start()
        while services.rebuilder.status.phase not in ("done", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert services.rebuilder.status.phase == "done", services.rebuilder.status
        assert await rows(door, "SELECT run_id FROM runs") == [[run_id]]
        assert len(list((tmp_path / FOLDER).iterdir())) == 1

    served(tmp_path, test)


def test_others_are_asked_to_come_again(tmp_path: Path) -> None:
    async def test(services: Services, door: Door) -> None:
        async with services.analysts._turn, services.analysts._turn:
            answer = await door.ask("POST", SQL, {"statement": "SELECT 1"})
            assert (answer.status, answer.header("retry-after")) == (429, "5")
        assert await rows(door, "SELECT 1") == [[1]]

    served(tmp_path, test)


def test_the_archive_has_all_tables_of_one_moment(tmp_path: Path) -> None:
    async def test(services: Services, door: Door) -> None:
        await new_run(door, lr="0.1")
        await rows(door, "SELECT * FROM audit")
        made = await services.analysts.archive(services.runner)
        sent = b"".join([chunk async for chunk in made.chunks])
        assert len(sent) == made.size_bytes
        with tarfile.open(fileobj=io.BytesIO(sent)) as archive:
            names = {member.name for member in archive if member.name.endswith(".parquet")}
            assert {name.split("/")[0] for name in names} == set(TABLES)
            described = archive.extractfile("tables.json")
            assert described is not None
            told = {table["name"]: table for table in json.load(described)["tables"]}
            for name, table in TABLES.items():
                file = archive.extractfile(f"{name}/part-0.parquet")
                assert file is not None
                found = pyarrow.parquet.read_table(io.BytesIO(file.read()))
                columns = [column.name for column in table.columns]
                assert found.column_names == columns
                assert [column["name"] for column in told[name]["columns"]] == columns

    served(tmp_path, test)
