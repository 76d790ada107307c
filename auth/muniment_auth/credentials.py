"""Who carries one of our own tokens or session cookies. Looks in memory only; never waits.

    CredentialError             reason: what went wrong, in one word
    ├── CredentialMalformed     malformed   no such form, or a wrong checksum
    ├── CredentialUnknown       unknown     no such id, or another secret
    ├── CredentialRevoked       revoked     was taken back
    ├── CredentialExpired       expired     its time is over
    └── CrossSiteRefused        csrf        a write that the session's own page did not send

What always holds: who has no right secret learns nothing about an id (not even whether it exists);
no error holds a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from muniment_auth import sessions, tokens
from muniment_auth.principal import Principal
from muniment_auth.sessions import CSRF_HEADER, SAFE_METHODS, same_origin
from muniment_auth.tokens import SESSION_PREFIX, TOKEN_PREFIX, Secret
from muniment_schemas.credential_events import PERSONAL, SERVICE
from muniment_schemas.ids import PrincipalId

SERVICE_ISSUER = "muniment:service"
"""Issuer of service principals, which muniment itself keeps; their subject is their name."""

_NO_SECRET = hashlib.sha256(b"").digest()


class CredentialError(Exception):
    """A token or session authenticates nobody. The message is for whoever sent it."""

    reason = ""


class CredentialMalformed(CredentialError):
    """Not of the form of a token."""

    reason = "malformed"

    def __init__(self) -> None:
        super().__init__("This is not a whole muniment token; copy all of it.")


class CredentialUnknown(CredentialError):
    """No such id, or not its secret."""

    reason = "unknown"

    def __init__(self) -> None:
        super().__init__("This server knows no such token or session; make a new one.")


class CredentialRevoked(CredentialError):
    """It was taken back."""

    reason = "revoked"

    def __init__(self, credential_id: str) -> None:
        super().__init__(f"The token {credential_id} was revoked; make a new one.")
        self.credential_id = credential_id


class CredentialExpired(CredentialError):
    """Its time is over."""

    reason = "expired"

    def __init__(self, credential_id: str) -> None:
        super().__init__(f"The token or session {credential_id} has expired; make a new one.")
        self.credential_id = credential_id


class CrossSiteRefused(CredentialError):
    """A write by a session that has not the session's CSRF token, or comes from another site."""

    reason = "csrf"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} Writes of a browser session need the header X-CSRF-Token with the token that "
            "/api/v1/whoami tells, from a page of this server."
        )


