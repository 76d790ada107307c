"""An identity provider in memory, for the code flow: codes, PKCE, ID tokens, refresh tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2

from muniment_auth.principal import Principal, principal_id


class TokenRefused(Exception):
    """The fake's AuthError."""


@dataclass(frozen=True)
class FakeIssuer:
    """A configured issuer, as the login sees it."""

    name: str
    url: str
    client_id: str | None = "muniment"
    client_secret: str | None = None
    login_scope: str = "openid profile email"


@dataclass
class FakeProvider:
    """All issuers at once, told apart by the host of their URLs.

    subject: who is in front of the browser. groups: of everyone. renews: whether it gives refresh
    tokens, each of which is good once. delegation: who acts for everyone. logins: refresh tokens
    that are good, and whose.
    """

    issuers: Mapping[str, FakeIssuer]
    subject: str = "anna"
    groups: frozenset[str] = frozenset({"ml"})
    renews: bool = True
    delegation: tuple[str, ...] = ()
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    logins: dict[str, dict[str, str]] = field(default_factory=dict)
    iss_in_answers: bool = False
    down: bool = False
    metadata_changes: Mapping[str, Any] = field(default_factory=dict)
    token_answer: httpx2.Response | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Requests to the token endpoint: Authorization header and form."""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def metadata(self, issuer_name: str) -> Mapping[str, Any]:
        """The discovery document."""
        if self.down:
            raise TokenRefused("discovery failed")
        url = self.issuers[issuer_name].url
        return {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize?tenant=1",
            "token_endpoint": f"{url}/token",
            "end_session_endpoint": f"{url}/logout",
            "authorization_response_iss_parameter_supported": self.iss_in_answers,
            **self.metadata_changes,
        }

    async def verify_id_token(
        self, issuer_name: str, token: str, nonce: str, renewed: bool = False
    ) -> Principal:
        """The principal, if the token is of this issuer and for this nonce."""
        told = json.loads(base64.b64decode(token))
        if told["iss"] != self.issuers[issuer_name].url or told["nonce"] != nonce:
            raise TokenRefused("not for this login")
        return self.principal(issuer_name, told["sub"])

    def principal(self, issuer_name: str, subject: str) -> Principal:
        """Who a subject of an issuer is."""
        issuer = self.issuers[issuer_name].url
        return Principal(
            id=principal_id(issuer, subject),
            kind="user",
            issuer=issuer,
            subject=subject,
            name=subject.title(),
            auth_method="bearer",
            client_id="muniment",
            groups=self.groups,
            claims={"department": ("risk",)},
            delegation=self.delegation,
            vouched_at_ms=self.now_ms(),
        )

    def agree(self, location: str) -> str:
        """The person logs in and agrees: the query with which the browser comes back."""
        parts = urlsplit(location)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_hex(8)
        self._codes[code] = asked | {"iss": f"{parts.scheme}://{parts.netloc}", "sub": self.subject}
        back = {"code": code, "state": asked["state"]}
        if self.iss_in_answers:
            back["iss"] = self._codes[code]["iss"]
        return urlencode(back)

    @property
    def transport(self) -> httpx2.MockTransport:
        """What the token endpoint is reached by."""
        return httpx2.MockTransport(self._token)

    def _token(self, request: httpx2.Request) -> httpx2.Response:
        form = dict(parse_qsl(request.content.decode()))
        self.asked.append((request.headers.get("authorization", ""), form))
        if self.down:
            raise httpx2.ConnectError("refused")
        if self.token_answer is not None:
            return self.token_answer
        if form["grant_type"] == "refresh_token":
            renewed = self.logins.pop(form["refresh_token"], None)
            return self._refused() if renewed is None else self._granted(renewed)
        granted = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            granted is None
            or granted["code_challenge"] != challenge
            or granted["redirect_uri"] != form.get("redirect_uri")
        ):
            return self._refused()
        return self._granted(granted)

    def _refused(self) -> httpx2.Response:
        return httpx2.Response(400, json={"error": "invalid_grant"})

    def _granted(self, granted: dict[str, str]) -> httpx2.Response:
        told = {name: granted[name] for name in ("iss", "sub", "nonce")}
        id_token = base64.b64encode(json.dumps(told).encode()).decode()
        answer = {"access_token": "at", "token_type": "Bearer", "id_token": id_token}
        if self.renews:
            answer["refresh_token"] = secrets.token_hex(8)
            self.logins[answer["refresh_token"]] = granted
        return httpx2.Response(200, json=answer)
