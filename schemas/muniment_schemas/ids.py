"""Identifiers that the whole house shares, each with a type of its own.

An id is made once, at the edge of a write, from a clock and randomness that come in from outside;
nothing in this module reads either by itself.
"""

from __future__ import annotations

import hashlib
from typing import NewType

Offset = NewType("Offset", int)
"""Place of a record in its topic-partition: 0, 1, 2, … without holes."""

AggregateVersion = NewType("AggregateVersion", int)
"""How many events of one aggregate have been applied; 0 means that it does not exist."""

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", str)
PrincipalId = NewType("PrincipalId", str)

UUID7_RANDOM_BYTES = 10


def uuid7_hex(now_ms: int, random_bytes: bytes) -> str:
    """A UUIDv7 as 32 lower-case hex digits, so that ids sort by the time they were made.

    now_ms: milliseconds since 1970, 48 bits. random_bytes: UUID7_RANDOM_BYTES of them.
    Source: RFC 9562, section 5.7.
    """
    assert len(random_bytes) == UUID7_RANDOM_BYTES
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(random_bytes, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def derived_uuid7_hex(now_ms: int, secret: bytes) -> str:
    """A UUIDv7 whose random part is a digest of `secret`: the same input gives the same id.

    Used for creates that carry an Idempotency-Key, so that a repeat meets the thing it made.
    """
    return uuid7_hex(now_ms, hashlib.sha256(secret).digest()[:UUID7_RANDOM_BYTES])


def dashed(uuid_hex: str) -> str:
    """32 hex digits in the 8-4-4-4-12 form that event ids are written in."""
    assert len(uuid_hex) == 32
    return "-".join((uuid_hex[:8], uuid_hex[8:12], uuid_hex[12:16], uuid_hex[16:20], uuid_hex[20:]))
