"""Keys sealed under a passphrase: what a backup may hold of them.

Each key is sealed by itself (AES-256-GCM, its name as associated data), so that the one of an
erased principal can be taken out of a place without touching the others. The sealing key comes from
the passphrase by scrypt with a salt of the place. Sources: RFC 7914; OWASP's Password Storage Cheat
Sheet (N = 2^17, r = 8, p = 1); NIST SP 800-38D.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from muniment_services.backup.base import KEYS, BackupDamaged, Backups, PassphraseWrong

PASSPHRASE_PATH = f"{KEYS}/passphrase.json"
CHECKED = b"muniment backup"
SCRYPT_N = 2**17
SALT_BYTES, NONCE_BYTES, KEY_BYTES = 16, 12, 32


class _Passphrase(msgspec.Struct, frozen=True, kw_only=True):
    # check: CHECKED, sealed; so that a wrong passphrase is told before anything is done.
    salt: bytes
    n: int
    r: int = 8
    p: int = 1
    check: bytes = b""

    def sealing_key(self, passphrase: str) -> bytes:
        kdf = Scrypt(self.salt, KEY_BYTES, n=self.n, r=self.r, p=self.p)
        return kdf.derive(passphrase.encode())


class Sealer:
    """Seals and opens keys of one place. Made by `sealer_of`."""

    def __init__(self, sealing_key: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(sealing_key)
        self._random = random

    def seal(self, name: str, content: bytes) -> bytes:
        """A key as the place keeps it."""
        nonce = self._random(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """The key in a sealed form. Raises PassphraseWrong."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            raise PassphraseWrong(f"the passphrase does not open the key {name}.") from None


def sealer_of(backups: Backups, passphrase: str, random: Callable[[int], bytes]) -> Sealer:
    """What seals the keys of a place; the first one decides the passphrase. Blocking.

    Raises PassphraseWrong, BackupDamaged.
    """
    known = backups.read(PASSPHRASE_PATH)
    if known is None:
        made = _Passphrase(salt=random(SALT_BYTES), n=SCRYPT_N)
        sealer = Sealer(made.sealing_key(passphrase), random)
        made = msgspec.structs.replace(made, check=sealer.seal(PASSPHRASE_PATH, CHECKED))
        backups.put(PASSPHRASE_PATH, msgspec.json.encode(made))
        return sealer
    try:
        found = msgspec.json.decode(known, type=_Passphrase)
    except msgspec.DecodeError as error:
        raise BackupDamaged(f"{PASSPHRASE_PATH} cannot be read: {error}.") from error
    sealer = Sealer(found.sealing_key(passphrase), random)
    try:
        sealer.open(PASSPHRASE_PATH, found.check)
    except PassphraseWrong:
        raise PassphraseWrong(
            f"the keys in {backups.place} are sealed under another passphrase. Give that one, or "
            "begin in another place."
        ) from None
    return sealer
