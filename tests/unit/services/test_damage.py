"""A damaged projections file: nothing is lost, and the server says so or builds it anew."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest

from muniment_projections.runner import ProjectionsUnavailable
from muniment_projections.store import is_damage
from muniment_services.api.services import Services
from muniment_services.projection_files import PROJECTIONS_FILE
from unit.services.test_write import new_run, run


@pytest.mark.parametrize("damage", ["head", "block", "cut", "empty"])
def test_a_file_that_cannot_be_read_at_the_start_is_built_anew(tmp_path: Path, damage: str) -> None:
    runs: list[str] = []

    async def write(services: Services) -> None:
        runs.extend([await new_run(services) for _ in range(20)])

    async def read(services: Services) -> None:
        for run_id in runs:
            assert await services.state("run", run_id) is not None
        rows = await services.read(lambda c: c.execute("SELECT count(*) FROM runs").fetchall())
        assert rows == [(len(runs),)]

    run(tmp_path, write)
    path = tmp_path / PROJECTIONS_FILE
    with path.open("r+b") as file:
        if damage in ("head", "block"):
            file.seek(0 if damage == "head" else 12288)
            file.write(os.urandom(8192))
        else:
            file.truncate(0 if damage == "empty" else path.stat().st_size // 2)
    run(tmp_path, read)


def test_damage_that_a_read_finds_is_told_and_ends_with_a_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(services: Services) -> None:
        def damaged(_: object) -> None:
            raise duckdb.Error("Corrupt database file: computed checksum 1 does not match 2")

        monkeypatch.setattr(services.runner.store, "read", damaged)
        with pytest.raises(ProjectionsUnavailable, match="muniment rebuild"):
            await services.read(lambda c: c.execute("SELECT 1").fetchall())
        assert services.runner.damage is not None

    run(tmp_path, test)


def test_other_errors_are_no_damage() -> None:
    assert not is_damage(duckdb.IOException("IO Error: No space left on device"))
    assert not is_damage(duckdb.BinderException("no such column"))
