"""A token read without trusting it, and claims once they are verified.

Nothing here looks at a key. What a token is not allowed to be by its form alone ends here, before
any issuer is asked anything. Sources: RFC 7515, RFC 7519, RFC 8725.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType

from muniment_auth.errors import Unauthenticated
from muniment_auth.jose import KEY_TYPES

TOKEN_BYTES_MAX = 16 * 1024
HEADER_BYTES_MAX = 4 * 1024
KID_CHARS_MAX = 256
VALUES_MAX = 1000
VALUE_CHARS_MAX = 1000
HEADER_MEMBERS_MAX = 32

DEPTH_MAX = 16
"""Objects and lists in each other. Eight actors in a chain take nine."""

BRACKETS_MAX = 1000
"""All `[` and `{` of a token's JSON, so that what is parsed is bounded before it is."""

DOCUMENT_BRACKETS_MAX = 20_000
"""The same for a provider's document, whose depth is bounded too."""

REFUSED_HEADERS = ("crit", "b64", "enc", "zip", "cty")
"""They ask for what is not done here: extensions, encryption, tokens in tokens."""

Claims = NewType("Claims", Mapping[str, Any])
"""The payload of a token whose signature has been verified. Made in `verify.py` only."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed token. Nothing that it says is to be believed yet."""

    text: str
    header: Mapping[str, Any]
    payload: Mapping[str, Any]

    @property
    def algorithm(self) -> str:
        """What it says to be signed with."""
        return str(self.header["alg"])

    @property
    def key_id(self) -> str | None:
        """Which key it says to be signed with; None: it does not say."""
        kid: str | None = self.header.get("kid")
        return kid

    @property
    def typ(self) -> str:
        """The header's `typ`, which media type names spell in any case."""
        return str(self.header.get("typ", "")).lower()

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return self.text.rpartition(".")[0].encode("ascii")

    @property
    def signature(self) -> bytes:
        """The signature's bytes."""
        return decoded(self.text.rpartition(".")[2])


def looks_like_jwt(text: str) -> bool:
    """Whether a token claims to be a signed JWT (or a JWE), rather than an opaque one."""
    # `{"`, `{ `, `{` and a line's end: how a header's JSON begins in base64url.
    return text.startswith(("eyJ", "eyA", "ewo", "ew0"))


def read(text: str) -> Unverified:
    """A compact JWS with JSON objects in it. Raises Unauthenticated for anything else."""
    if len(text) > TOKEN_BYTES_MAX:
        raise Unauthenticated(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
    parts = text.split(".")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise Unauthenticated("the token is no signed JWT")
    if len(parts[0]) > HEADER_BYTES_MAX:
        raise Unauthenticated("the token's header is too long")
    decoded(parts[2])
    header, payload = _object(parts[0]), _object(parts[1])
    _check_header(header)
    return Unverified(text, header, payload)


def _check_header(header: Mapping[str, Any]) -> None:
    """`jku`, `x5u`, `x5c` are read nowhere, and `jwk` in DPoP proofs only."""
    if len(header) > HEADER_MEMBERS_MAX:
        raise Unauthenticated("the token's header is too long")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in KEY_TYPES:
        raise Unauthenticated("the token's algorithm is none that is ever accepted")
    if any(name in header for name in REFUSED_HEADERS):
        raise Unauthenticated("the token's header asks for what is not supported")
    if not isinstance(header.get("typ", ""), str):
        raise Unauthenticated("the token's type is none")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARS_MAX):
        raise Unauthenticated("the token's key id is none")


def decoded(segment: str) -> bytes:
    """The bytes of a base64url text without padding. Raises Unauthenticated."""
    try:
        plain = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated("the token is no signed JWT") from None
    if base64.urlsafe_b64encode(plain).rstrip(b"=").decode() != segment:
        raise Unauthenticated("the token is no signed JWT")  # Bits that no encoder sets.
    return plain


def _object(segment: str) -> Mapping[str, Any]:
    try:
        return json_object(decoded(segment))
    except ValueError:
        raise Unauthenticated("the token is no signed JWT") from None


def json_object(text: bytes, brackets_max: int = BRACKETS_MAX) -> dict[str, Any]:
    """One JSON object that has one reading: no name twice, no NaN, no deep nesting, in UTF-8.

    Raises ValueError.
    """
    if text.count(b"[") + text.count(b"{") > brackets_max:
        raise ValueError("too many lists and objects")
    try:
        found = json.loads(
            text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    if not _is_shallow(found, DEPTH_MAX):
        raise ValueError("too deep")
    if b"\\u" in text:
        # Half a surrogate pair is text that nobody could write down. Raises UnicodeEncodeError.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    return found


def _is_shallow(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value)
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def time_s(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate, None if it is not there. Raises Unauthenticated for what is none."""
    found = claims.get(name)
    if found is None and name not in claims:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Unauthenticated(f"the token's {name} is no time")
    try:
        value = float(found)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise Unauthenticated(f"the token's {name} is no time")
    return value


def texts(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """A claim's values as texts: one text, number or boolean, or a list of them; else nothing.

    path: the claim's name, or where it is not there, the way to it through objects.
    """
    found = _at(claims, path)
    items = found if isinstance(found, list) else [found]
    kept = (_text(item) for item in items[:VALUES_MAX])
    return tuple(text for text in kept if text is not None and len(text) <= VALUE_CHARS_MAX)


def _text(item: object) -> str | None:
    match item:
        case bool():
            return str(item).lower()
        case str():
            return item
        case int():
            return str(item)
    return None


def _at(claims: Mapping[str, Any], path: str) -> object:
    if path in claims:
        return claims[path]
    for name, value in claims.items():
        rest = path.removeprefix(f"{name}.")
        if rest != path and isinstance(value, dict):
            found = _at(value, rest)
            if found is not None:
                return found
    return None
