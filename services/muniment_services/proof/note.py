"""Signed notes: a text with signature lines, by Ed25519 and, beside it, by ML-DSA-44.

    the text, whose last line ends in a newline
                                            (an empty line)
    — name base64(key id, 4 bytes | signature)

Source: C2SP signed-note (2026-07); C2SP tlog-cosignature (2026-07) for signatures with a time.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from muniment_services.proof.checkpoint import parse as parse_checkpoint

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
"""Both as in Go's golang.org/x/mod/sumdb/note; C2SP asks for at least 16 signatures."""

KEY_ID_BYTES = 4
TIME_BYTES = 8
TIME_MAX = 2**63 - 1

_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteInvalid(Exception):
    """A note or a verifier key cannot be read, or is not signed as it must be."""


class Kind(IntEnum):
    """Signature types. Source: C2SP signed-note, "Signature types"."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    """Ed25519 with a time, by a witness."""
    ML_DSA_44 = 0x06
    """ML-DSA-44 with a time, by a log or a witness."""


PUBLIC_KEY_BYTES: Mapping[Kind, int] = {
    Kind.ED25519: 32,
    Kind.COSIGNATURE: 32,
    Kind.ML_DSA_44: 1312,
}


class SigningKey(Protocol):
    """A private key, wherever it is: all that is asked of a key management service. Calls block.

    kind: ED25519 or ML_DSA_44. Raises KeysUnavailable.
    """

    @property
    def kind(self) -> Kind:
        """Its algorithm."""

    @property
    def public_key(self) -> bytes:
        """32 bytes of Ed25519 (RFC 8032), or 1312 of ML-DSA-44 (FIPS 204)."""

    def sign(self, message: bytes) -> bytes:
        """The signature over a message: 64 or 2420 bytes."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line, with its newline."""
        return f"— {self.name} {b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, none of them verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The note as it is served and stored."""
        return f"{self.text}\n{''.join(s.line for s in self.signatures)}".encode()


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """What verifies the signatures of one name by one key."""

    name: str
    kind: Kind
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The key's id in signature lines."""
        told = self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key
        return sha256(told).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as text. Source: C2SP signed-note, "Verifier keys"."""
        key = b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def sign(self, key: SigningKey, text: str, now_s: int) -> Signature:
        """A signature line by the private key of this one."""
        time = b"" if self.kind is Kind.ED25519 else now_s.to_bytes(TIME_BYTES, "big")
        message = _message(self.kind, self.name, text, now_s)
        return Signature(self.name, self.key_id, time + key.sign(message))

    def verifies(self, text: str, signature: Signature) -> bool:
        """Whether a signature line of this name and id is by this key and of this text."""
        signed, time_s = signature.signature, 0
        if self.kind is not Kind.ED25519:
            signed, time_s = signed[TIME_BYTES:], int.from_bytes(signed[:TIME_BYTES], "big")
            if not 0 < time_s <= TIME_MAX:
                return False
        public: Ed25519PublicKey | MLDSA44PublicKey
        try:
            if self.kind is Kind.ML_DSA_44:
                public = MLDSA44PublicKey.from_public_bytes(self.public_key)
            else:
                public = Ed25519PublicKey.from_public_bytes(self.public_key)
            public.verify(signed, _message(self.kind, self.name, text, time_s))
        except (InvalidSignature, ValueError):
            return False
        return True


def _message(kind: Kind, name: str, text: str, time_s: int) -> bytes:
    """What is signed. Source: C2SP tlog-cosignature, "Ed25519" and "ML-DSA-44 signed message"."""
    if kind is Kind.ED25519:
        return text.encode()
    if kind is Kind.COSIGNATURE:
        return f"cosignature/v1\ntime {time_s}\n{text}".encode()
    head = parse_checkpoint(text)
    origin, cosigner = head.origin.encode(), name.encode()
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes([len(cosigner)]) + cosigner,
            time_s.to_bytes(8, "big"),
            bytes([len(origin)]) + origin,
            (0).to_bytes(8, "big"),
            head.size.to_bytes(8, "big"),
            head.root,
        )
    )


def verifier_key(vkey: str) -> VerifierKey:
    """A verifier key from its text. Raises NoteInvalid."""
    name, _, rest = vkey.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        raw = b64decode(encoded, validate=True)
        key = VerifierKey(name, Kind(raw[0]), raw[1:])
    except (Base64Error, IndexError, ValueError):
        raise NoteInvalid(f"{vkey!r} is not a verifier key of a kind that is known") from None
    if len(key.public_key) != PUBLIC_KEY_BYTES[key.kind] or key.vkey != vkey.strip():
        raise NoteInvalid(f"{vkey!r} is not a verifier key: its id should be {key_id}")
    return key


def parse(raw: bytes) -> Note:
    """Text and signature lines of a note. Raises NoteInvalid."""
    if len(raw) > NOTE_BYTES_MAX:
        raise NoteInvalid(f"a note has at most {NOTE_BYTES_MAX} bytes")
    try:
        whole = raw.decode()
    except UnicodeDecodeError:
        raise NoteInvalid("a note is UTF-8") from None
    text, found, lines = whole.rpartition("\n\n")
    if not found or not lines.endswith("\n") or _CONTROL.search(whole):
        raise NoteInvalid("a note is a text, an empty line and signature lines")
    return Note(f"{text}\n", signature_lines(lines))


def signature_lines(lines: str) -> tuple[Signature, ...]:
    """Signature lines, each with its newline. Raises NoteInvalid."""
    signatures = tuple(_signature(line) for line in lines[:-1].split("\n"))
    if len(signatures) > SIGNATURES_MAX:
        raise NoteInvalid(f"a note has at most {SIGNATURES_MAX} signatures")
    return signatures


def _signature(line: str) -> Signature:
    found = _LINE.fullmatch(line)
    try:
        raw = b64decode(found[2], validate=True) if found else b""
    except Base64Error:
        raw = b""
    if found is None or len(raw) <= KEY_ID_BYTES:
        raise NoteInvalid(f"{line[:80]!r} is not a signature line")
    return Signature(found[1], raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def signers_of(note: Note, keys: Iterable[VerifierKey]) -> Sequence[VerifierKey]:
    """Those of some keys that signed a note, each once. Raises NoteInvalid for a signature that
    claims to be by one of them and is not.
    """
    known = {(key.name, key.key_id): key for key in keys}
    signed: dict[VerifierKey, None] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.verifies(note.text, signature):
            raise NoteInvalid(f"the signature by {key.name} is not of this text")
        signed[key] = None
    return list(signed)


def opened(raw: bytes, keys: Iterable[VerifierKey]) -> Note:
    """A note that at least one of some keys signed. Raises NoteInvalid."""
    note = parse(raw)
    if not signers_of(note, keys):
        raise NoteInvalid("it has no signature by a key that is known here")
    return note
