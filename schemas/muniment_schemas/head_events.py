"""Events of the checkpoints topic: signed heads, and the keys that sign them. Fields: `.avsc`."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.envelope import CHECKPOINTS, Event


class SignedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The head of one tree."""

    topic: str
    partition: int
    size: int
    checkpoint: str


class HeadsSigned(Event, frozen=True, kw_only=True):
    """Heads were signed, each of which extends the one of its tree before it."""

    TOPIC: ClassVar[str] = CHECKPOINTS
    AGGREGATE: ClassVar[str] = "log"
    heads: tuple[SignedHead, ...]


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key that signs each head. kind: C2SP signature type."""

    kind: int
    public_key: bytes


class SigningKeyAdded(Event, frozen=True, kw_only=True):
    """Heads are signed by other keys from here on."""

    TOPIC: ClassVar[str] = CHECKPOINTS
    AGGREGATE: ClassVar[str] = "log"
    number: int
    keys: tuple[PublicKey, ...]
    endorsement: str
