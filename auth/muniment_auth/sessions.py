"""Browser sessions: their cookies, their CSRF tokens, a login under way, what renews a session.

A login that is under way is kept by the browser itself, sealed under a key that all replicas share,
so that any of them can finish what another one began. What a session is renewed with is kept by the
server, sealed under the session's own secret, which only the browser has.
Source: RFC 6265bis (cookie name prefixes, SameSite); NIST SP 800-38D (AES-GCM).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muniment_auth.tokens import SESSION_PREFIX, Secret, parse

SESSION_COOKIE = "__Host-muniment_session"
LOGIN_COOKIE = "__Host-muniment_login"

LOGIN_LIFE_MS = 10 * 60 * 1000
"""A login has to be finished within so long."""

CSRF_HEADER = b"x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

RETURN_TO_CHARS_MAX = 2000
"""Longest path that a browser is sent back to after its login."""

_FLAGS = "; Path=/; Secure; HttpOnly; SameSite=Lax"
_NONCE_BYTES = 12
_RENEWAL_PURPOSE = b"muniment session renewal"
_CSRF_PURPOSE = b"muniment csrf token"
_LOGIN_PURPOSE = b"muniment login"
_LOCAL_PATH = re.compile(r"/[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
"""What RFC 3986 lets stand in a path, a query and a fragment."""


class Login(msgspec.Struct, frozen=True):
    """A login that is under way: with whom, what its answer must carry, where it leads."""

    issuer: str
    state: str
    nonce: str
    verifier: str
    return_to: str
    expires_at_ms: int

    def __repr__(self) -> str:
        """Without what must not be shown."""
        return f"Login({self.issuer!r}, {self.return_to!r})"


class Renewal(msgspec.Struct, frozen=True):
    """What the provider is asked with who is logged in still is, and what the answer may repeat."""

    refresh_token: str
    nonce: str

    def __repr__(self) -> str:
        """Without what must not be shown."""
        return "Renewal(…)"


def seal_renewal(secret: Secret, renewal: Renewal, random: Callable[[int], bytes]) -> bytes:
    """A renewal as the log keeps it: nobody opens it who has not the session's secret.

    random: so many random bytes.
    """
    nonce = random(_NONCE_BYTES)
    plain = msgspec.json.encode(renewal)
    return nonce + _renewal_cipher(secret).encrypt(nonce, plain, secret.id.encode())


def open_renewal(secret: Secret, sealed: bytes) -> Renewal | None:
    """The renewal of a session; None when it is not this session's."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        plain = _renewal_cipher(secret).decrypt(nonce, ciphertext, secret.id.encode())
    except (InvalidTag, ValueError):
        return None
    return msgspec.json.decode(plain, type=Renewal)


def _renewal_cipher(secret: Secret) -> AESGCM:
    return AESGCM(hmac.new(secret.secret.encode(), _RENEWAL_PURPOSE, hashlib.sha256).digest())


def cookie_values(cookies: str, name: str) -> list[str]:
    """The values that a Cookie header has under a name."""
    pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
    return [value for found, _, value in pairs if found == name]


def session_cookie(cookies: str) -> str | None:
    """The session's value in a Cookie header.

    Two of them are as good as none that fits: nobody can tell which one is the browser's own.
    """
    values = cookie_values(cookies, SESSION_COOKIE)
    if not values:
        return None
    return values[0] if len(values) == 1 else ""


def session_secret(cookies: str) -> Secret | None:
    """The session in a Cookie header; None when there is none, or none that has the form."""
    return parse(session_cookie(cookies) or "", SESSION_PREFIX)


def set_session(secret: Secret, life_s: int) -> str:
    """The Set-Cookie value that begins a session."""
    return f"{SESSION_COOKIE}={secret.text}; Max-Age={life_s}{_FLAGS}"


def clear(name: str) -> str:
    """The Set-Cookie value that removes one of our cookies."""
    return f"{name}=; Max-Age=0{_FLAGS}"


def csrf_token(secret: Secret) -> str:
    """What a session's own pages send with every write; it follows from the session's secret."""
    return hmac.new(secret.secret.encode(), _CSRF_PURPOSE, hashlib.sha256).hexdigest()


def csrf_fits(secret: Secret, given: bytes) -> bool:
    """Whether it is this session's CSRF token; takes the same time either way."""
    return hmac.compare_digest(csrf_token(secret).encode(), given)


def same_origin(headers: Mapping[bytes, bytes], origin: str | None) -> bool:
    """Whether a request was sent by a page of this server.

    origin: as browsers know the server; None: the Origin's host must be the Host header's. Browsers
    send Origin with every write; one without it is not taken for a page's.
    """
    given = headers.get(b"origin")
    if given is None:
        return False
    text = given.decode("latin-1").lower()
    if origin is not None:
        return text == origin.lower()
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return bool(host) and text in (f"https://{host}", f"http://{host}")


def local_path(text: str) -> bool:
    """Whether it is a path of this server that a browser may be sent to.

    Browsers take backslashes for slashes, skip tabs and line ends, and read `//` as a host; none
    of these is let through, nor is anything that does not begin with a slash.
    """
    if len(text) > RETURN_TO_CHARS_MAX or _LOCAL_PATH.fullmatch(text) is None:
        return False
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    lower = path.lower()
    if "//" in path or "%2f" in lower or "%5c" in lower:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return not parts.scheme and not parts.netloc


class LoginCookies:
    """Seals logins into cookies, and opens them again.

    key: 32 bytes that all replicas share. random: so many random bytes.
    """

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def set(self, login: Login) -> str:
        """The Set-Cookie value that keeps a login."""
        nonce = self._random(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, msgspec.json.encode(login), _LOGIN_PURPOSE)
        value = base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")
        return f"{LOGIN_COOKIE}={value}; Max-Age={LOGIN_LIFE_MS // 1000}{_FLAGS}"

    def get(self, cookies: str, now_ms: int) -> Login | None:
        """The login that a Cookie header keeps; None when it keeps none that is ours and in time.

        A sealed value that was changed, or is another server's, does not open.
        """
        values = cookie_values(cookies, LOGIN_COOKIE)
        if len(values) != 1:
            return None
        padded = values[0] + "=" * (-len(values[0]) % 4)
        try:
            sealed = base64.urlsafe_b64decode(padded.encode("ascii"))
            plain = self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _LOGIN_PURPOSE
            )
            login = msgspec.json.decode(plain, type=Login)
        except (InvalidTag, ValueError, binascii.Error, msgspec.MsgspecError):
            return None
        return login if now_ms < login.expires_at_ms else None
