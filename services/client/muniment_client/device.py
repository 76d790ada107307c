"""Sign-in on another device: this machine shows a code, and asks until somebody has typed it in.

Source: RFC 8628.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from muniment_client.discovery import Provider
from muniment_client.errors import LoginFailed, NotConfigured, Refused, Unreachable, plain
from muniment_client.exchange import post_form

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL_S = 5.0
SLOW_DOWN_S = 5.0
WAIT_S_MAX = 1_800.0


def sign_in_by_device(
    provider: Provider,
    client_id: str,
    scope: str,
    audience: str | None,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Tell the person where to go, and wait. Returns the token endpoint's answer.

    Raises LoginFailed when it was denied or took too long.
    """
    if provider.device is None:
        raise NotConfigured(f"{provider.issuer} offers no device sign-in: try --browser.")
    asked = {"client_id": client_id, "scope": scope}
    if audience:
        asked["audience"] = audience
    begun = post_form(provider.device, asked)
    tell(_instruction(begun, provider))
    interval_s = _seconds(begun.get("interval"), INTERVAL_S)
    deadline = time.monotonic() + min(_seconds(begun.get("expires_in"), WAIT_S_MAX), WAIT_S_MAX)
    form = {
        "grant_type": DEVICE_GRANT,
        "device_code": str(begun.get("device_code", "")),
        "client_id": client_id,
    }
    while time.monotonic() < deadline:
        sleep(interval_s)
        try:
            return post_form(provider.token, form, attempts=1)
        except Refused as error:
            match error.error:
                case "authorization_pending":
                    continue
                case "slow_down":
                    interval_s += SLOW_DOWN_S
                case "access_denied":
                    raise LoginFailed("The sign-in was denied.") from error
                case "expired_token":
                    break
                case _:
                    raise
        except Unreachable:
            # A lost connection is to be met by asking less often (RFC 8628, 3.5).
            interval_s *= 2
    raise LoginFailed("The code has expired before somebody typed it in.")


def _instruction(begun: dict[str, Any], provider: Provider) -> str:
    page = begun.get("verification_uri") or begun.get("verification_url")
    code = begun.get("user_code")
    if not page or not code:
        raise Refused(provider.device or "", "no code in the answer")
    text = f"On any device, open {plain(str(page))} and type the code {plain(str(code))}"
    complete = begun.get("verification_uri_complete")
    return f"{text}\n(or open {plain(str(complete))})" if complete else text


def _seconds(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) and value >= 0 else default
