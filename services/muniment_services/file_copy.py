"""Copies one file, as a process of its own: `python file_copy.py SOURCE TARGET`.

DuckDB holds a POSIX lock on its file, and a process loses all such locks on a file as soon as it
closes any descriptor of it. Whoever has the database open must therefore not open the file a second
time; another process may. The copy shares the source's blocks where the file system can do that.
Exit status: 0, or the operating system's error number.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

FICLONE = 0x40049409
"""Linux: have a file share all blocks of another one (btrfs, xfs)."""

CHUNK_BYTES = 1 << 30


def copy_by_process(source: Path, target: Path) -> None:
    """Copy a file without opening it in this process. Raises OSError; the target is then gone."""
    command = (sys.executable, "-I", "-S", __file__, str(source), str(target))
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if ended.returncode:
        target.unlink(missing_ok=True)
        known = ended.returncode > 0 and not ended.stderr
        reason = os.strerror(ended.returncode) if known else ended.stderr.decode(errors="replace")
        raise OSError(ended.returncode, f"the copy failed: {reason}", str(target))


def copy(source: str, target: str) -> None:
    """Copy a file in this process. Raises OSError."""
    with open(source, "rb") as read, open(target, "wb") as written:
        try:
            fcntl.ioctl(written.fileno(), FICLONE, read.fileno())
            return
        except OSError:
            pass  # Another file system, or one that cannot share: copy the bytes.
        while os.sendfile(written.fileno(), read.fileno(), None, CHUNK_BYTES):
            pass


def main() -> None:
    """Copy what the arguments say."""
    try:
        copy(*sys.argv[1:])
    except OSError as error:
        sys.exit(error.errno)


if __name__ == "__main__":
    main()
