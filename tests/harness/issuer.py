"""A small real OpenID provider over HTTP on a free loopback port, for the fast tests.

    with Issuer(users=[User("ada", groups=("ml",))], clients=[Client("cli")]) as issuer:
        issuer.url                      # discovery, JWKS and all endpoints lie below
        issuer.sign_in_as("ada")        # the authorization endpoint approves at once
        issuer.sign_in_as(None)         # … or shows a page with one button for each user
        issuer.lives.access_s = 2       # tokens from now on live two seconds
        issuer.rotate_key(); issuer.fault = Fault.DOWN
        issuer.asked("/token")          # how many requests came

Endpoints: discovery (OpenID and RFC 8414), /keys, /authorize (code with PKCE S256), /token (code,
refresh with rotation and reuse detection, client credentials by secret or private-key JWT, device
code), /device_authorization and /device (its approval page), /introspect, /revoke, /userinfo,
/end_session. What they grant is `harness.issuer_grants`. Never for production.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

from harness.issuer_grants import (
    DEVICE_GRANT,
    Client,
    Grants,
    Lives,
    Refused,
    User,
)

__all__ = ["Client", "Fault", "Issuer", "Lives", "Refused", "User"]

BODY_BYTES_MAX = 65_536
SLOW_S = 1.5


class Fault(Enum):
    """What is wrong with the whole issuer: every endpoint behaves so."""

    NONE = "none"
    DOWN = "down"
    """Connections are closed without an answer."""
    SLOW = "slow"
    """Answers come `Issuer.slow_s` late."""
    ERROR = "error"
    """Every answer is a 500."""


class Issuer:
    """The provider: a server in a thread. Use as a context manager, or `start` and `close`."""

    def __init__(
        self,
        users: Sequence[User] = (),
        clients: Sequence[Client] = (),
        audience: str = "muniment",
        lives: Lives | None = None,
    ) -> None:
        """The first of `users` is signed in at the start; the port is taken here."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.issuer = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.lives = lives or Lives()
        self.grants = Grants(self.url, audience, self.lives)
        self.grants.users = {user.subject: user for user in users}
        self.grants.clients = {client.client_id: client for client in clients}
        self.fault = Fault.NONE
        self.slow_s = SLOW_S
        self.extra_metadata: dict[str, Any] = {}
        self._approving = users[0].subject if users else None
        self._asked: Counter[str] = Counter()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve from a thread until `close`."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving and give the port back."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sign_in_as(self, subject: str | None) -> None:
        """Who is signed in at the authorization page; None asks with a form."""
        assert subject is None or subject in self.grants.users
        self._approving = subject

    def signed_in(self) -> User | None:
        """The user that authorization requests are approved for at once."""
        return None if self._approving is None else self.grants.users[self._approving]

    def rotate_key(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; returns its `kid`."""
        return self.grants.rotate_key(keep_old=keep_old)

    def access_token(self, subject: str, client_id: str = "cli", **claims: Any) -> str:
        """An access token as the token endpoint would give it; claims add or replace."""
        return self.grants.access_token(self.grants.users[subject], client_id, **claims)

    def mint(self, **claims: Any) -> str:
        """A token of exactly these claims: shaped as another provider's, signed by our key."""
        return self.grants.mint(claims)

    def approve_device(self, user_code: str, subject: str | None) -> None:
        """Approve (or with None deny) a waiting device flow."""
        user = None if subject is None else self.grants.users[subject]
        self.grants.decide_device(user_code, user)

    def asked(self, path: str) -> int:
        """Requests that came for a path, whatever the answer."""
        return self._asked[path]

    def count(self, path: str) -> None:
        """Note a request; called by the handler."""
        with self.grants.lock:
            self._asked[path] += 1

    def metadata(self) -> dict[str, Any]:
        """The discovery document (OpenID Connect Discovery 1.0, RFC 8414)."""
        methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device_authorization",
            "introspection_endpoint": f"{self.url}/introspect",
            "revocation_endpoint": f"{self.url}/revoke",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "end_session_endpoint": f"{self.url}/end_session",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "grant_types_supported": [
                "authorization_code",
                "refresh_token",
                "client_credentials",
                DEVICE_GRANT,
            ],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": methods,
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "authorization_response_iss_parameter_supported": True,
            **self.extra_metadata,
        }

    def keys(self) -> dict[str, Any]:
        """The published key set."""
        return {"keys": [key.as_dict(private=False) for key in self.grants.keys]}


