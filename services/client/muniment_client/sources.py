"""Where tokens come from, one class for each situation. `situation.py` chooses.

A source gives a token that holds (`token`), and another after the server has refused one
(`renew`, None when it has no other). Nothing is fetched before the first call.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from muniment_client.assertion import ASSERTION_TYPE, client_assertion
from muniment_client.cache import LOCK_WAIT_S_MAX, Cache, SignIn
from muniment_client.claims import expiry
from muniment_client.discovery import Provider
from muniment_client.errors import (
    CacheUnusable,
    ClientError,
    LoginNeeded,
    NotConfigured,
    Refused,
)
from muniment_client.exchange import ATTEMPTS_MAX, get_json, post_form
from muniment_client.renewing import Held, Renewing, held

LEEWAY_S = 60.0
LOCK_WAIT_S = 1.0
"""For another process that renews the sign-in, while the old token still holds."""
"""This machine's clock may be ahead; the server is as lenient."""
ENDED = ("invalid_grant", "invalid_token", "interaction_required", "login_required")
"""Errors of a refresh after which only a new sign-in helps."""


class Source(Protocol):
    """Gives the tokens for one server."""

    @property
    def name(self) -> str:
        """What it is, for `whoami` and for error messages."""
        ...

    def token(self) -> str:
        """A token that holds. Raises ClientError."""
        ...

    def renew(self, refused: str) -> str | None:
        """A token in place of one that the server refused."""
        ...


class GivenToken:
    """A token from the environment: it holds for as long as it holds."""

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self._value = value.strip()

    def token(self) -> str:
        """The token, as it was given."""
        ends_at = expiry(self._value)
        if ends_at is not None and ends_at + LEEWAY_S <= time.time():
            raise ClientError(f"The token in {self.name} has expired: give the job a new one.")
        return self._value

    def renew(self, refused: str) -> None:
        """There is no other."""


class TokenFile:
    """A token that something else keeps fresh in a file, as a kubelet does."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._read: tuple[tuple[int, int, int], str] | None = None

    def token(self) -> str:
        """The token in the file; it is read again whenever the file has changed."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            read = self._read
            if read is None or read[0] != version:
                read = self._read = (version, self._path.read_text("utf-8").strip())
        except OSError as error:
            raise NotConfigured(f"{self._path} cannot be read: {error.strerror}.") from error
        if not read[1]:
            raise NotConfigured(f"{self._path} is empty: a token is expected in it.")
        return read[1]

    def renew(self, refused: str) -> str | None:
        """What stands in the file now, if it is another token."""
        self._read = None
        token = self.token()
        return None if token == refused else token


class Workflow:
    """A GitHub Actions job: its OIDC token for the server's audience, asked for when needed."""

    name = "GitHub Actions"

    def __init__(self, url: str, request_token: str, audience: Callable[[], str]) -> None:
        """url, request_token: ACTIONS_ID_TOKEN_REQUEST_URL and …_TOKEN."""
        self._url = url
        self._request_token = request_token
        self._audience = audience
        self._renewing = Renewing(self._fetch)

    def token(self) -> str:
        """The job's token."""
        return self._renewing.token()

    def renew(self, refused: str) -> str | None:
        """A new token of the job."""
        return self._renewing.renew(refused)

    def _fetch(self, refused: str | None, urgent: bool) -> Held:
        joint = "&" if "?" in self._url else "?"
        url = f"{self._url}{joint}{urlencode({'audience': self._audience()})}"
        headers = {"Authorization": f"bearer {self._request_token}", "Accept": "application/json"}
        answer = get_json(url, headers=headers, attempts=_attempts(urgent))
        value = (answer or {}).get("value")
        if not isinstance(value, str):
            raise NotConfigured(
                "GitHub gave no OIDC token: the job needs `permissions: id-token: write`."
            )
        return held(value, time.time())


@dataclasses.dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A service's registration: a secret, or a file with its private key."""

    client_id: str
    secret: str | None = dataclasses.field(repr=False)
    key_file: Path | None
    key_id: str | None
    scope: str | None
    audience: str | None


