"""The sign-ins stored on this machine: one file for each server and issuer, for its owner only.

A file is replaced as a whole, never edited, so that a reader sees the old or the new. Who is about
to renew a sign-in holds its lock file: with rotation, a refresh token may be used once, and two
processes that use it at the same time lose the sign-in for both.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from muniment_client.errors import CacheUnusable

FORMAT = 1
LOCK_WAIT_S_MAX = 90.0
"""Longer than one renewal with all its attempts and timeouts can take."""
LOCK_POLL_S = 0.02
DIGEST_CHARS = 24

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SignIn:
    """One stored sign-in. Times are seconds since 1970."""

    server: str
    issuer: str
    client_id: str
    token_endpoint: str
    revocation_endpoint: str | None
    access_token: str = dataclasses.field(repr=False)
    refresh_token: str | None = dataclasses.field(repr=False)
    issued_at: float
    expires_at: float
    who: str = ""


class Cache:
    """A folder of sign-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, server: str, issuer: str) -> Path:
        """Where a sign-in is stored, whether it is or not."""
        return self.folder / f"{_digest(server)}-{_digest(issuer)}.json"

    def find(self, server: str, issuer: str | None = None) -> SignIn | None:
        """The newest sign-in for a server, from this issuer if one is named."""
        stored = [self._read(path) for path in self._paths(f"{_digest(server)}-*.json")]
        fitting = [
            one for one in stored if one and one.server == server and issuer in (None, one.issuer)
        ]
        return max(fitting, key=lambda one: one.issued_at, default=None)

    def all(self) -> list[SignIn]:
        """Every sign-in that can be read."""
        stored = [self._read(path) for path in self._paths("*-*.json")]
        return [one for one in stored if one is not None]

    def load(self, server: str, issuer: str) -> SignIn | None:
        """The sign-in for a server and issuer, None when there is none."""
        return self._read(self.path(server, issuer))

    def store(self, sign_in: SignIn) -> None:
        """Put a sign-in in place of the one before. Raises CacheUnusable."""
        path = self.path(sign_in.server, sign_in.issuer)
        draft = path.with_name(f"{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        content = json.dumps({"format": FORMAT, **dataclasses.asdict(sign_in)})
        try:
            self._make_folder()
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(draft, path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise CacheUnusable(str(path), error.strerror or str(error)) from error

    def remove(self, sign_in: SignIn) -> None:
        """Forget a sign-in; it need not be there."""
        self.path(sign_in.server, sign_in.issuer).unlink(missing_ok=True)

    @contextmanager
    def locked(self, server: str, issuer: str, wait_s: float = LOCK_WAIT_S_MAX) -> Iterator[None]:
        """Alone among all processes with one sign-in. Raises CacheUnusable after a bounded wait."""
        path = self.path(server, issuer).with_suffix(".lock")
        try:
            self._make_folder()
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise CacheUnusable(str(path), error.strerror or str(error)) from error
        try:
            _lock(handle, path, wait_s)
            try:
                yield
            finally:
                _unlock(handle)
        finally:
            os.close(handle)

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _paths(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern)) if self.folder.is_dir() else []

    def _read(self, path: Path) -> SignIn | None:
        try:
            with path.open(encoding="utf-8") as stored:
                if os.name == "posix" and os.fstat(stored.fileno()).st_mode & 0o077:
                    logger.warning("Others can read %s: run `chmod 600` on it.", path)
                found = json.load(stored)
            if found.pop("format") != FORMAT:
                return None
            return SignIn(**found)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheUnusable(str(path), error.strerror or str(error)) from error
        except (ValueError, TypeError, KeyError, AttributeError):
            logger.warning("%s is no stored sign-in, and is left aside.", path)
            return None


def default_cache(environ: Mapping[str, str]) -> Cache:
    """The folder that MUNIMENT_CLIENT_CACHE names, else one in the user's configuration."""
    if named := environ.get("MUNIMENT_CLIENT_CACHE"):
        return Cache(Path(named).expanduser())
    base = environ.get("APPDATA") if os.name == "nt" else environ.get("XDG_CONFIG_HOME")
    return Cache((Path(base) if base else Path.home() / ".config") / "muniment" / "client")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def _lock(handle: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            _try_lock(handle)
            return
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise CacheUnusable(str(path), "this file system has no locks") from error
        if time.monotonic() > deadline:
            raise CacheUnusable(str(path), f"locked by another process for {wait_s:g} s")
        time.sleep(LOCK_POLL_S)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
