"""What a token says about itself, read without checking it: for expiry and for display only.

The server checks tokens; nothing here may be used to decide anything about access.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from muniment_client.errors import plain

NAMES = ("preferred_username", "email", "name", "sub")


def unchecked_claims(token: str) -> dict[str, Any]:
    """The claims of a JWT; empty when the token is opaque."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return claims if isinstance(claims, dict) else {}


def expiry(token: str) -> float | None:
    """When a JWT ends, in seconds since 1970; None when it does not say."""
    exp = unchecked_claims(token).get("exp")
    return float(exp) if isinstance(exp, int | float) else None


def life_s(token: str) -> float | None:
    """How long a JWT lives from its issue, whatever this machine's clock says."""
    claims = unchecked_claims(token)
    iat, exp = claims.get("iat"), claims.get("exp")
    if isinstance(iat, int | float) and isinstance(exp, int | float):
        return float(exp - iat)
    return None


def who(token: str | None) -> str:
    """A name for the subject of a token, the empty string when it has none."""
    claims = unchecked_claims(token or "")
    return next((plain(str(claims[name])) for name in NAMES if claims.get(name)), "")
