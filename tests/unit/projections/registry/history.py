"""Histories of the registry: commands folded to what a projection is given, and databases of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import duckdb

from harness.world import TestWorld
from muniment_projections.base import Connection, Folded
from muniment_projections.registry.apply import RegistryProjection
from muniment_services.domain.errors import DomainError
from muniment_services.state import CurrentState


@contextmanager
def database(*batches: Sequence[Folded]) -> Iterator[Connection]:
    """A database in memory that has been given the batches."""
    with duckdb.connect(":memory:") as connection:
        projection = RegistryProjection()
        projection.create(connection)
        for batch in batches:
            if batch:
                projection.apply(connection, batch)
        yield connection


def folded(world: TestWorld) -> list[Folded]:
    """What the fold makes of all that the world has recorded, from the beginning."""
    state = CurrentState()
    pairs = zip(world.records, world.events, strict=True)
    return [state.fold(record, event) for record, event in pairs]


def attempt(
    world: TestWorld, commands: Iterable[object], who: str = "tester", *groups: str
) -> None:
    """Do what is not refused."""
    for command in commands:
        try:
            world.do(command, who, *groups)  # type: ignore[arg-type]
        except DomainError:
            continue


def contents(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, in an order that does not depend on how they were written."""
    names = connection.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()
    return {
        name: sorted(connection.execute(f"FROM {name}").fetchall(), key=repr) for (name,) in names
    }
