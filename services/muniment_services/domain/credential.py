"""Credentials: personal and service tokens, and browser sessions. Secrets never come this far.

A token that was revoked stays, so that it can be listed and refused by name. A session that has
ended leaves memory: nobody asks for it again, and there are many of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from muniment_schemas import events as e
from muniment_schemas.credential_events import PERSONAL, SERVICE, SESSION
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound, Void
from muniment_services.domain.limits import (
    CREDENTIAL_DESCRIPTION_CHARS_MAX,
    CREDENTIAL_NAME_CHARS_MAX,
    CREDENTIAL_REASON_CHARS_MAX,
    CREDENTIAL_SCOPES_MAX,
    CREDENTIALS_LIVE_MAX,
    DAY_MS,
    SESSION_LIFE_MS,
    TOKEN_LIFE_DAYS_MAX,
    shown,
)
from muniment_services.domain.principal import SignIn

KIND = "credential"
KINDS = frozenset({PERSONAL, SERVICE, SESSION})
SHA256_BYTES = 32

_ID = re.compile(r"[0-9A-Za-z]{16}")
_SCOPE = re.compile(r"\*|(\*|[a-z_]+):(\*|[a-z_]+)")


class Credential(State, frozen=True, kw_only=True):
    """A token or a session as the log knows it. Times are milliseconds since 1970 UTC."""

    credential_id: str
    credential_kind: str
    principal_id: str
    principal_kind: str
    issuer: str
    secret_sha256: bytes
    name: str
    description: str | None
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    groups_unknown: str | None
    claims: Mapping[str, tuple[str, ...]]
    client_id: str | None
    maker_id: str | None
    issued_by: str
    issued_at_ms: int
    expires_at_ms: int
    revoked_at_ms: int | None = None
    revoked_by: str | None = None
    revoked_reason: str | None = None
    vouched_at_ms: int | None = None
    renewal_sealed: bytes | None = None

    @property
    def said(self) -> SignIn:
        """What the provider said of the principal when it was issued or last renewed."""
        vouched_at_ms = self.issued_at_ms if self.vouched_at_ms is None else self.vouched_at_ms
        return SignIn(
            groups=self.groups,
            groups_unknown=self.groups_unknown,
            claims=self.claims,
            vouched_at_ms=vouched_at_ms,
        )

    def is_live(self, now_ms: int) -> bool:
        """Whether it authenticates anybody now."""
        return self.revoked_at_ms is None and now_ms < self.expires_at_ms


class IssueCredential(Command, frozen=True, kw_only=True):
    """Make a token or a session. Id and secret come from outside, the secret as its SHA-256 only.

    scopes: empty for all that the principal holds. Whether whoever asks may is not looked at here.
    """

    credential_id: str
    credential_kind: str
    principal_id: str
    principal_kind: str
    issuer: str
    secret_sha256: bytes
    name: str
    expires_at_ms: int
    description: str | None = None
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    groups_unknown: str | None = None
    claims: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    client_id: str | None = None
    maker_id: str | None = None
    vouched_at_ms: int | None = None
    renewal_sealed: bytes | None = None

    def serial(self) -> AggregateKey:
        """All of one principal, so that its number is right (on this server; others may add)."""
        return ("credentials of", self.principal_id)


class RenewSession(Command, frozen=True, kw_only=True):
    """Have a session hold what its provider says now."""

    credential_id: str
    sign_in: SignIn
    renewal_sealed: bytes | None

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.credential_id)


class RevokeCredential(Command, frozen=True, kw_only=True):
    """Take a token back, or end a session."""

    credential_id: str
    reason: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.credential_id)


def issue(world: World, command: IssueCredential, context: Context) -> e.CredentialIssued:
    """Raises Invalid, or AlreadyExists when the principal has as many as it may have."""
    assert _ID.fullmatch(command.credential_id), "ids are made by us"
    assert len(command.secret_sha256) == SHA256_BYTES
    assert command.credential_kind in KINDS
    assert world.get(KIND, command.credential_id) is None, "ids are random"
    _check_texts(command)
    _check_life(command, context.now_ms)
    live = [
        found
        for found in of_principal(world, command.principal_id)
        if found.is_live(context.now_ms)
        and (found.credential_kind == SESSION) == (command.credential_kind == SESSION)
    ]
    if len(live) >= CREDENTIALS_LIVE_MAX:
        what = "sessions" if command.credential_kind == SESSION else "tokens"
        raise AlreadyExists(
            f"{CREDENTIALS_LIVE_MAX} {what} of this principal are in force, which is as many as "
            "one may have. Revoke one that is not needed."
        )
    return e.CredentialIssued(
        envelope=context.envelope(e.CredentialIssued, command.credential_id, expected_version=0),
        credential_kind=command.credential_kind,
        principal_id=command.principal_id,
        principal_kind=command.principal_kind,
        issuer=command.issuer,
        secret_sha256=command.secret_sha256,
        name=command.name,
        description=command.description,
        scopes=command.scopes,
        groups=command.groups,
        groups_unknown=command.groups_unknown,
        claims=dict(command.claims),
        client_id=command.client_id,
        maker_id=command.maker_id,
        expires_at_ms=command.expires_at_ms,
        vouched_at_ms=command.vouched_at_ms,
        renewal_sealed=command.renewal_sealed,
    )


def renew(world: World, command: RenewSession, context: Context) -> e.SessionRenewed | None:
    """None when what is known is newer. Raises NotFound when the session has ended."""
    found = world.get(KIND, command.credential_id)
    if not isinstance(found, Credential) or found.credential_kind != SESSION:
        raise NotFound(f"There is no session with id {shown(command.credential_id)}.")
    said = command.sign_in
    if said.vouched_at_ms < found.said.vouched_at_ms:
        return None
    return e.SessionRenewed(
        envelope=context.envelope(
            e.SessionRenewed, found.credential_id, expected_version=found.version
        ),
        principal_id=found.principal_id,
        groups=said.groups,
        groups_unknown=said.groups_unknown,
        claims=dict(said.claims),
        vouched_at_ms=said.vouched_at_ms,
        renewal_sealed=command.renewal_sealed,
    )


def revoke(world: World, command: RevokeCredential, context: Context) -> e.CredentialRevoked | None:
    """None when it is revoked already. Raises NotFound or Invalid."""
    found = world.get(KIND, command.credential_id)
    if not isinstance(found, Credential):
        raise NotFound(f"There is no token with id {shown(command.credential_id)}.")
    if found.revoked_at_ms is not None:
        return None
    if len(command.reason) > CREDENTIAL_REASON_CHARS_MAX:
        raise Invalid(f"A reason has at most {CREDENTIAL_REASON_CHARS_MAX} characters.")
    return e.CredentialRevoked(
        envelope=context.envelope(
            e.CredentialRevoked, found.credential_id, expected_version=found.version
        ),
        credential_kind=found.credential_kind,
        principal_id=found.principal_id,
        reason=command.reason,
    )


def evolve(state: Credential | None, event: e.Event) -> Credential | None:
    """The credential behind an event; None once a session has ended."""
    match event:
        case e.CredentialIssued():
            return _issued(event)
        case e.SessionRenewed():
            if state is None:
                raise Void("the session has ended")
            return msgspec.structs.replace(
                state,
                version=state.version + 1,
                groups=event.groups,
                groups_unknown=event.groups_unknown,
                claims=event.claims,
                vouched_at_ms=event.vouched_at_ms,
                renewal_sealed=event.renewal_sealed,
            )
        case e.CredentialRevoked():
            if state is None:
                raise Void("there is no such credential, or it has ended")
            if state.credential_kind == SESSION:
                return None
            return msgspec.structs.replace(
                state,
                version=state.version + 1,
                revoked_at_ms=event.envelope.recorded_at_ms,
                revoked_by=event.envelope.actor.principal_id,
                revoked_reason=event.reason,
            )
    raise AssertionError(f"no event of a credential: {event.envelope.type}")


def of_principal(world: World, principal_id: str) -> list[Credential]:
    """All credentials that authenticate a principal, the oldest first."""
    found = (
        credential
        for credential in world.of_kind(KIND)
        if isinstance(credential, Credential) and credential.principal_id == principal_id
    )
    return sorted(found, key=lambda credential: credential.issued_at_ms)


def _issued(event: e.CredentialIssued) -> Credential:
    return Credential(
        version=1,
        credential_id=event.envelope.aggregate_id,
        credential_kind=event.credential_kind,
        principal_id=event.principal_id,
        principal_kind=event.principal_kind,
        issuer=event.issuer,
        secret_sha256=event.secret_sha256,
        name=event.name,
        description=event.description,
        scopes=event.scopes,
        groups=event.groups,
        groups_unknown=event.groups_unknown,
        claims=event.claims,
        client_id=event.client_id,
        maker_id=event.maker_id,
        issued_by=event.envelope.actor.principal_id,
        issued_at_ms=event.envelope.recorded_at_ms,
        expires_at_ms=event.expires_at_ms,
        vouched_at_ms=event.vouched_at_ms,
        renewal_sealed=event.renewal_sealed,
    )


def _check_texts(command: IssueCredential) -> None:
    if not command.name.strip() or len(command.name) > CREDENTIAL_NAME_CHARS_MAX:
        raise Invalid(f"A token's name has 1 to {CREDENTIAL_NAME_CHARS_MAX} characters.")
    if not command.name.isprintable():
        raise Invalid("A token's name is one line of printable characters.")
    if len(command.description or "") > CREDENTIAL_DESCRIPTION_CHARS_MAX:
        raise Invalid(f"A description has at most {CREDENTIAL_DESCRIPTION_CHARS_MAX} characters.")
    if len(command.scopes) > CREDENTIAL_SCOPES_MAX:
        raise Invalid(f"A token has at most {CREDENTIAL_SCOPES_MAX} scopes.")
    for scope in command.scopes:
        if _SCOPE.fullmatch(scope) is None:
            raise Invalid(
                f"{shown(scope)} is no scope. A scope is a permission such as run:write, or a "
                "pattern such as run:* or *:read."
            )


def _check_life(command: IssueCredential, now_ms: int) -> None:
    life_ms = command.expires_at_ms - now_ms
    if command.credential_kind == SESSION:
        assert life_ms <= SESSION_LIFE_MS, "sessions are made by us"
    if life_ms <= 0 or life_ms > TOKEN_LIFE_DAYS_MAX * DAY_MS:
        raise Invalid(
            f"A token lives at least a moment and at most {TOKEN_LIFE_DAYS_MAX} days from now."
        )
