"""The process in which a running server has its projections built anew. Not for people.

`python -m muniment_services.cli.build FILE`, with the server's settings as JSON on standard input,
reads the log beside the server, folds it into a new database at FILE, and prints a BuilderLine for
every batch. When the server dies, the next line finds nobody to read it and ends this process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import duckdb
import msgspec

from muniment_projections.store import StoreError
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.log import opening
from muniment_services.log.base import LogError
from muniment_services.rebuild import CatchUp
from muniment_services.rebuilder import BuilderLine

NICENESS = 10
"""The server that waits for us comes first."""

NEAR_EVENTS = 2_000
"""So near to the end of the log the server takes over."""

ROUNDS_MAX = 50


def build(settings: Settings, path: Path) -> None:
    """Build the file; incomplete when LogError, StoreError, duckdb.Error or OSError is raised."""
    log = opening.open_log(settings, read_only=True)
    with asyncio.Runner() as loop:
        loop.run(log.start())
        store = bootstrap.projections_store(path, settings)
        store.belong_to(log.log_id)
        rest = CatchUp(log, bootstrap.codec(log), store)
        done = 0
        for _ in range(ROUNDS_MAX):
            ends = loop.run(log.end_offsets())
            left = rest.left(ends)
            if done and left <= NEAR_EVENTS:
                break
            total = done + left

            def told(events: int, total: int = total) -> None:
                nonlocal done
                done += events
                _tell(BuilderLine(events=done, total=total))

            rest.run(ends, told)
        store.close()
        loop.run(log.close())


def _tell(line: BuilderLine) -> None:
    print(msgspec.json.encode(line).decode(), flush=True)


def main() -> None:
    """Build what the arguments say; the last line tells what went wrong, if anything did."""
    os.nice(NICENESS)
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    try:
        build(settings, Path(sys.argv[1]))
    except (LogError, StoreError, duckdb.Error, OSError) as error:
        _tell(BuilderLine(error=str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