class Service:
    """Client credentials (RFC 6749, 4.4), by secret or by private-key JWT (RFC 7523)."""

    def __init__(
        self, identity: ClientIdentity, provider: Callable[[], tuple[Provider, str | None]]
    ) -> None:
        """provider: the endpoints, and the scope that the server asks for; called once."""
        self.name = f"client credentials of {identity.client_id}"
        self._identity = identity
        self._discover = provider
        self._provider: tuple[Provider, str | None] | None = None
        self._renewing = Renewing(self._fetch)

    def token(self) -> str:
        """The service's token."""
        return self._renewing.token()

    def renew(self, refused: str) -> str | None:
        """A new token of the service."""
        return self._renewing.renew(refused)

    def _fetch(self, refused: str | None, urgent: bool) -> Held:
        if self._provider is None:
            self._provider = self._discover()
        provider, scope = self._provider
        identity = self._identity
        form = {"grant_type": "client_credentials"}
        if identity.scope or scope:
            form["scope"] = identity.scope or scope or ""
        if identity.audience:
            form["audience"] = identity.audience
        basic = None
        if identity.key_file is not None:
            form["client_id"] = identity.client_id
            form["client_assertion_type"] = ASSERTION_TYPE
            form["client_assertion"] = client_assertion(
                identity.client_id, provider.token, _key(identity.key_file), identity.key_id
            )
        elif provider.secret_in_form:
            form |= {"client_id": identity.client_id, "client_secret": identity.secret or ""}
        else:
            basic = (identity.client_id, identity.secret or "")
        answer = post_form(provider.token, form, basic=basic, attempts=_attempts(urgent))
        return held(given(answer, provider.token), time.time(), answer.get("expires_in"))


class Login:
    """A stored sign-in of a person, renewed with its refresh token.

    Refresh tokens rotate: the lock of the stored file makes all threads and processes of this
    machine renew once, and what came back is stored before it is used.
    """

    def __init__(self, cache: Cache, sign_in: SignIn) -> None:
        self.name = f"sign-in of {sign_in.who or 'a user'} at {sign_in.issuer}"
        self._cache = cache
        self._newest = sign_in
        self._renewing = Renewing(self._fetch, _held(sign_in))

    def token(self) -> str:
        """The person's token."""
        return self._renewing.token()

    def renew(self, refused: str) -> str | None:
        """A new token of the person."""
        return self._renewing.renew(refused)

    def _fetch(self, refused: str | None, urgent: bool) -> Held:
        known = self._newest
        wait_s = LOCK_WAIT_S_MAX if urgent else LOCK_WAIT_S
        with self._cache.locked(known.server, known.issuer, wait_s):
            stored = self._cache.load(known.server, known.issuer)
            if stored is None:
                raise LoginNeeded(known.server, "You have signed out.")
            # A store that failed leaves the newer one in memory only.
            sign_in = max(stored, known, key=lambda one: one.issued_at)
            if sign_in.access_token == refused or _held(sign_in).is_due(time.time()):
                sign_in = self._refresh(sign_in, _attempts(urgent))
        self._newest = sign_in
        return _held(sign_in)

    def _refresh(self, sign_in: SignIn, attempts: int) -> SignIn:
        if sign_in.refresh_token is None:
            raise LoginNeeded(sign_in.server, "The sign-in has ended and cannot be renewed.")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": sign_in.refresh_token,
            "client_id": sign_in.client_id,
        }
        try:
            answer = post_form(sign_in.token_endpoint, form, attempts=attempts)
        except Refused as error:
            if error.error not in ENDED:
                raise
            self._cache.store(dataclasses.replace(sign_in, refresh_token=None))
            raise LoginNeeded(sign_in.server, "The sign-in has ended.") from error
        now = time.time()
        new = held(given(answer, sign_in.token_endpoint), now, answer.get("expires_in"))
        renewed = dataclasses.replace(
            sign_in,
            access_token=new.token,
            refresh_token=answer.get("refresh_token") or sign_in.refresh_token,
            issued_at=new.issued_at,
            expires_at=new.expires_at,
        )
        self._newest = renewed
        try:
            self._cache.store(renewed)
        except CacheUnusable as error:
            from muniment_client.cache import logger

            # The run goes on; other processes will have to sign in again.
            logger.warning("The renewed sign-in could not be stored: %s", error)
        return renewed


def given(answer: dict[str, object], endpoint: str) -> str:
    """The access token in a token endpoint's answer. Raises Refused when there is none."""
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise Refused(endpoint, "no access_token in the answer")
    return token


def _attempts(urgent: bool) -> int:
    return ATTEMPTS_MAX if urgent else 1


def _held(sign_in: SignIn) -> Held:
    return Held(sign_in.access_token, sign_in.issued_at, sign_in.expires_at)


def _key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotConfigured(
            f"MUNIMENT_CLIENT_KEY_FILE {path} cannot be read: {error.strerror}."
        ) from error
