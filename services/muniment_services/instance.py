"""Who serves a data folder: a lock on it, and a small file that says where the server is.

The lock belongs to one process at a time, and ends with it. The file is a hint for other commands
and no lock, because a killed server leaves it behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

INSTANCE_FILE = "server.json"
LOCK_FILE = "server.lock"
MODE = 0o600


class FolderInUse(Exception):
    """Another process has the data folder."""

    def __init__(self, data_dir: Path, pid: str) -> None:
        super().__init__(
            f"process {pid} uses {data_dir}; stop it first, or name another data folder"
        )


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Have the data folder to oneself; it is made if it is not there. Raises FolderInUse."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, MODE)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(data_dir, os.read(lock, 32).decode().strip()) from None
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(lock)


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


def runs(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find(data_dir: Path) -> Instance | None:
    """What the file says, or None when there is none or it cannot be read as one."""
    try:
        return msgspec.json.decode((data_dir / INSTANCE_FILE).read_bytes(), type=Instance)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
