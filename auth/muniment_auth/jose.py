"""Keys that verify, and the one place that decides whether a signature is a key's.

What holds: only algorithms of a key pair are in the table, so no shared secret and no `none` can be
allowed by any setting; a key is made of the public members of a JWK alone; it has the type, the
curve and the size that its algorithm asks for. Sources: RFC 7517; RFC 7518; RFC 8725, 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

PublicKey = RSAKey | ECKey | OKPKey

RSA_BITS_MIN = 2048
"""Source: NIST SP 800-131A."""

RSA_BITS_MAX = 8192
"""Trying a longer one costs more than a caller is worth."""

MEMBER_CHARS_MAX = 2048

KEY_TYPES: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        "RS256": ("RSA", None),
        "RS384": ("RSA", None),
        "RS512": ("RSA", None),
        "PS256": ("RSA", None),
        "PS384": ("RSA", None),
        "PS512": ("RSA", None),
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
        "Ed25519": ("OKP", "Ed25519"),
    }
)
"""Every algorithm that an issuer may be allowed, with the type and curve of its keys."""

_MEMBERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)


class UnusableKey(Exception):
    """A JWK that verifies nothing here. reason: why, for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def public_key(jwk: Mapping[str, Any]) -> PublicKey:
    """The key of a JWK's public members. Raises UnusableKey."""
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise UnusableKey("is of a type that verifies nothing")
    members = {name: jwk.get(name) for name in _MEMBERS[kind]}
    texts = {name: text for name, text in members.items() if isinstance(text, str)}
    if len(texts) < len(members) or max(map(len, texts.values())) > MEMBER_CHARS_MAX:
        raise UnusableKey("lacks a member")
    if (kind, texts.get("crv")) not in KEY_TYPES.values():
        raise UnusableKey("is on a curve that is not accepted")
    data: dict[str, str | list[str]] = {"kty": kind, **texts}
    try:
        if kind == "RSA":
            return _rsa(data)
        made = ECKey.import_key(data) if kind == "EC" else OKPKey.import_key(data)
        assert made.public_key is not None
    except (JoseError, ValueError, TypeError):
        raise UnusableKey("has values that make no key") from None
    return made


def _rsa(data: dict[str, str | list[str]]) -> RSAKey:
    # Measured before it is made: the text of 2048 bits has 342 characters.
    if len(data["n"]) < RSA_BITS_MIN // 6:
        raise UnusableKey(f"has less than {RSA_BITS_MIN} bits")
    made = RSAKey.import_key(data)
    if not RSA_BITS_MIN <= made.raw_value.key_size <= RSA_BITS_MAX:
        raise UnusableKey(f"has not between {RSA_BITS_MIN} and {RSA_BITS_MAX} bits")
    return made


def fits(key: PublicKey, algorithm: str) -> bool:
    """Whether a key is of the type and curve of an algorithm, one of KEY_TYPES."""
    kind, curve = KEY_TYPES[algorithm]
    return key.key_type == kind and (curve is None or key.get("crv") == curve)


def is_signed_by(key: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
    """Whether a signature over `signed` was made by the key's other half."""
    if not fits(key, algorithm):
        return False
    try:
        return JWSRegistry.algorithms[algorithm].verify(signed, signature, key)
    except (JoseError, ValueError):
        return False
