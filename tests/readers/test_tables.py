"""Exported tables as DuckDB, Polars and Spark read them: the same rows, of the same types."""

from __future__ import annotations

import asyncio
import io
import math
import os
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import local_kafka
import polars
import pytest

from harness.door import Door
from muniment_projections.published.catalogue import TABLES
from muniment_services import bootstrap
from muniment_services.config import Settings

MLFLOW = "/api/2.0/mlflow/"
YEAR_9999_MS = 253_402_300_799_999
LOGGED = {
    "params": [{"key": "lr", "value": "0.1 ü"}],
    "tags": [{"key": "team", "value": ""}],
    "metrics": [
        {"key": "auc", "value": 0.1, "timestamp": 1_700_000_000_123, "step": -1},
        {"key": "nothing", "value": "NaN", "timestamp": 1, "step": 0},
        {"key": "late", "value": "Infinity", "timestamp": YEAR_9999_MS, "step": 2**53},
        {"key": "never", "value": 1, "timestamp": YEAR_9999_MS + 1, "step": 0},
    ],
}

Rows = list[tuple[Any, ...]]


async def _exported(folder: Path) -> None:
    async with bootstrap.services(Settings(data_dir=folder / "data")) as services:
        door = Door(services, bootstrap.local_user())
        started = {"experiment_id": "0", "start_time": -1}
        run = (await door.ask("POST", f"{MLFLOW}runs/create", started)).json["run"]
        body = {"run_id": run["info"]["run_id"], **LOGGED}
        assert (await door.ask("POST", f"{MLFLOW}runs/log-batch", body)).status == 200
        model = {"name": "fraud", "tags": [{"key": "a", "value": "b"}]}
        assert (await door.ask("POST", f"{MLFLOW}registered-models/create", model)).status == 200
        version = {"name": "fraud", "source": "s3://b/m"}
        assert (await door.ask("POST", f"{MLFLOW}model-versions/create", version)).status == 200
        moved = {"name": "fraud", "version": "1", "stage": "Production"}
        transition = f"{MLFLOW}model-versions/transition-stage"
        assert (await door.ask("POST", transition, moved)).status == 200
        policy = {"pattern": "fraud", "aliases": ["champion", "ü"], "approvals": 2}
        path = "/api/v1/policies/promotion/p"
        assert (await door.ask("PUT", path, policy)).status == 200
        await services.runner.fresh()
        archive = await services.analysts.archive(services.runner)
        content = io.BytesIO(b"".join([chunk async for chunk in archive.chunks]))
    with tarfile.open(fileobj=content) as archived:
        archived.extractall(folder / "tables")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an export writes of a server with a bit of everything."""
    folder = tmp_path_factory.mktemp("export")
    asyncio.run(_exported(folder))
    return folder / "tables"


def plain(rows: Rows) -> list[str]:
    """Rows as texts that are equal when the values are; in an order of their own."""
    return sorted(repr([_plain(value) for value in row]) for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if isinstance(value, datetime):
        # Spark gives times of its session's zone, which is UTC, without saying so.
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return list(value) if isinstance(value, list | tuple) else value


def by_duckdb(folder: Path, name: str) -> Rows:
    """A table's rows; times as Python's, without a package for zones."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = connection.sql(f"FROM '{folder}/{name}/*.parquet'").to_arrow_table()
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns, strict=True))


def test_duckdb_reads_what_was_written(tables: Path) -> None:
    rows = {name: by_duckdb(tables, name) for name in TABLES}
    values = {key: value for _, key, value, *_ in rows["metrics"]}
    assert values["auc"] == 0.1
    assert math.isnan(values["nothing"])
    assert math.isinf(values["late"])
    times = {key: at for _, key, _, _, at in rows["metrics"]}
    assert times["auc"] == datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)
    assert (times["late"], times["never"]) == (
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
        None,
    )
    ((_, key, value),) = rows["params"]
    assert (key, value) == ("lr", "0.1 ü")
    ((_, _, _, _, aliases, *_),) = rows["policies"]
    assert aliases == ["champion", "ü"]
    assert [stage for *_, stage in ((row[3],) for row in rows["stages"])] == ["None", "Production"]
    assert len(rows["audit"]) > 100


def test_polars_reads_the_same(tables: Path) -> None:
    for name in TABLES:
        found = polars.scan_parquet(tables / name).collect()
        assert plain(found.rows()) == plain(by_duckdb(tables, name)), name


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Spark in this process and one Java beside it, in UTC."""
    from pyspark.sql import SparkSession

    os.environ["JAVA_HOME"] = str(Path(local_kafka.java()).resolve().parents[1])
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[1]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.mark.slow
def test_spark_reads_the_same(tables: Path, spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")  # What Spark hands to Python is in Python's own zone.
    for name in TABLES:
        frame = spark.read.parquet(str(tables / name))
        found = [tuple(row) for row in frame.collect()]
        assert plain(found) == plain(by_duckdb(tables, name)), name
        kinds = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
        for column in TABLES[name].columns:
            assert kinds[column.name] == SPARK[column.type], (name, column.name)


SPARK = {
    "VARCHAR": "string",
    "VARCHAR[]": "array<string>",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
"""Spark's words for the types that tables have."""
