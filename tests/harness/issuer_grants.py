"""What the test issuer of `harness.issuer` grants: codes, device codes, tokens, all in memory.

Holds no HTTP. Every method either returns what the endpoint answers or raises `Refused` with the
OAuth error that RFC 6749, 7523, 8628 or 9700 names. One lock guards everything: the issuer serves
threads. The clock is the machine's, because clients compare with theirs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey | OctKey
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
KEY_BITS = 2048
CLIENT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
SLOW_DOWN_S = 5


class Refused(Exception):
    """The answer is an OAuth error: its code, a description, the HTTP status."""

    def __init__(self, error: str, description: str = "", status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can sign in."""

    subject: str
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client; public when it has neither a secret nor a public key (a JWK)."""

    client_id: str
    secret: str | None = None
    public_key: Mapping[str, Any] | None = None
    redirects: tuple[str, ...] = ("http://127.0.0.1",)
    """Redirect URIs: exact, or for loopback hosts with any port (RFC 8252, 7.3)."""
    groups: tuple[str, ...] = ()


@dataclass(slots=True)
class Lives:
    """How long things live, in seconds; a test may change them between requests."""

    access_s: float = 300.0
    refresh_s: float = 3600.0
    code_s: float = 60.0
    device_s: float = 300.0
    device_interval_s: int = 5


@dataclass(slots=True)
class _Code:
    client_id: str
    redirect_uri: str
    challenge: str
    user: User
    nonce: str | None
    scope: str
    ends_at: float


@dataclass(slots=True)
class _Device:
    client_id: str
    user_code: str
    scope: str
    ends_at: float
    interval_s: float
    asked_at: float = 0.0
    user: User | None = None
    denied: bool = False


@dataclass(slots=True)
class _Family:
    """One login: its refresh tokens replace one another, and a used one ends them all."""

    client_id: str
    user: User
    scope: str
    current: str
    ends_at: float
    used: set[str] = field(default_factory=set)
    ended: bool = False


class Grants:
    """All that one issuer has given out, and the keys that it signs with."""

    def __init__(self, issuer: str, audience: str, lives: Lives) -> None:
        self.issuer = issuer
        self.audience = audience
        self.lives = lives
        self.users: dict[str, User] = {}
        self.clients: dict[str, Client] = {}
        self.lock = threading.RLock()
        self.refreshes = 0
        """Refresh grants that gave tokens."""
        self.reuses = 0
        """Refresh tokens that came a second time: each ended its login."""
        self._codes: dict[str, _Code] = {}
        self._devices: dict[str, _Device] = {}
        self._families: list[_Family] = []
        self._assertions: set[str] = set()
        self.revoked: set[str] = set()
        self.keys: list[RSAKey] = [_new_key()]

    def rotate_key(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; returns its id. keep_old: still publish the others."""
        key = _new_key()
        with self.lock:
            self.keys = [key, *(self.keys if keep_old else [])]
        return str(key.kid)

    def mint(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Sign these claims with the current key, as they are."""
        key = self.keys[0]
        return jwt.encode({"alg": "RS256", "kid": key.kid, **(header or {})}, dict(claims), key)

    def access_token(self, user: User, client_id: str, scope: str = "", **claims: Any) -> str:
        """An access token (RS256) for a user or service; `claims` add to or replace the usual."""
        now = time.time()
        usual: dict[str, Any] = {
            "iss": self.issuer,
            "sub": user.subject,
            "aud": self.audience,
            "iat": int(now),
            "exp": math.ceil(now + self.lives.access_s),
            "jti": secrets.token_hex(8),
            "client_id": client_id,
            "azp": client_id,
            "scope": scope,
            "groups": list(user.groups),
            **_person(user),
        }
        return self.mint({**usual, **claims}, {"typ": "at+jwt"})

    # Browser and device: what the pages of the issuer do.

    def authorize(self, query: Mapping[str, str], user: User) -> str:
        """Approve an authorization request; returns the code. Raises Refused."""
        client = self._client(query.get("client_id", ""))
        if not _redirect_allowed(client, query.get("redirect_uri", "")):
            raise Refused("invalid_request", "redirect_uri is not registered")
        if query.get("response_type") != "code":
            raise Refused("unsupported_response_type")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise Refused("invalid_request", "PKCE with S256 is required")
        code = secrets.token_urlsafe(24)
        with self.lock:
            self._codes[code] = _Code(
                client.client_id,
                query["redirect_uri"],
                query["code_challenge"],
                user,
                query.get("nonce"),
                query.get("scope", ""),
                time.time() + self.lives.code_s,
            )
        return code

    def device(self, form: Mapping[str, str]) -> tuple[str, str]:
        """Begin a device flow; returns the device code and the user code."""
        client = self._client(form.get("client_id", ""))
        device_code, user_code = secrets.token_urlsafe(24), secrets.token_hex(4).upper()
        with self.lock:
            self._devices[device_code] = _Device(
                client.client_id,
                user_code,
                form.get("scope", ""),
                time.time() + self.lives.device_s,
                self.lives.device_interval_s,
            )
        return device_code, user_code

    def decide_device(self, user_code: str, user: User | None) -> None:
        """Approve a waiting device as `user`, or deny it with None. Raises Refused."""
        with self.lock:
            for device in self._devices.values():
                if device.user_code == user_code:
                    device.user, device.denied = user, user is None
                    return
        raise Refused("invalid_request", "no such user code", 404)

    # The token endpoint.

    def token(self, form: Mapping[str, str], basic: tuple[str, str] | None) -> dict[str, Any]:
        """Answer a token request. basic: client id and secret of an Authorization header."""
        client = self._authenticated(form, basic)
        with self.lock:
            match form.get("grant_type"):
                case "authorization_code":
                    return self._for_code(client, form)
                case "refresh_token":
                    return self._for_refresh(client, form.get("refresh_token", ""))
                case "client_credentials":
                    return self._for_client(client, form)
                case grant if grant == DEVICE_GRANT:
                    return self._for_device(client, form.get("device_code", ""))
        raise Refused("unsupported_grant_type")

    def _for_code(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        code = self._codes.pop(form.get("code", ""), None)
        if code is None or code.client_id != client.client_id or code.ends_at < time.time():
            raise Refused("invalid_grant", "the code is unknown, used or expired")
        if code.redirect_uri != form.get("redirect_uri"):
            raise Refused("invalid_grant", "redirect_uri differs")
        if _challenge(form.get("code_verifier", "")) != code.challenge:
            raise Refused("invalid_grant", "code_verifier does not fit")
        return self._login(client, code.user, code.scope, code.nonce)

    def _for_device(self, client: Client, device_code: str) -> dict[str, Any]:
        device, now = self._devices.get(device_code), time.time()
        if device is None or device.client_id != client.client_id:
            raise Refused("invalid_grant", "no such device code")
        if device.ends_at < now:
            raise Refused("expired_token")
        if device.denied:
            raise Refused("access_denied")
        too_soon = now - device.asked_at < device.interval_s * 0.9
        device.asked_at = now
        if too_soon:
            device.interval_s += SLOW_DOWN_S
            raise Refused("slow_down")
        if device.user is None:
            raise Refused("authorization_pending")
        del self._devices[device_code]
        return self._login(client, device.user, device.scope, None)

    def _for_client(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        if client.secret is None and client.public_key is None:
            raise Refused("unauthorized_client")
        service = User(f"service-{client.client_id}", groups=client.groups)
        return self._answer(service, client.client_id, form.get("scope", ""))

    def _for_refresh(self, client: Client, token: str) -> dict[str, Any]:
        for family in self._families:
            if token in family.used:
                family.ended = True
                self.reuses += 1
                raise Refused("invalid_grant", "the refresh token was used before")
            if token == family.current and family.client_id == client.client_id:
                if family.ended or family.ends_at < time.time():
                    break
                family.used.add(token)
                family.current = secrets.token_urlsafe(32)
                self.refreshes += 1
                answer = self._answer(family.user, client.client_id, family.scope)
                return {**answer, "refresh_token": family.current}
        raise Refused("invalid_grant", "the refresh token is unknown, revoked or expired")

    def _login(self, client: Client, user: User, scope: str, nonce: str | None) -> dict[str, Any]:
        ends_at = time.time() + self.lives.refresh_s
        family = _Family(client.client_id, user, scope, secrets.token_urlsafe(32), ends_at)
        self._families.append(family)
        answer = self._answer(user, client.client_id, scope)
        answer["refresh_token"] = family.current
        if "openid" in scope.split():
            answer["id_token"] = self._id_token(user, client.client_id, nonce)
        return answer

    def _answer(self, user: User, client_id: str, scope: str) -> dict[str, Any]:
        return {
            "access_token": self.access_token(user, client_id, scope),
            "token_type": "Bearer",
            "expires_in": math.ceil(self.lives.access_s),
            "scope": scope,
        }

    def _id_token(self, user: User, client_id: str, nonce: str | None) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": user.subject, "aud": client_id, "iat": now}
        claims |= {
            "exp": now + math.ceil(self.lives.access_s),
            "groups": list(user.groups),
            **_person(user),
        }
        return self.mint(claims if nonce is None else {**claims, "nonce": nonce})

    # What ends, and what is asked about tokens.

    def end_logins(self, subject: str) -> None:
        """End every login of a user, as an administrator or `end_session` does."""
        with self.lock:
            for family in self._families:
                family.ended |= family.user.subject == subject

    def revoke(self, token: str) -> None:
        """RFC 7009: a refresh token ends its login, an access token ends alone."""
        with self.lock:
            self.revoked.add(token)
            for family in self._families:
                family.ended |= token == family.current or token in family.used

    def introspect(self, token: str) -> dict[str, Any]:
        """RFC 7662: the claims of a token that holds, else `active: false`."""
        with self.lock:
            try:
                claims = jwt.decode(token, KeySet([*self.keys]), algorithms=["RS256"]).claims
            except (JoseError, ValueError):
                return {"active": False}
            if claims["exp"] < time.time() or token in self.revoked:
                return {"active": False}
            return {"active": True, "token_type": "Bearer", **claims}

    # Clients.

    def _client(self, client_id: str) -> Client:
        client = self.clients.get(client_id)
        if client is None:
            raise Refused("invalid_client", "no such client", 401)
        return client

    def _authenticated(self, form: Mapping[str, str], basic: tuple[str, str] | None) -> Client:
        if form.get("client_assertion_type") == ASSERTION_TYPE:
            return self._by_assertion(form.get("client_assertion", ""))
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret"))
        client = self._client(client_id)
        if client.public_key is not None or client.secret != secret:
            raise Refused("invalid_client", "the client's credentials do not fit", 401)
        return client

    def _by_assertion(self, assertion: str) -> Client:
        try:
            unverified = _payload(assertion)
            client = self._client(unverified["iss"])
            assert client.public_key is not None, "a client without a key sent an assertion"
            keys = KeySet.import_key_set({"keys": [dict(client.public_key)]})
            claims = jwt.decode(assertion, keys, algorithms=[*CLIENT_ALGORITHMS]).claims
        except (JoseError, KeyError, ValueError) as error:
            raise Refused("invalid_client", f"the assertion does not hold: {error}", 401) from error
        fit = claims["sub"] == client.client_id and claims["exp"] > time.time()
        fit = fit and claims["aud"] in (self.issuer, f"{self.issuer}/token")
        with self.lock:
            fit = fit and claims["jti"] not in self._assertions
            self._assertions.add(claims["jti"])
        if not fit:
            raise Refused("invalid_client", "the assertion's claims do not fit", 401)
        return client


def _new_key() -> RSAKey:
    return RSAKey.generate_key(
        KEY_BITS, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"}
    )


def _person(user: User) -> dict[str, str]:
    usual = {"preferred_username": user.name, "name": user.name, "email": user.email}
    return {claim: value for claim, value in usual.items() if value}


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert isinstance(payload, dict)
    return payload


def _redirect_allowed(client: Client, uri: str) -> bool:
    asked = urlsplit(uri)
    for registered in client.redirects:
        known = urlsplit(registered)
        loopback = known.hostname in ("127.0.0.1", "::1") and known.port is None
        if uri == registered or (
            loopback and asked.scheme == known.scheme and asked.hostname == known.hostname
        ):
            return True
    return False
