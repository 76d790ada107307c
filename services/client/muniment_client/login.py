"""Signing in and out: what the command and `muniment_client.login` do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from muniment_client.cache import Cache, SignIn
from muniment_client.claims import who
from muniment_client.discovery import Accepted, Provider, Resource, ask_issuer, ask_server
from muniment_client.errors import ClientError, NotConfigured
from muniment_client.exchange import post_form
from muniment_client.origins import is_protected
from muniment_client.renewing import held
from muniment_client.situation import server_verification
from muniment_client.sources import given

Flow = Literal["browser", "device"]


def sign_in(
    server: str,
    cache: Cache,
    tell: Callable[[str], None],
    *,
    flow: Flow | None = None,
    issuer: str | None = None,
    client_id: str | None = None,
    scope: str | None = None,
    environ: Mapping[str, str],
) -> SignIn:
    """Sign a person in to a server, and store it.

    flow: by itself, the browser where there is one, else the device flow.
    Raises ClientError: what is missing, or why it did not succeed.
    """
    wanted = issuer or environ.get("MUNIMENT_ISSUER") or None
    resource = _resource(server, wanted, environ)
    accepted = resource.for_login(wanted)
    client = client_id or environ.get("MUNIMENT_CLIENT_ID") or accepted.client_id
    if client is None:
        raise NotConfigured(
            f"{server} names no client id for {accepted.url}: give it with --client-id or "
            "MUNIMENT_CLIENT_ID."
        )
    provider = ask_issuer(accepted.url, named_by_user=wanted is not None)
    scopes = scope or environ.get("MUNIMENT_SCOPE") or _scopes(resource, provider)
    audience = environ.get("MUNIMENT_AUDIENCE") or None
    if flow is None:
        flow = "browser" if has_browser(environ) else "device"
    answer = _tokens(provider, client, scopes, audience, flow, tell)
    found = _sign_in(server, accepted, client, provider, answer)
    with cache.locked(server, found.issuer):
        # Not between the renewal of an older sign-in and its being stored.
        cache.store(found)
    return found


def sign_out(stored: SignIn, cache: Cache) -> str | None:
    """Forget a sign-in, here and at the provider. Returns why the provider was not told, if so."""
    with cache.locked(stored.server, stored.issuer):
        # A job may have renewed it since: what is revoked is the newest.
        stored = cache.load(stored.server, stored.issuer) or stored
        cache.remove(stored)
    if stored.refresh_token is None:
        return None
    if stored.revocation_endpoint is None:
        return f"{stored.issuer} offers no revocation: its session ends by itself."
    form = {
        "token": stored.refresh_token,
        "token_type_hint": "refresh_token",
        "client_id": stored.client_id,
    }
    try:
        post_form(stored.revocation_endpoint, form)
    except ClientError as error:
        return str(error)
    return None


def has_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser on this machine can reach a loopback port of this process."""
    import webbrowser

    if environ.get("SSH_CONNECTION") or environ.get("CI"):
        return False
    graphical = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not graphical and not environ.get("BROWSER"):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _tokens(
    provider: Provider,
    client_id: str,
    scope: str,
    audience: str | None,
    flow: Flow,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    if flow == "device":
        from muniment_client.device import sign_in_by_device

        return sign_in_by_device(provider, client_id, scope, audience, tell)
    from muniment_client.loopback import sign_in_by_browser

    def show(url: str) -> None:
        import webbrowser

        tell(f"Sign in in your browser. If it does not open, go to\n{url}")
        webbrowser.open(url)

    return sign_in_by_browser(provider, client_id, scope, audience, show)


def _resource(server: str, wanted: str | None, environ: Mapping[str, str]) -> Resource:
    if wanted is not None and not is_protected(server):
        return Resource(server, (), ())
    return ask_server(server, server_verification(environ))


def _scopes(resource: Resource, provider: Provider) -> str:
    """What the server asks for, and what a sign-in that lasts needs where the provider has it."""
    scopes = ["openid", *resource.scopes]
    if "offline_access" in provider.scopes:
        scopes.append("offline_access")
    return " ".join(dict.fromkeys(scopes))


def _sign_in(
    server: str, accepted: Accepted, client_id: str, provider: Provider, answer: dict[str, Any]
) -> SignIn:
    token = held(given(answer, provider.token), time.time(), answer.get("expires_in"))
    refresh_token, id_token = answer.get("refresh_token"), answer.get("id_token")
    return SignIn(
        server,
        accepted.url,
        client_id,
        provider.token,
        provider.revocation,
        token.token,
        refresh_token if isinstance(refresh_token, str) else None,
        token.issued_at,
        token.expires_at,
        who(id_token if isinstance(id_token, str) else token.token),
    )


def default_server(environ: Mapping[str, str] = os.environ) -> str:
    """The server that the environment names. Raises NotConfigured."""
    from muniment_client.origins import origin, server_url

    for name in ("MUNIMENT_SERVER", "MLFLOW_TRACKING_URI"):
        if origin(environ.get(name, "")):
            return server_url(environ[name])
    raise NotConfigured("Name the server: as an argument, or in MLFLOW_TRACKING_URI.")
