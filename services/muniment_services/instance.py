"""Who serves a data folder: a small file in it says where, so that other commands find the server.

The file is a hint and no lock. Whether a server runs is told by the log's lock alone, because a
killed server leaves its file behind.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

INSTANCE_FILE = "server.json"
MODE = 0o600


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One running server. url: where this machine reaches it."""

    url: str
    pid: int
    version: str
    started_at_ms: int


def publish(data_dir: Path, instance: Instance) -> None:
    """Write the file, whole or not at all."""
    path = data_dir / INSTANCE_FILE
    new = path.with_name(f"{INSTANCE_FILE}.{instance.pid}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(instance)) + b"\n")
    os.replace(new, path)


def withdraw(data_dir: Path, pid: int) -> None:
    """Remove the file, unless it is another process's."""
    found = find(data_dir)
    if found is not None and found.pid == pid:
        (data_dir / INSTANCE_FILE).unlink(missing_ok=True)


def find(data_dir: Path) -> Instance | None:
    """What the file says, or None when there is none or it cannot be read as one."""
    try:
        return msgspec.json.decode((data_dir / INSTANCE_FILE).read_bytes(), type=Instance)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
