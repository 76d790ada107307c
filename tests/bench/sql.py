"""What statements cost over a long trail: writing it down once, what is new, and the answers.

    python tests/bench/sql.py                      10 million events
    python tests/bench/sql.py --events 1000000

Rows are put into the table as a replica would have folded them; a statement's time is that of its
whole process. Prints seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from operator import methodcaller
from pathlib import Path

from muniment_projections.runner import Runner
from muniment_projections.store import Store
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.sql.analysts import FOLDER, Analysts

CHUNK_EVENTS = 1_000_000
NEW_EVENTS = 1_000

INSERT = """
INSERT INTO audit_events (topic, "partition", "offset", event_id, at_ms, type, action, actor,
    auth_method, token_id, outcome, resource_kind, resource_id, workspace, request_id,
    client_address, user_agent, method, route, permission, status, duration_us, bytes_in, bytes_out)
SELECT 'access', i % 6, i, '01a21c71-6ee7-7de3-bc0c-' || lpad(i::VARCHAR, 12, '0'),
    1700000000000 + i * 3, 'ApiCalled', CASE WHEN i % 50 = 0 THEN 'model.read' ELSE 'run.read' END,
    'p' || (i % 100), 'oidc', 't' || (i % 300),
    CASE WHEN i % 97 = 0 THEN 'denied' ELSE 'allowed' END,
    'run', 'r' || (i % 100000), 'default', lpad(to_hex(i * 2654435761), 16, '0'),
    '10.0.0.' || (i % 250), 'mlflow-python-client/3', 'GET', '/api/2.0/mlflow/runs/get', 'run:read',
    200, i % 10000, 0, 1000
FROM range(?, ?) AS t(i)
"""

STATEMENTS = (
    "SELECT count(*) FROM audit",
    "SELECT actor, count(*) FROM audit WHERE outcome = 'denied' GROUP BY actor ORDER BY 2 DESC",
    "SELECT * FROM audit WHERE resource_id = 'r77' ORDER BY recorded_at DESC LIMIT 20",
    "SELECT date_trunc('day', recorded_at), count(DISTINCT request_id) FROM audit GROUP BY 1",
)


def add(store: Store, begin: int, end: int) -> None:
    """Events from a number on until just before another."""
    for first in range(begin, end, CHUNK_EVENTS):
        bounds = [first, min(end, first + CHUNK_EVENTS)]
        store.read(methodcaller("execute", INSERT, bounds))


async def measure(folder: Path, events: int) -> None:
    """Print how long each takes."""
    store = bootstrap.projections_store(folder / "projections.duckdb", Settings(data_dir=folder))
    add(store, 0, events)
    runner, analysts = Runner(store), Analysts(folder)

    async def timed(what: str, statement: str) -> None:
        began = time.perf_counter()
        await analysts.answer(runner, statement, "json")
        print(f"{time.perf_counter() - began:8.2f} s  {what}")

    await timed(f"the first, which writes {events:,} events down", STATEMENTS[0])
    size = sum(file.stat().st_size for file in (folder / FOLDER).iterdir())
    print(f"{size / 1e6:8.0f} MB of Parquet")
    add(store, events, events + NEW_EVENTS)
    await timed(f"one that finds {NEW_EVENTS:,} more", STATEMENTS[0])
    for statement in STATEMENTS:
        await timed(statement, statement)
    await analysts.close()
    await runner.close()


def main() -> None:
    """Measure in a folder that is removed again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="muniment-bench-") as folder:
        asyncio.run(measure(Path(folder), events))


if __name__ == "__main__":
    main()
