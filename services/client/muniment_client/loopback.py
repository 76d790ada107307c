"""Sign-in by browser: authorization code with PKCE, answered on a loopback port of this machine.

Source: RFC 8252 (native apps, 7.3), RFC 7636 (PKCE, S256), RFC 9207 (who answered).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from muniment_client.claims import unchecked_claims
from muniment_client.discovery import Provider
from muniment_client.errors import LoginFailed, NotConfigured, plain
from muniment_client.exchange import post_form

WAIT_S = 300.0
POLL_S = 0.1
REQUEST_S = 5.0
CALLBACK = "/callback"
VERIFIER_BYTES = 48
DONE_PAGE = (
    "<!doctype html><meta charset=utf-8><title>muniment</title>"
    "<p>{text} You can close this window and go back to the terminal."
)


def sign_in_by_browser(
    provider: Provider,
    client_id: str,
    scope: str,
    audience: str | None,
    show: Callable[[str], None],
    wait_s: float = WAIT_S,
) -> dict[str, Any]:
    """Show the provider's page (`show` gets its URL) and wait for the person to come back.

    Returns the token endpoint's answer. Raises LoginFailed after `wait_s`, or when it was denied
    or comes back changed.
    """
    if provider.authorization is None:
        raise NotConfigured(f"{provider.issuer} has no page to sign in at: try --device.")
    verifier = secrets.token_urlsafe(VERIFIER_BYTES)
    state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    with _Listener() as listener:
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": listener.url,
            "scope": scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        if audience:
            asked["audience"] = audience
        joint = "&" if "?" in provider.authorization else "?"
        show(f"{provider.authorization}{joint}{urlencode(asked)}")
        answer = listener.wait(state, wait_s)
    code = _code(answer, provider)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": asked["redirect_uri"],
        "client_id": client_id,
        "code_verifier": verifier,
    }
    tokens = post_form(provider.token, form, attempts=1)
    id_token = tokens.get("id_token")
    if isinstance(id_token, str) and unchecked_claims(id_token).get("nonce") != nonce:
        raise LoginFailed("The ID token belongs to another sign-in: nothing was stored.")
    return tokens


def challenge(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _code(answer: Mapping[str, str], provider: Provider) -> str:
    if provider.names_itself and answer.get("iss") != provider.issuer:
        raise LoginFailed("The answer came from another identity provider.")
    if "code" not in answer:
        reason = answer.get("error_description") or answer.get("error", "no code came back")
        raise LoginFailed(f"The sign-in was not completed: {plain(reason)}.")
    return answer["code"]


class _Listener:
    """Waits on 127.0.0.1 for the one request that carries our state."""

    def __init__(self) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        answers: list[dict[str, str]] = []
        expected: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_S

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                answer = dict(parse_qsl(parts.query))
                ours = parts.path == CALLBACK and bool(expected)
                ours = ours and hmac.compare_digest(
                    answer.get("state", "").encode(), expected[0].encode()
                )
                text = "You are signed in." if "code" in answer else "The sign-in did not succeed."
                page = DONE_PAGE.format(text=text if ours else "This is not the sign-in's answer.")
                self.send_response(200 if ours else 400)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page.encode())
                self.wfile.flush()
                if ours:
                    answers.append(answer)

        # In threads: browsers open connections in advance, and say nothing on them.
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.timeout = POLL_S
        self._answers = answers
        self._expected = expected
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{CALLBACK}"

    def wait(self, state: str, wait_s: float) -> dict[str, str]:
        """The query of the answer with this state; others are turned away."""
        self._expected.append(state)
        deadline = time.monotonic() + wait_s
        while not self._answers:
            if time.monotonic() > deadline:
                raise LoginFailed(f"Nobody signed in within {wait_s:g} s.")
            self._server.handle_request()
        return self._answers[0]

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()
