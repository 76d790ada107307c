"""Where the projections' database is, while one is in use and another is being built.

At rest there is one file, PROJECTIONS_FILE. A server that rebuilds makes the new one beside it
under a name with a number, and goes on using that name until it stops or is started again. What
always holds: a file without NEW_SUFFIX is complete, of two the one with the higher number is newer,
and each of them is a usable cache of the log. Dying at any point therefore loses nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from muniment_projections.store import wal_of

PROJECTIONS_FILE = "projections.duckdb"
NEW_SUFFIX = ".new"

_NUMBERED = "projections.*.duckdb"
_UNFINISHED = f"projections.*duckdb{NEW_SUFFIX}*"


def settle(folder: Path) -> Path:
    """Leave one file at rest, the newest complete one, and return its path (it may not exist yet).

    Only for who holds the log's lock: nobody else may be using or building projections.
    """
    current = folder / PROJECTIONS_FILE
    for stray in folder.glob(_UNFINISHED):
        stray.unlink(missing_ok=True)
    *older, newest = [current, *sorted(folder.glob(_NUMBERED))]
    if newest != current:
        replace(newest, current)
        for path in older[1:]:
            remove(path)
    return current


def newest(folder: Path) -> Path | None:
    """The complete file that counts, if there is one. Changes nothing."""
    current = folder / PROJECTIONS_FILE
    found = sorted(folder.glob(_NUMBERED)) or ([current] if current.exists() else [])
    return found[-1] if found else None


def numbered(folder: Path, now_ms: int) -> Path:
    """The name that the next rebuilt file gets beside the one in use."""
    return folder / f"projections.{now_ms:015d}.duckdb"


def unfinished(path: Path) -> Path:
    """The name that a file has while it is being built."""
    return path.with_name(path.name + NEW_SUFFIX)


def replace(new: Path, current: Path) -> None:
    """Put a closed database in the place of another one.

    The old write-ahead log goes first: without it the old file is just a little older.
    """
    wal_of(current).unlink(missing_ok=True)
    if wal_of(new).exists():
        os.replace(wal_of(new), wal_of(current))
    os.replace(new, current)


def remove(path: Path) -> None:
    """Delete a database and its write-ahead log."""
    wal_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
