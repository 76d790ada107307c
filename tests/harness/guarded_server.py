"""A tracking server reduced to its door: it checks tokens as ours does, and notes what came.

Answers every API call with an empty object. Its protected-resource metadata names the issuer; a
401 carries `WWW-Authenticate: Bearer resource_metadata=…`. For tests of what a client sends.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from harness.issuer import Issuer

RESOURCE_PATH = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Request:
    """What came: header names are lower case. subject: of the token, if it held."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    subject: str | None
    status: int


class GuardedServer:
    """The server, in a thread; a context manager."""

    def __init__(self, issuer: Issuer, client_id: str | None = "cli") -> None:
        """client_id: the one that the metadata names for the issuer."""
        self.issuer = issuer
        self.audience = issuer.grants.audience
        self.issuers: list[dict[str, str]] = [{"url": issuer.url, "audience": self.audience}]
        if client_id is not None:
            self.issuers[0]["client_id"] = client_id
        self.requests: list[Request] = []
        self.metadata_asked = 0
        self.refused_tokens: set[str] = set()
        """Tokens answered with 401 although they hold, as after a revocation."""
        self.known_tokens: dict[str, str] = {}
        """Opaque tokens and their subjects."""
        self.next_answers: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers for the next accepted API calls, in order; then 200."""
        self.is_open = False
        """Whether calls without a token are answered too."""
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.guarded = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def metadata(self) -> dict[str, Any]:
        """RFC 9728, with what muniment adds."""
        return {
            "resource": self.url,
            "authorization_servers": [issuer["url"] for issuer in self.issuers],
            "scopes_supported": [],
            "muniment": {"issuers": self.issuers},
        }

    def subject(self, authorization: str) -> str | None:
        """The subject of a bearer token that holds now."""
        token = authorization.removeprefix("Bearer ")
        if token in self.known_tokens:
            return self.known_tokens[token]
        if token in self.refused_tokens:
            return None
        try:
            keys = KeySet([*self.issuer.grants.keys])
            claims = jwt.decode(token, keys, algorithms=["RS256"]).claims
        except (JoseError, ValueError):
            return None
        holds = claims["aud"] == self.audience and claims["exp"] > time.time()
        return str(claims["sub"]) if holds else None

    def answered(self, status: int = 200) -> list[Request]:
        """The API calls that got this status."""
        return [request for request in self.requests if request.status == status]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server = self.server.guarded  # type: ignore[attr-defined]
        assert isinstance(server, GuardedServer)
        body = self._body()
        if self.path == RESOURCE_PATH:
            server.metadata_asked += 1
            self._send(200, server.metadata())
            return
        subject = server.subject(self.headers.get("Authorization", ""))
        extra: dict[str, str] = {}
        with server.lock:
            if subject is None and not server.is_open:
                status = 401
                where = f'Bearer resource_metadata="{server.url}{RESOURCE_PATH}"'
                why = ', error="invalid_token", error_description="the token does not hold"'
                extra = {"WWW-Authenticate": where + why}
            elif server.next_answers:
                status, extra = server.next_answers.pop(0)
            else:
                status = 200
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append(Request(self.command, self.path, headers, body, subject, status))
        self._send(status, {}, extra)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(
        self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
