"""Secrets of our own as texts: tokens that people and jobs carry, and the value of session cookies.

    mnt_<id: 16 characters>_<secret: 43 characters><checksum: 6 characters>

`mnt_` begins a token, `mns_` a session. All but the prefix is base 62. The secret has 256 random
bits, so its plain SHA-256 is all that has to be kept. The checksum is the CRC-32 of what stands
before it: a scanner that finds such a text in a repository can tell it from a chance one without
asking anybody, and a slip of the pen is told from a wrong secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from muniment_auth.principal import Principal

TOKEN_PREFIX = "mnt_"
SESSION_PREFIX = "mns_"

ID_CHARS = 16
SECRET_BYTES = 32
SECRET_CHARS = 43
"""62^43 is just above 2^256."""
CHECKSUM_CHARS = 6
TEXT_CHARS = len(TOKEN_PREFIX) + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS

SCANNED_BY = r"\bmn[ts]_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}\b"
"""What secret scanners are told to look for; `is_ours` then tells real ones from chance ones."""

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE = re.compile(r"(mn[ts]_)([0-9A-Za-z]{16})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Secret:
    """A token or a session's value, taken apart. Neither shown nor logged: `repr` hides it."""

    prefix: str
    id: str
    secret: str

    @property
    def text(self) -> str:
        """The whole, as it is carried."""
        body = f"{self.prefix}{self.id}_{self.secret}"
        return body + _checksum(body)

    @property
    def sha256(self) -> bytes:
        """What is kept of the secret part."""
        return hashlib.sha256(self.secret.encode()).digest()

    def fits(self, secret_sha256: bytes) -> bool:
        """Whether the secret is the one that was kept; takes the same time either way."""
        return hmac.compare_digest(self.sha256, secret_sha256)

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Secret({self.prefix}{self.id}_…)"


def new_secret(prefix: str, random: Random) -> Secret:
    """A new token or session value. random: so many random bytes."""
    # The id is no secret; 16 bytes reduced to 16 characters are even enough for that.
    number = int.from_bytes(random(16), "big") % 62**ID_CHARS
    secret = int.from_bytes(random(SECRET_BYTES), "big")
    return Secret(prefix, _base62(number, ID_CHARS), _base62(secret, SECRET_CHARS))


def parse(text: str, prefix: str) -> Secret | None:
    """A text as the secret that it is; None when it has not the form or not the checksum."""
    if len(text) != TEXT_CHARS or not text.startswith(prefix):
        return None
    found = _SHAPE.fullmatch(text)
    if found is None or _checksum(text[:-CHECKSUM_CHARS]) != found[4]:
        return None
    return Secret(found[1], found[2], found[3])


def is_ours(text: str) -> bool:
    """Whether a text is a token or session value of some muniment server, by its checksum."""
    return parse(text, TOKEN_PREFIX) is not None or parse(text, SESSION_PREFIX) is not None


def covers(scopes: frozenset[str] | None, wanted: frozenset[str] | None) -> bool:
    """Whether a credential with `scopes` may make one with `wanted`. None: no limit.

    Patterns are compared part by part, not by what they stand for today, so that a permission that
    comes later widens no token that was made before.
    """
    if scopes is None:
        return True
    if wanted is None:
        return False
    return all(any(_covers(scope, one) for scope in scopes) for one in wanted)


def narrowed(scopes: frozenset[str] | None, maker: Principal) -> frozenset[str] | None:
    """The scopes of a new token when none (None) or these are asked for by `maker`.

    Who is limited and asks for no limit gets its own. Raises ScopesTooWide.
    """
    wanted = maker.scopes if scopes is None else scopes
    if not covers(maker.scopes, wanted):
        raise ScopesTooWide
    return wanted


class ScopesTooWide(Exception):
    """A token was asked for that could do more than the credential that asks."""


def _covers(scope: str, wanted: str) -> bool:
    has, wants = _parts(scope), _parts(wanted)
    return all(h in ("*", w) for h, w in zip(has, wants, strict=True))


def _parts(scope: str) -> tuple[str, str]:
    resource, found, verb = scope.partition(":")
    return (resource, verb) if found else (scope, scope)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    assert number == 0, "the number has more digits"
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARS)
