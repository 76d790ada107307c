"""Cutting a principal off: all that muniment itself gave it ends at once.

Each token, session and grant is an aggregate's own history, so this is one event for each: tokens
and sessions first, so that nothing calls while the rest goes. Done again, it ends what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Call, Route
from muniment_services.domain.access import RevokeGrant, state_of
from muniment_services.domain.credential import KIND as CREDENTIAL
from muniment_services.domain.credential import Credential, RevokeCredential, of_principal
from muniment_services.domain.errors import NotFound, StillNeeded
from muniment_services.domain.limits import shown
from muniment_services.domain.principal import KIND as PRINCIPAL
from muniment_services.write import Caller

_REASON: Fields = (Field("reason"),)


async def cut_off(call: Call) -> bytes:
    """DELETE /api/v1/access/principals/{principal_id}?reason=: end all that it was given here.

    Its tokens, its sessions, then the grants to it; for admins. `left` says what it may go on with:
    groups at its identity provider are not ours to take, nor is what it made for others its own.
    """
    principal_id = call.path_params["principal_id"]
    reason = from_query(call.query, _REASON).get("reason") or "cut off"
    services = call.services
    # Repeating it is harmless, and its events are many: it has no one answer to keep.
    caller = dataclasses.replace(call.caller, idempotency_key=None, request=b"")
    async with services.access_changes:
        await services.caught_up()
        state = services.fold.state
        live = [c for c in of_principal(state, principal_id) if c.revoked_at_ms is None]
        given = list(_grants_to(call, principal_id))
        if not live and not given and state.get(PRINCIPAL, principal_id) is None:
            raise NotFound(
                f"Nobody with id {shown(principal_id)} has written or been given anything here, so "
                "there is nothing to end."
            )
        for found in live:
            await _revoke(call, caller, found, reason)
        revoked, left = [], list(_made_for_others(call, principal_id))
        for grant_id in given:
            try:
                await _revoke_grant(call, caller, grant_id, reason)
                revoked.append(grant_id)
            except StillNeeded as error:
                left.append(f"the grant {grant_id}: {error}")
    ended = [found.credential_id for found in live]
    return wire.encode({"credentials": ended, "grants": revoked, "left": left})


async def _revoke(call: Call, caller: Caller, found: Credential, reason: str) -> None:
    command = RevokeCredential(credential_id=found.credential_id, reason=reason)
    try:
        await call.services.writer.submit(caller, command, wire.empty)
    except NotFound:
        return  # A session that has just ended by itself.


async def _revoke_grant(call: Call, caller: Caller, grant_id: str, reason: str) -> None:
    elsewhere = bool(call.services.admin_groups)
    command = RevokeGrant(grant_id=grant_id, reason=reason, admins_elsewhere=elsewhere)
    try:
        await call.services.writer.submit(caller, command, wire.empty)
    except NotFound:
        return  # Another server was asked the same.


def _grants_to(call: Call, principal_id: str) -> Iterator[str]:
    for grant_id, record in state_of(call.services.fold.state).grants.items():
        if (record.grant.subject_kind, record.grant.subject) == ("principal", principal_id):
            yield grant_id


def _made_for_others(call: Call, principal_id: str) -> Iterator[str]:
    now_ms = call.services.now_ms()
    for found in call.services.fold.state.of_kind(CREDENTIAL):
        assert isinstance(found, Credential)
        if principal_id == found.issued_by != found.principal_id and found.is_live(now_ms):
            yield f"the token {found.credential_id} of {found.name}, which it made"


ROUTES = (Route("DELETE", "/api/v1/access/principals/{principal_id}", P.SERVER_ADMIN, cut_off),)
