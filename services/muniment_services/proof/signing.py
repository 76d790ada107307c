"""The keys that sign heads: where they are, and how one set follows another.

A set of keys has a number, from 1. Its Ed25519 key signs every head; its ML-DSA-44 key, where the
settings ask for one, signs beside it. A set comes into use by the event `SigningKeyAdded`, which is
endorsed by the set before it, so that whoever trusts one key can follow all later ones.

Whatever has a `SigningKey` per number can be a `Keyring`: a key management service needs `find`,
`add` and a key's `sign`, and the private key never comes here.
"""

from __future__ import annotations

import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from muniment_auth.identity import KEY_BYTES, FolderKeys, KeyPlace, KeysUnavailable
from muniment_schemas.head_events import PublicKey
from muniment_services.proof.note import Kind, Note, SigningKey, VerifierKey

NAME = "log-signing-key"
"""What the names of keys in their place begin with; the number follows."""

_ML_DSA_LABEL = b"muniment ML-DSA-44\n"


class NotRotated(Exception):
    """There can be no further set of keys now; the message says what to do."""


class NotSigned(Exception):
    """Nothing can be signed now; the message says why."""


class SoftKey:
    """A private key in this process."""

    def __init__(self, kind: Kind, seed: bytes) -> None:
        """seed: 32 bytes. An ML-DSA-44 key is made of a hash of it: two keys, one secret."""
        self.kind = kind
        self._key: Ed25519PrivateKey | MLDSA44PrivateKey
        if kind is Kind.ML_DSA_44:
            self._key = MLDSA44PrivateKey.from_seed_bytes(sha256(_ML_DSA_LABEL + seed).digest())
        else:
            self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> bytes:
        """The public key's raw bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The signature over a message."""
        return self._key.sign(message)


Keys = Sequence[SigningKey]
"""One set: the Ed25519 key first."""


class Keyring(Protocol):
    """Sets of keys by number. Calls block. Raises KeysUnavailable."""

    def find(self, number: int) -> Keys | None:
        """A set of keys, None when there is none of that number."""

    def add(self, number: int) -> Keys:
        """A new set of that number, or the one that is there by now. Raises NotRotated."""


class PlaceKeys:
    """Keys where those of principals are, made when they are first asked for."""

    def __init__(
        self,
        place: KeyPlace,
        kinds: Sequence[Kind],
        random: Callable[[int], bytes],
        folder: Path | None = None,
    ) -> None:
        """folder: where the place is, if it is a folder; others must not be able to read there."""
        self._place = place
        self._kinds = kinds
        self._random = random
        self._folder = folder

    def find(self, number: int) -> Keys | None:
        """The set that is kept under a number."""
        name = f"{NAME}-{number}"
        seed = self._place.get(name)
        if seed is None:
            return None
        if self._folder is not None:
            refuse_readable(self._folder / name)
        if len(seed) != KEY_BYTES:
            raise KeysUnavailable(f"the key {name} has {len(seed)} bytes, not {KEY_BYTES}")
        return _keys(self._kinds, seed)

    def add(self, number: int) -> Keys:
        """Make a set, unless another replica was quicker."""
        self._place.put_new(f"{NAME}-{number}", self._random(KEY_BYTES))
        found = self.find(number)
        if found is None:
            raise KeysUnavailable(f"the key {NAME}-{number} is neither there nor can it be made")
        return found


class EnvironmentKeys:
    """Keys that the settings give, oldest first: each 32 bytes in base64."""

    def __init__(self, seeds: Sequence[str], kinds: Sequence[Kind]) -> None:
        """Raises KeysUnavailable when one is not such a key."""
        self._kinds = kinds
        self._seeds = [_decoded(number, seed) for number, seed in enumerate(seeds, 1)]

    def find(self, number: int) -> Keys | None:
        """The set of that number."""
        return _keys(self._kinds, self._seeds[number - 1]) if number <= len(self._seeds) else None

    def add(self, number: int) -> Keys:
        """None can be made here."""
        found = self.find(number)
        if found is None:
            raise NotRotated(
                "The keys come from the setting signing_keys. Append a new one to it, behind a "
                "comma, and restart; the server then rotates by itself."
            )
        return found


def _decoded(number: int, seed: str) -> bytes:
    try:
        raw = b64decode(seed, validate=True)
    except Base64Error:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise KeysUnavailable(f"key {number} of signing_keys is not {KEY_BYTES} bytes in base64")
    return raw


def _keys(kinds: Iterable[Kind], seed: bytes) -> Keys:
    return [SoftKey(kind, seed) for kind in kinds]


def refuse_readable(path: Path) -> None:
    """Raise KeysUnavailable when others than its owner can read a key's file."""
    mode = os.stat(path).st_mode & 0o777
    if mode & 0o077:
        raise KeysUnavailable(
            f"{path} can be read by others (mode {mode:o}); whoever has it can sign heads. Run "
            f"`chmod 600 {path}`, and rotate the key if anyone had access"
        )


def open_keyring(
    place: KeyPlace,
    folder: Path | None,
    seeds: Sequence[str],
    ml_dsa: bool,
    random: Callable[[int], bytes],
) -> Keyring:
    """The keyring of a server. seeds: of the settings; none: keys are in their place."""
    kinds = (Kind.ED25519, Kind.ML_DSA_44) if ml_dsa else (Kind.ED25519,)
    if seeds:
        return EnvironmentKeys(seeds, kinds)
    assert folder is None or isinstance(place, FolderKeys)
    return PlaceKeys(place, kinds, random, folder)


def public_keys(keys: Keys) -> tuple[PublicKey, ...]:
    """The public half of a set, as its event has it."""
    return tuple(PublicKey(kind=int(key.kind), public_key=key.public_key) for key in keys)


def endorsement_text(origin: str, number: int, public_key: bytes, before: bytes | None) -> str:
    """What a set is endorsed by: origin of the log's keys, number, Ed25519 key in hex, and that of
    the set before it ("none" for the first).

    Whoever holds one key can thus tell all that came before it: no other set leads to it.
    """
    previous = "none" if before is None else before.hex()
    return f"{origin}\n{number}\n{public_key.hex()}\n{previous}\n"


def endorse(origin: str, number: int, keys: Keys, before: Keys | None) -> str:
    """The signed note that brings a set into use: by its own key, and by the one before it."""
    previous = None if before is None else before[0].public_key
    text = endorsement_text(origin, number, keys[0].public_key, previous)
    signers = [keys[0]] if before is None else [before[0], keys[0]]
    lines = [
        VerifierKey(origin, Kind.ED25519, key.public_key).sign(key, text, 0) for key in signers
    ]
    return Note(text, tuple(lines)).encode().decode()


def seal(origin: str, lines: str, key: SigningKey) -> bytes:
    """A signed note of some lines, under a name that is its first line too. key: Ed25519."""
    text = f"{origin}\n{lines}"
    signature = VerifierKey(origin, Kind.ED25519, key.public_key).sign(key, text, 0)
    return Note(text, (signature,)).encode()
