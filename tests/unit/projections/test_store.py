"""Reads of one thread take turns on one cursor, and none is in the next one's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from muniment_projections.base import Connection
from muniment_projections.store import Store
from muniment_services import bootstrap

READS = {
    "one row of many": lambda c: c.execute("FROM range(9)").fetchone(),
    "some rows of many": lambda c: c.execute("FROM range(9000)").fetchmany(2),
    "none of many": lambda c: c.execute("FROM range(9)") and None,
    "all": lambda c: c.execute("FROM range(9)").fetchall(),
    "a relation": lambda c: c.sql("FROM range(9)").to_arrow_table(),
    "a transaction": lambda c: (c.begin(), c.execute("FROM range(9)").fetchall(), c.rollback()),
}


@pytest.mark.parametrize("first", READS)
@pytest.mark.parametrize("then", READS)
def test_no_read_is_in_the_next_one_s_way(tmp_path: Path, first: str, then: str) -> None:
    store = Store(tmp_path / "p.duckdb", bootstrap.projections())
    _, once, again = [store.read(READS[name]) for name in (first, then, then)]
    assert once == again
    store.close()


def test_a_read_that_fails_is_in_nobody_s_way(tmp_path: Path) -> None:
    store = Store(tmp_path / "p.duckdb", bootstrap.projections())

    def fail(connection: Connection) -> None:
        connection.execute("FROM range(9)").fetchone()
        raise LookupError

    with pytest.raises(LookupError):
        store.read(fail)
    assert store.read(lambda c: c.sql("FROM range(2)").fetchall()) == [(0,), (1,)]
    store.close()
