"""Sensitive values: what the trail keeps in their place is a keyed hash.

Whoever knows a value can have it hashed and look the hash up; whoever reads the trail cannot guess
a value without the key, which lies with the keys of principals and in no log.
Source: HashiCorp Vault, audit devices (HMAC-SHA256 and `/sys/audit-hash`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from muniment_schemas.patterns import matches

PREFIX = "hmac-sha256:"

SENSITIVE_DEFAULT = (
    "*password*",
    "*passwd*",
    "*secret*",
    "*token*",
    "*api_key*",
    "*apikey*",
    "*access_key*",
    "*private_key*",
    "*credential*",
)
"""Patterns of keys, in small letters and with `_` for `-`, whose values are sensitive."""

LOGGED_DEFAULT: Final = (
    "*password",
    "*passwd",
    "*passphrase",
    "*secret",
    "*secret_key",
    "*secretkey",
    "*client_secret*",
    "*api_key",
    "*apikey",
    "*access_key",
    "*accesskey",
    "*private_key",
    "*privatekey",
    "*access_token",
    "*accesstoken",
    "*api_token",
    "*auth_token",
    "*authtoken",
    "*bearer_token",
    "*hub_token",
    "*refresh_token",
)
"""Patterns of keys whose last word says that the value is a secret, in small letters and with `_`
for `-`. Others are what jobs count with, and must come back as sent: `max_tokens`, `tokenizer`,
`pad_token`, `min_password_length`."""

DEPTH_MAX = 30
"""Deeper JSON is not looked through, and not kept."""

_COMPARED: Final = re.compile(
    r"""([\w.`"\-]+)(\s*(?:[<>=!~]+|NOT\s+LIKE|LIKE|ILIKE|RLIKE|:)\s*)('[^']*'|"[^"]*")""",
    re.IGNORECASE,
)
"""A key compared with a quoted value, as in a search's filter."""


class TooDeep(ValueError):
    """JSON that is nested deeper than DEPTH_MAX."""


class Redaction:
    """Replaces the values of sensitive keys. key: of the hash, the same on every replica."""

    def __init__(self, patterns: Iterable[str], key: bytes) -> None:
        self._patterns = tuple(patterns)
        self._key = key

    def hashed(self, value: str) -> str:
        """What stands in the place of a value; the same for the same value."""
        digest = hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return PREFIX + digest.hexdigest()

    def is_sensitive(self, key: str) -> bool:
        """Whether values under a key are replaced."""
        name = key.lower().replace("-", "_")
        return any(matches(pattern, name) for pattern in self._patterns)

    def query(self, text: str) -> str:
        """A query string with its sensitive values replaced."""
        pairs = parse_qsl(text, keep_blank_values=True, errors="replace")
        return urlencode([(key, self._text(key, value)) for key, value in pairs])

    def body(self, content: bytes) -> str | None:
        """A JSON body with its sensitive values replaced; None for what is no JSON."""
        try:
            read = msgspec.json.decode(content)
            return msgspec.json.encode(self._value(read, 0)).decode()
        except (msgspec.DecodeError, TooDeep, RecursionError, UnicodeDecodeError):
            return None

    def _text(self, key: str, value: str) -> str:
        if self.is_sensitive(key):
            return self.hashed(value)
        return _COMPARED.sub(self._compared, value)

    def _compared(self, found: re.Match[str]) -> str:
        key, operator, quoted = found.groups()
        if not self.is_sensitive(key):
            return found.group()
        return f"{key}{operator}{quoted[0]}{self.hashed(quoted[1:-1])}{quoted[0]}"

    def _value(self, value: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise TooDeep
        if isinstance(value, str):
            return self._text("", value)
        if isinstance(value, list):
            return [self._value(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        # MLflow writes params and tags as {"key": …, "value": …}: the value belongs to that key.
        named = value.get("key")
        sensitive = isinstance(named, str) and self.is_sensitive(named)
        return {
            key: self.hashed(_plain(item))
            if self.is_sensitive(key) or (sensitive and key == "value")
            else self._value(item, depth + 1)
            for key, item in value.items()
        }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
