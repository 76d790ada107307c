"""Personal and service tokens: made, listed, revoked; and who the caller is.

A token is told once, in the answer that makes it, and kept as a hash. A credential never makes one
that may do more, or that lives longer, than itself. One that is limited to scopes manages itself
and what it made, nothing else of its principal.
"""

from __future__ import annotations

import re
from typing import Any

from muniment_auth import sessions, tokens
from muniment_auth.permissions import Permission as P
from muniment_auth.principal import Principal
from muniment_auth.resources import SERVER
from muniment_auth.tokens import ScopesTooWide
from muniment_schemas.credential_events import PERSONAL, SERVICE, SESSION
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.issuing import Wish, issue, own_credential_id, service_principal
from muniment_services.api.login_pages import NO_STORE
from muniment_services.api.requests import Field
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.domain.credential import KIND, Credential, RevokeCredential
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import DAY_MS, TOKEN_LIFE_DAYS_DEFAULT, shown
from muniment_services.write import Outcome

TOKEN_FIELDS = (
    Field("name", required=True),
    Field("description"),
    Field("scopes", repeated=True),
    Field("life_days", kind="int"),
)
LIST_FIELDS = (
    Field("all", kind="bool"),
    Field("ended", kind="bool"),
    Field("sessions", kind="bool"),
)
REVOKE_FIELDS = (Field("reason"),)

_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


async def who_am_i(call: Call) -> Answer:
    """GET /api/v1/whoami: the caller as the server knows it, and the session's CSRF token."""
    principal = await call.services.identities.named(call.principal)
    credential = _own_credential(call, principal)
    answer: dict[str, Any] = {
        "principal_id": principal.id,
        "kind": principal.kind,
        "name": principal.name,
        "issuer": principal.issuer,
        "groups": sorted(principal.groups),
        "auth_method": principal.auth_method,
        **wire.without_none(
            groups_unknown=principal.groups_unknown,
            client_id=principal.client_id,
            scopes=None if principal.scopes is None else sorted(principal.scopes),
        ),
    }
    if credential is not None:
        answer["credential_id"] = credential.credential_id
        answer["expires_at_ms"] = credential.expires_at_ms
    if principal.auth_method == SESSION:
        answer["csrf_token"] = _csrf_token(call)
    return Answer(wire.encode(answer), headers=NO_STORE)


async def create_token(call: Call) -> Answer:
    """POST /api/v1/tokens: a token of the caller's own, told once."""
    principal = call.principal
    # A job that proves who it is by a token of a few minutes needs none that lives longer, nor does
    # the local user any; and of a service's tokens it must be known who got them.
    if principal.kind != "user":
        raise ApiError(
            "PERMISSION_DENIED",
            f"A {principal.kind} principal has no personal tokens. Make a service token instead: "
            "POST /api/v1/service-tokens.",
        )
    return await _create(call, principal, PERSONAL)


async def create_service_token(call: Call) -> Answer:
    """POST /api/v1/service-tokens: a token of a service principal, which is made if need be.

    For admins: whoever gets it may do what was ever granted to the service.
    """
    _require(call, P.SERVER_ADMIN)
    name = call.params(TOKEN_FIELDS)["name"]
    if _SERVICE_NAME.fullmatch(name) is None:
        raise Invalid(
            f"{shown(name)} is no name of a service. It has 1 to 100 letters, digits, '.', '_' and "
            "'-', and begins with a letter or digit."
        )
    _refuse_key(call)
    service = service_principal(name)
    await call.services.identities.register_once(service)
    return await _create(call, service, SERVICE)


async def list_tokens(call: Call) -> Answer:
    """GET /api/v1/tokens: the caller's own and those it made, or all; live ones or ended ones too.

    ended: also revoked and expired ones. sessions: also browser sessions.
    """
    given = call.params(LIST_FIELDS)
    everybody = given.get("all", False)
    if everybody:
        _require(call, P.ACCESS_READ)
    await call.services.caught_up()
    principal, now_ms = call.principal, call.services.now_ms()
    found = [
        credential
        for credential in call.services.fold.state.of_kind(KIND)
        if isinstance(credential, Credential)
        and (everybody or _may_manage(principal, credential))
        and (given.get("ended", False) or credential.is_live(now_ms))
        and (given.get("sessions", False) or credential.credential_kind != SESSION)
    ]
    found.sort(key=lambda credential: (credential.issued_at_ms, credential.credential_id))
    listed = [shown_credential(call, credential) for credential in found]
    return Answer(wire.encode({"tokens": listed}), headers=NO_STORE)


async def revoke_token(call: Call) -> bytes:
    """DELETE /api/v1/tokens/{id}: it authenticates nobody from now on, on every replica."""
    credential_id = call.path_params["id"]
    found = await call.services.state(KIND, credential_id)
    principal = call.principal
    mine = isinstance(found, Credential) and _may_manage(principal, found)
    if not mine and not call.authority.allows(SERVER, P.ACCESS_GRANT):
        # Who may not, hears what is said of one that does not exist.
        raise NotFound(f"There is no token with id {shown(credential_id)}.")
    reason = call.params(REVOKE_FIELDS).get("reason") or "revoked by request"

    def render(outcome: Outcome) -> bytes:
        after = outcome.after
        if not isinstance(after, Credential):
            return b"{}"  # It was revoked already, or was a session.
        return wire.encode({"token": shown_credential(call, after)})

    command = RevokeCredential(credential_id=credential_id, reason=reason)
    return await call.services.writer.submit(call.caller, command, render)


