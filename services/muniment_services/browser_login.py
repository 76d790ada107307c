"""Login by browser, wired: the code flow, and cookies under the key that all replicas share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from muniment_auth.code_flow import CodeFlow, LoginIssuer, Provider
from muniment_auth.identity import KeyPlace, shared_key
from muniment_auth.sessions import LoginCookies
from muniment_services.api.services import BrowserLogin
from muniment_services.keys import LOGIN_KEY

CALLBACK_PATH = "/login/callback"
"""What identity providers must know as redirect URI, behind the public URL."""


async def open_browser_login(
    provider: Provider,
    issuers: Iterable[LoginIssuer],
    public_url: str,
    place: KeyPlace,
    now_ms: Callable[[], int],
    random: Callable[[int], bytes],
    refusals: tuple[type[Exception], ...] = (),
) -> BrowserLogin | None:
    """None when no issuer has a client_id, so that nobody can log in by it.

    public_url: as browsers know the server, https://NAME[:PORT]. refusals: what `provider` raises
    where it refuses or does not answer. Raises KeysUnavailable.
    """
    ready = {issuer.name: issuer for issuer in issuers if issuer.client_id}
    if not ready:
        return None
    base = public_url.rstrip("/")
    key = await asyncio.to_thread(shared_key, place, LOGIN_KEY, random)
    flow = CodeFlow(provider, ready, base + CALLBACK_PATH, now_ms, random, refusals)
    return BrowserLogin(flow, LoginCookies(key, random), base)
