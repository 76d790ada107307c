"""Who a principal is, sealed under a key of that principal's own.

The log keeps the sealed form for ever; destroying the key forgets the person, and no event changes.
AES-256-GCM, 12 bytes nonce in front, the principal id as associated data. Source: NIST SP 800-38D.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muniment_auth.principal import Principal

KEY_BYTES = 32
NONCE_BYTES = 12

SHARED_TRIES_MAX = 3
"""A shared key that is neither there nor can be made is asked for so often."""


class IdentityForgotten(Exception):
    """The principal's key is gone, so who it was cannot be read any more."""


class KeysUnavailable(Exception):
    """The place of the keys does not answer as it should."""


class KeyPlace(Protocol):
    """Where keys are kept: small files by name, the same for all replicas. Calls block.

    Raises KeysUnavailable.
    """

    def put_new(self, name: str, content: bytes) -> bool:
        """Keep a file, durably and whole, unless there is one of that name: False."""

    def get(self, name: str) -> bytes | None:
        """A file's content, None when there is none. It is never a part of it."""

    def names(self) -> list[str]:
        """Names of all files, sorted."""

    def remove(self, name: str) -> None:
        """Remove a file for good, durable before this returns. None of that name is no error."""


class FolderKeys:
    """Keys in a folder, one file each, readable by the server's user only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_new(self, name: str, content: bytes) -> bool:
        """Keep a file, durable before this returns, unless there is one of that name: False.

        It gets its name only when it is whole, so that another replica never reads half of it.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = self._write_unfinished(name, content)
            try:
                os.link(unfinished, self._folder / name)
            except FileExistsError:
                return False
            finally:
                unfinished.unlink()
            self._sync_folder()
        except OSError as error:
            raise KeysUnavailable(f"{self._folder}: {error.strerror}") from error
        return True

    def get(self, name: str) -> bytes | None:
        """A file's content, None when there is none."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysUnavailable(f"{self._folder}: {error.strerror}") from error

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        try:
            return sorted(p.name for p in self._folder.iterdir() if not p.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeysUnavailable(f"{self._folder}: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Remove a file, and what a crash left of making it; durable before this returns."""
        try:
            for path in (self._folder / name, *self._folder.glob(f".{name}.*")):
                path.unlink(missing_ok=True)
            if self._folder.is_dir():
                self._sync_folder()
        except OSError as error:
            raise KeysUnavailable(f"{self._folder}: {error.strerror}") from error

    def _write_unfinished(self, name: str, content: bytes) -> Path:
        path = self._folder / f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class IdentityKeys:
    """Keys of principals, by ids of their own. Calls block."""

    def __init__(self, place: KeyPlace) -> None:
        self._place = place

    def create(self, random: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, bytes]:
        """A new key: its id and its KEY_BYTES bytes, durable before this returns."""
        while True:
            key_id, key = random(16).hex(), random(KEY_BYTES)
            if self._place.put_new(key_id, key):
                return key_id, key

    def get(self, key_id: str) -> bytes:
        """The key's bytes. Raises IdentityForgotten."""
        key = self._place.get(key_id)
        if key is None:
            raise IdentityForgotten(key_id)
        return key

    def destroy(self, key_id: str) -> None:
        """Destroy a key, durably. One that is gone already is no error."""
        self._place.remove(key_id)


def shared_key(
    place: KeyPlace, name: str, random: Callable[[int], bytes] = secrets.token_bytes
) -> bytes:
    """A key that all replicas share, made by the first that asks. Raises KeysUnavailable.

    name: no 32 hex digits, which keys of principals are named by.
    """
    for _ in range(SHARED_TRIES_MAX):
        found = place.get(name)
        if found is not None:
            if len(found) != KEY_BYTES:
                raise KeysUnavailable(f"the key {name} has {len(found)} bytes, not {KEY_BYTES}")
            return found
        place.put_new(name, random(KEY_BYTES))
    raise KeysUnavailable(f"the key {name} is neither there nor can it be made")


def seal(principal: Principal, key: bytes, random: Callable[[int], bytes]) -> bytes:
    """The principal's identity as the log keeps it."""
    identity = {"iss": principal.issuer, "sub": principal.subject, "name": principal.name}
    nonce = random(NONCE_BYTES)
    plain = json.dumps(identity, separators=(",", ":")).encode()
    return nonce + AESGCM(key).encrypt(nonce, plain, principal.id.encode())


def unseal(principal_id: str, sealed: bytes, key: bytes) -> dict[str, str]:
    """The identity in a sealed form. Raises ValueError when key and sealed form do not fit."""
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        plain = AESGCM(key).decrypt(nonce, ciphertext, principal_id.encode())
    except InvalidTag:
        raise ValueError("the key does not open this identity") from None
    identity: dict[str, str] = json.loads(plain)
    return identity
