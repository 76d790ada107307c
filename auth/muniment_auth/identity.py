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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muniment_auth.principal import Principal

KEY_BYTES = 32
NONCE_BYTES = 12


class IdentityForgotten(Exception):
    """The principal's key is gone, so who it was cannot be read any more."""


class IdentityKeys:
    """Keys of principals, one file each, readable by the server's user only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, random: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, bytes]:
        """A new key: its id and its KEY_BYTES bytes, durable before this returns."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_id, key = random(16).hex(), random(KEY_BYTES)
        descriptor = os.open(self._folder / key_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        return key_id, key

    def get(self, key_id: str) -> bytes:
        """The key's bytes. Raises IdentityForgotten."""
        try:
            return (self._folder / key_id).read_bytes()
        except FileNotFoundError:
            raise IdentityForgotten(key_id) from None


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
