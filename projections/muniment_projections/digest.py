"""What tables hold, in one number per table: to compare projections with a rebuild from the log.

The order of rows does not count, because it depends on the batches in which they were written.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muniment_projections.base import Connection

TABLES = """
SELECT table_name FROM duckdb_tables()
WHERE NOT internal AND NOT temporary AND table_name NOT IN ('layout', 'checkpoints')
ORDER BY table_name
"""

DIGEST = """
SELECT count(*), coalesce(bit_xor(hash(t)), 0)::VARCHAR, coalesce(sum(hash(t)::HUGEINT), 0)::VARCHAR
FROM "{table}" t
"""
"""Rows, and two sums of the rows' hashes; both are needed, since a row twice cancels out of one."""

CHECKPOINTS = (
    'SELECT topic, "partition", next_offset FROM checkpoints WHERE next_offset > 0 ORDER BY ALL'
)


class TableDigest(msgspec.Struct, frozen=True):
    """One table's rows: how many, and their hash, which does not depend on their order."""

    rows: int
    hash: str


class Digests(msgspec.Struct, frozen=True):
    """All tables as of one moment, which the checkpoints tell: (topic, partition, next offset)."""

    checkpoints: tuple[tuple[str, int, int], ...]
    tables: Mapping[str, TableDigest]


def digests(connection: Connection) -> Digests:
    """Digests of all tables on one consistent snapshot. Reads every row."""
    connection.begin()
    try:
        checkpoints = connection.execute(CHECKPOINTS).fetchall()
        names = [name for (name,) in connection.execute(TABLES).fetchall()]
        tables = {name: _digest(connection, name) for name in names}
    finally:
        connection.rollback()
    return Digests(tuple((t, p, o) for t, p, o in checkpoints), tables)


def _digest(connection: Connection, table: str) -> TableDigest:
    found = connection.execute(DIGEST.format(table=table)).fetchone()
    assert found is not None, "an aggregate has one row"
    rows, xor, total = found
    return TableDigest(rows, f"{xor}-{total}")
