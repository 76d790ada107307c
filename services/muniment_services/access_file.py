"""The access file: roles and grants that a server makes when it starts, unless they are there.

    [[role]]
    name = "promoter"
    permissions = ["model:read", "model:promote"]

    [[grant]]
    to = "group:ml-team"                  # principal:ID, group:NAME, claims, everyone
    issuer = "https://id.example/realms/main"    # for groups and claims
    role = "editor"
    on = "experiment:team-*"              # KIND:NAME, KIND:id:ID, server, *

    [[grant]]
    to = "claims"
    issuer = "https://token.actions.githubusercontent.com"
    claims = { repository_id = "123456", environment = "production" }
    role = "approver"
    on = "model:churn"
    stages = ["Production"]               # also: aliases, tag_keys, workspace, expires, comment

A role of the file replaces one of that name that holds something else. A grant that is taken out of
the file stays until it is revoked; one that was revoked but stands in the file comes back.
"""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from muniment_auth.permissions import unknown
from muniment_schemas.access_events import ANYTHING, ClaimPattern, Grant
from muniment_services.access_text import resource_of, subject_of, time_of
from muniment_services.config import ConfigError
from muniment_services.domain.access import AccessCommand, DefineRole, MakeGrant
from muniment_services.domain.access_rules import check_holder, check_role, checked_grant
from muniment_services.domain.errors import DomainError

_FIRST_MS = 0


class _Role(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    permissions: tuple[str, ...]
    description: str = ""


class _Grant(msgspec.Struct, forbid_unknown_fields=True):
    to: str
    role: str
    on: str
    issuer: str = ""
    claims: dict[str, str] = {}
    workspace: str = ""
    stages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tag_keys: tuple[str, ...] = ()
    expires: Any = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One table of the file: where it stands, for messages, and what it asks for."""

    where: str
    command: DefineRole | MakeGrant


def read(path: Path) -> tuple[Entry, ...]:
    """What the file asks for, roles first. Raises ConfigError, which says what is wrong where."""
    try:
        return parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not valid TOML: it is no UTF-8") from None


def parse(text: str, where: str) -> tuple[Entry, ...]:
    """`read` of a text. where: its name in messages."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not valid TOML: {error}") from None
    odd = next((name for name in tables if name not in ("role", "grant")), None)
    if odd is not None:
        raise ConfigError(f"{where} has {odd!r}; it may have [[role]] and [[grant]] tables only.")
    entries: list[Entry] = []
    for kind, made in (("role", _role), ("grant", _grant)):
        found = tables.get(kind, [])
        if not isinstance(found, list):
            raise ConfigError(f"{where}: write [[{kind}]] with two brackets, as there can be many.")
        for number, table in enumerate(found, 1):
            place = f"{where}: {kind} {number}"
            try:
                entries.append(Entry(place, made(table)))
            except (msgspec.ValidationError, ValueError) as error:
                raise ConfigError(f"{place}: {error}.") from None
            except DomainError as error:
                raise ConfigError(f"{place}: {error.message}") from None
    return tuple(entries)


def _role(table: object) -> DefineRole:
    role = msgspec.convert(table, _Role)
    if wrong := unknown(role.permissions):
        raise ValueError(f"{wrong[0]!r} is no permission that a role can hold")
    check_role(role.name, role.permissions, role.description)
    return DefineRole(name=role.name, permissions=role.permissions, description=role.description)


def _grant(table: object) -> MakeGrant:
    given = msgspec.convert(table, _Grant)
    subject_kind, subject = subject_of(given.to)
    resource_kind, pattern = resource_of(given.on)
    grant = Grant(
        grant_id="",
        subject_kind=subject_kind,
        subject=subject,
        issuer=given.issuer,
        claims=tuple(ClaimPattern(name=n, pattern=p) for n, p in given.claims.items()),
        role=given.role,
        workspace=given.workspace or (ANYTHING if resource_kind == "server" else "default"),
        resource_kind=resource_kind,
        pattern=pattern,
        stages=given.stages,
        aliases=given.aliases,
        tag_keys=given.tag_keys,
        expires_at_ms=_end(given.expires),
        comment=given.comment,
    )
    # One that has expired is no mistake: the file may be older than its end.
    return MakeGrant(grant=checked_grant(grant, _FIRST_MS))


def _end(expires: object) -> int | None:
    if expires is None:
        return None
    if not isinstance(expires, (date, str)):
        raise ValueError(f"expires = {expires!r} is no time; say for example 2027-01-31")
    return time_of(expires)


def check_holders(entries: Iterable[Entry], issuers: Sequence[str]) -> None:
    """Raise ConfigError for a grant that nobody could hold here. issuers: as `check_holder`."""
    for entry in entries:
        if isinstance(entry.command, MakeGrant):
            try:
                check_holder(entry.command.grant, issuers)
            except DomainError as error:
                raise ConfigError(f"{entry.where}: {error.message}") from None


async def apply(
    entries: tuple[Entry, ...], submit: Callable[[AccessCommand], Awaitable[None]], now_ms: int
) -> None:
    """Make what is not there yet, in order. Raises ConfigError for what the server refuses."""
    for entry in entries:
        if isinstance(entry.command, MakeGrant):
            ends_ms = entry.command.grant.expires_at_ms
            if ends_ms is not None and ends_ms <= now_ms:
                continue
        try:
            await submit(entry.command)
        except DomainError as error:
            raise ConfigError(f"{entry.where}: {error.message}") from None