class StoredCredential(Protocol):
    """What the server keeps of a credential."""

    @property
    def credential_id(self) -> str:
        """Public part of the text."""

    @property
    def credential_kind(self) -> str:
        """personal, service or session."""

    @property
    def principal_id(self) -> str:
        """Whom it authenticates."""

    @property
    def principal_kind(self) -> str:
        """Kind of that principal."""

    @property
    def issued_by(self) -> str:
        """Id of the principal that it was given to."""

    @property
    def issuer(self) -> str:
        """Who vouches for that principal."""

    @property
    def secret_sha256(self) -> bytes:
        """SHA-256 of the secret part."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """What it is limited to; empty: no limit."""

    @property
    def said(self) -> SignIn:
        """What the provider said of the principal when it was issued or last renewed."""

    @property
    def client_id(self) -> str | None:
        """OAuth client by which it was issued."""

    @property
    def expires_at_ms(self) -> int:
        """From when it is good for nothing."""

    @property
    def revoked_at_ms(self) -> int | None:
        """Since when it is revoked."""


DAY_MS = 24 * 3600 * 1000


class SignIn(Protocol):
    """What an identity provider said of a principal, and when, in milliseconds since 1970."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of the principal."""

    @property
    def groups_unknown(self) -> str | None:
        """Why not all are known."""

    @property
    def claims(self) -> Mapping[str, tuple[str, ...]]:
        """Claims that grants may be bound to."""

    @property
    def vouched_at_ms(self) -> int:
        """When it was said."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """A sign-in that is too long ago for groups and claims to count."""

    groups_unknown: str
    vouched_at_ms: int
    groups: tuple[str, ...] = ()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Find = Callable[[str], StoredCredential | None]
"""The credential with an id, from memory."""

NameOf = Callable[[str], tuple[str, str] | None]
"""(subject, name) of a principal id as far as they are at hand without waiting."""


LatestOf = Callable[[str], SignIn | None]
"""The latest sign-in of a principal id that is known, from memory."""


class Credentials:
    """Authenticates by our own tokens and sessions.

    What a token's owner is by groups and claims is what its latest sign-in showed (`latest_of`),
    for `groups_days` after that; then the token holds what is granted to the principal itself.

    origin: scheme, host and port that browsers know the server by, as https://muniment.example;
    None: whatever the Host header says.
    """

    def __init__(
        self,
        find: Find,
        name_of: NameOf,
        origin: str | None,
        latest_of: LatestOf,
        groups_days: int,
    ) -> None:
        self._find = find
        self._name_of = name_of
        self._origin = origin
        self._latest_of = latest_of
        self._groups_days = groups_days

    def authenticate_token(self, text: str, now_ms: int) -> Principal:
        """The principal behind a personal or service token (`mnt_…`). Raises CredentialError."""
        secret = tokens.parse(text, TOKEN_PREFIX)
        if secret is None:
            raise CredentialMalformed
        return self._principal(self._checked(secret, now_ms), now_ms)

    def authenticate_session(
        self, cookies: str, method: str, headers: Mapping[bytes, bytes], now_ms: int
    ) -> Principal | None:
        """The principal of a browser; None when it has no session cookie at all.

        cookies: the Cookie header. headers: of the request, names in lower case. A method that may
        change something must come from a page of this server and show the session's CSRF token.
        Raises CredentialError.
        """
        return self.session_of(cookies, method, headers, now_ms, headers.get(CSRF_HEADER, b""))

    def session_of(
        self,
        cookies: str,
        method: str,
        headers: Mapping[bytes, bytes],
        now_ms: int,
        csrf_token: bytes,
    ) -> Principal | None:
        """`authenticate_session` with the CSRF token from wherever it stood (a form's field)."""
        text = sessions.session_cookie(cookies)
        if text is None:
            return None
        secret = tokens.parse(text, SESSION_PREFIX)
        if secret is None:
            raise CredentialMalformed
        found = self._checked(secret, now_ms)
        if method not in SAFE_METHODS:
            if not same_origin(headers, self._origin):
                raise CrossSiteRefused("This write does not come from a page of this server.")
            if not sessions.csrf_fits(secret, csrf_token):
                raise CrossSiteRefused("The CSRF token is missing or is not this session's.")
        return self._principal(found, now_ms)

    def said_of(self, found: StoredCredential, now_ms: int) -> SignIn:
        """What counts of the principal behind a credential now; `Outdated` when that is nothing."""
        if found.credential_kind != PERSONAL:
            return found.said
        said = self._latest_of(found.principal_id) or found.said
        if now_ms < said.vouched_at_ms + self._groups_days * DAY_MS:
            return said
        day = datetime.fromtimestamp(said.vouched_at_ms / 1000, UTC).date().isoformat()
        return Outdated(
            f"its owner last signed in on {day}, and groups and claims count in its tokens for "
            f"{self._groups_days} days after that; they count again once the owner has signed in",
            said.vouched_at_ms,
        )

    def _checked(self, secret: Secret, now_ms: int) -> StoredCredential:
        found = self._find(secret.id)
        kind_fits = found is not None and (
            (found.credential_kind == "session") == (secret.prefix == SESSION_PREFIX)
        )
        right = secret.fits(_NO_SECRET if found is None else found.secret_sha256)
        if found is None or not kind_fits or not right:
            raise CredentialUnknown
        if found.revoked_at_ms is not None:
            raise CredentialRevoked(found.credential_id)
        if now_ms >= found.expires_at_ms:
            raise CredentialExpired(found.credential_id)
        return found

    def _principal(self, found: StoredCredential, now_ms: int) -> Principal:
        said = self.said_of(found, now_ms)
        # The subject is a claim too: what is outdated comes without it.
        named = None if isinstance(said, Outdated) else self._name_of(found.principal_id)
        return principal_of(found, said, named)


def principal_of(
    credential: StoredCredential, said: SignIn, identity: tuple[str, str] | None = None
) -> Principal:
    """The principal that a credential authenticates.

    said: what counts of it now. identity: subject and name; without them the principal goes by its
    id. Whoever got a service's token acts for the service: what it does may be that one's doing.
    """
    subject, name = identity or ("", credential.principal_id)
    return Principal(
        id=PrincipalId(credential.principal_id),
        kind=credential.principal_kind,
        issuer=credential.issuer,
        subject=subject,
        name=name,
        auth_method="session" if credential.credential_kind == "session" else "token",
        client_id=credential.client_id,
        groups=frozenset(said.groups),
        groups_unknown=said.groups_unknown,
        claims=said.claims,
        scopes=frozenset(credential.scopes) or None,
        delegation=(credential.issued_by,) if credential.credential_kind == SERVICE else (),
        token_id=credential.credential_id,
    )