def shown_credential(call: Call, credential: Credential) -> wire.Json:
    """A credential as answers show it: all but the hash of its secret.

    groups_unknown: why not all that its owner's groups give counts.
    """
    now_ms = call.services.now_ms()
    said = call.services.credentials.said_of(credential, now_ms)
    state = "live"
    if credential.revoked_at_ms is not None:
        state = "revoked"
    elif not credential.is_live(now_ms):
        state = "expired"
    return {
        "id": credential.credential_id,
        "kind": credential.credential_kind,
        "name": credential.name,
        "state": state,
        "principal_id": credential.principal_id,
        "scopes": list(credential.scopes),
        "issued_by": credential.issued_by,
        "issued_at_ms": credential.issued_at_ms,
        "expires_at_ms": credential.expires_at_ms,
        **wire.without_none(
            description=credential.description,
            maker_id=credential.maker_id,
            groups_unknown=said.groups_unknown,
            revoked_at_ms=credential.revoked_at_ms,
            revoked_by=credential.revoked_by,
            revoked_reason=credential.revoked_reason,
        ),
    }


async def _create(call: Call, principal: Principal, kind: str) -> Answer:
    _refuse_key(call)
    given, maker = call.params(TOKEN_FIELDS), call.principal
    _refuse_outliving(maker)
    await call.services.caught_up()
    wish = Wish(
        kind=kind,
        name=given["name"],
        description=given.get("description"),
        scopes=_scopes(given.get("scopes") or (), maker),
        expires_at_ms=_expiry(call, maker, given.get("life_days")),
    )
    secret, made = await issue(
        call.services.writer, call.caller, principal, wish, own_credential_id(maker)
    )
    answer = {"secret": secret.text, "token": shown_credential(call, made)}
    return Answer(wire.encode(answer), headers=NO_STORE)


def _refuse_outliving(maker: Principal) -> None:
    # A token of ours makes none that outlives it. A provider's is short, and so limited on purpose.
    scopes = maker.scopes
    if scopes is None or own_credential_id(maker) is not None:
        return
    if not tokens.covers(scopes, frozenset({P.SELF_USE})):
        raise ApiError(
            "PERMISSION_DENIED",
            f"This token is limited to {', '.join(sorted(scopes))}, and makes no other tokens. "
            f"Present one without scopes of muniment, or with muniment:{P.SELF_USE} among them.",
        )


def _scopes(asked: list[str] | tuple[()], maker: Principal) -> frozenset[str] | None:
    for scope in asked:
        if not any(tokens.covers(frozenset({scope}), frozenset({known})) for known in P):
            raise Invalid(f"{shown(scope)} is a scope of nothing. Scopes are: {_all_scopes()}.")
    try:
        return tokens.narrowed(frozenset(asked) or None, maker)
    except ScopesTooWide:
        has = ", ".join(sorted(maker.scopes or ()))
        raise ApiError(
            "PERMISSION_DENIED",
            f"The credential that asks is limited to {has}, and can make none that may do more.",
        ) from None


def _expiry(call: Call, maker: Principal, life_days: int | None) -> int:
    now_ms = call.services.now_ms()
    wanted = now_ms + (TOKEN_LIFE_DAYS_DEFAULT if life_days is None else life_days) * DAY_MS
    credential = _own_credential(call, maker)
    if credential is None or credential.credential_kind == SESSION:
        return wanted
    if life_days is not None and wanted > credential.expires_at_ms:
        raise ApiError(
            "PERMISSION_DENIED",
            "The token that asks can make none that lives longer than itself. Ask for fewer "
            "life_days, or for none to get its own end.",
        )
    return min(wanted, credential.expires_at_ms)


def _may_manage(principal: Principal, credential: Credential) -> bool:
    if principal.scopes is not None:
        own = own_credential_id(principal)
        return own is not None and own in (credential.credential_id, credential.maker_id)
    return principal.id in (credential.principal_id, credential.issued_by)


def _own_credential(call: Call, principal: Principal) -> Credential | None:
    own = own_credential_id(principal)
    found = None if own is None else call.services.fold.state.get(KIND, own)
    return found if isinstance(found, Credential) else None


def _csrf_token(call: Call) -> str | None:
    secret = sessions.session_secret(call.headers.get(b"cookie", b"").decode("latin-1"))
    return None if secret is None else sessions.csrf_token(secret)


def _require(call: Call, permission: P) -> None:
    if not call.authority.allows(SERVER, permission):
        raise ApiError(
            "PERMISSION_DENIED", f"Permission denied: this needs {permission} on the server."
        )


def _refuse_key(call: Call) -> None:
    if call.caller.idempotency_key is not None:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "A token is told once and kept nowhere, so that this request cannot be repeated: send "
            "no Idempotency-Key. If the answer was lost, revoke the token and make another.",
        )


def _all_scopes() -> str:
    return ", ".join(sorted(p for p in P if p is not P.PUBLIC)) + ", and patterns such as run:*"


ROUTES = (
    Route("GET", "/api/v1/whoami", P.SELF_USE, who_am_i),
    Route("POST", "/api/v1/tokens", P.SELF_USE, create_token),
    Route("GET", "/api/v1/tokens", P.SELF_USE, list_tokens),
    Route("DELETE", "/api/v1/tokens/{id}", P.SELF_USE, revoke_token),
    Route("POST", "/api/v1/service-tokens", P.SERVER_ADMIN, create_service_token),
)