class _Handler(BaseHTTPRequestHandler):
    """One connection to the issuer."""

    protocol_version = "HTTP/1.1"

    @property
    def _issuer(self) -> Issuer:
        issuer = self.server.issuer  # type: ignore[attr-defined]
        assert isinstance(issuer, Issuer)
        return issuer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest's output is for failures."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        assert size <= BODY_BYTES_MAX
        self._serve(dict(parse_qsl(self.rfile.read(size).decode(), keep_blank_values=True)))

    def _serve(self, form: dict[str, str]) -> None:
        parts = urlsplit(self.path)
        self._issuer.count(parts.path)
        match self._issuer.fault:
            case Fault.DOWN:
                self.close_connection = True
                return
            case Fault.SLOW:
                time.sleep(self._issuer.slow_s)
            case Fault.ERROR:
                self._send(500, b"the issuer has a fault", "text/plain")
                return
            case Fault.NONE:
                pass
        try:
            self._route(parts.path, dict(parse_qsl(parts.query)), form)
        except Refused as refused:
            body = {"error": refused.error, "error_description": refused.description}
            self._json(body, refused.status)

    def _route(self, path: str, query: dict[str, str], form: dict[str, str]) -> None:
        issuer = self._issuer
        match self.command, path:
            case "GET", "/.well-known/openid-configuration":
                self._json(issuer.metadata())
            case "GET", "/.well-known/oauth-authorization-server":
                self._json(issuer.metadata())
            case "GET", "/keys":
                self._json(issuer.keys())
            case _, "/authorize":
                self._authorize({**query, **form})
            case "POST", "/token":
                self._json(issuer.grants.token(form, self._basic()))
            case "POST", "/device_authorization":
                self._device(form)
            case _, "/device":
                self._approve({**query, **form})
            case "POST", "/introspect":
                self._json(issuer.grants.introspect(form.get("token", "")))
            case "POST", "/revoke":
                issuer.grants.revoke(form.get("token", ""))
                self._json({})
            case _, "/userinfo":
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self._json(issuer.grants.introspect(token))
            case _, "/end_session":
                self._end_session({**query, **form})
            case _:
                raise Refused("not_found", path, 404)

    def _authorize(self, asked: dict[str, str]) -> None:
        issuer = self._issuer
        user = issuer.signed_in() or issuer.grants.users.get(asked.pop("as", ""))
        if user is None:
            self._page("Sign in", "/authorize", asked)
            return
        code = issuer.grants.authorize(asked, user)
        answer = {"code": code, "state": asked.get("state", ""), "iss": issuer.url}
        joint = "&" if "?" in asked["redirect_uri"] else "?"
        self._redirect(f"{asked['redirect_uri']}{joint}{urlencode(answer)}")

    def _device(self, form: dict[str, str]) -> None:
        issuer = self._issuer
        device_code, user_code = issuer.grants.device(form)
        page = f"{issuer.url}/device"
        self._json(
            {
                "device_code": device_code,
                "user_code": user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={user_code}",
                "expires_in": int(issuer.lives.device_s),
                "interval": issuer.lives.device_interval_s,
            }
        )

    def _approve(self, asked: dict[str, str]) -> None:
        user = self._issuer.grants.users.get(asked.get("as", ""))
        if user is None:
            self._page("Connect a device", "/device", asked)
            return
        self._issuer.grants.decide_device(asked.get("user_code", ""), user)
        self._send(200, b"<p>The device is connected.</p>", "text/html")

    def _end_session(self, asked: dict[str, str]) -> None:
        signed_in = self._issuer.signed_in()
        if signed_in is not None:
            self._issuer.grants.end_logins(signed_in.subject)
        self._issuer.sign_in_as(None)
        target = asked.get("post_logout_redirect_uri")
        if target is None:
            self._send(200, b"<p>Signed out.</p>", "text/html")
            return
        state = {"state": asked["state"]} if "state" in asked else {}
        self._redirect(f"{target}?{urlencode(state)}" if state else target)

    def _basic(self) -> tuple[str, str] | None:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        name, _, secret = base64.b64decode(value).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)

    def _page(self, title: str, action: str, asked: dict[str, str]) -> None:
        """A form with one button for each user, keeping what was asked."""
        kept = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
            for name, value in asked.items()
        )
        buttons = "".join(
            f'<button name="as" value="{escape(subject)}">{escape(subject)}</button>'
            for subject in self._issuer.grants.users
        )
        form = f'<form method="post" action="{action}">{kept}{buttons}</form>'
        text = f"<!doctype html><title>{title}</title><h1>{title}</h1>{form}"
        self._send(200, text.encode(), "text/html; charset=utf-8")

    def _redirect(self, target: str) -> None:
        self._send(302, b"", "text/plain", {"Location": target})

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
