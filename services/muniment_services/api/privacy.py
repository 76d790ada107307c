"""Who people are, and having it forgotten: `/api/v1/privacy`. Legal holds: `/api/v1/holds`.

Admins only; auditors see the holds.
"""

from __future__ import annotations

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.login_pages import NO_STORE
from muniment_services.api.requests import Field, Fields, from_query, struct_from_body
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.domain import access, credential, experiment, hold, registered_model
from muniment_services.domain.errors import NotFound
from muniment_services.domain.limits import shown
from muniment_services.domain.principal import KIND, ErasePrincipal, PrincipalState

_REASON: Fields = (Field("reason", required=True),)


class ErasureBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why somebody is to be forgotten."""

    reason: str


class HoldBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a hold is to cover; what the fields mean: `HoldPlaced`."""

    reason: str
    workspace: str | None = None
    models: str | None = None
    experiments: str | None = None
    principal_id: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


async def show_principal(call: Call) -> Answer:
    """GET /api/v1/privacy/principals/{id}: all that is kept of a person as a person."""
    found = await _principal(call)
    identity = None
    if found.erased_at_ms is None:
        identity = await call.services.identities.identity(found.principal_id)
    return Answer(
        wire.encode(
            {
                "principal_id": found.principal_id,
                "kind": found.principal_kind,
                "state": "known" if identity is not None else "erased",
                "identity": None
                if identity is None
                else {
                    "issuer": identity.issuer,
                    "subject": identity.subject,
                    "name": identity.name,
                },
                **wire.without_none(
                    erased_at_ms=found.erased_at_ms,
                    erased_by=found.erased_by,
                    erased_reason=found.erased_reason,
                ),
                **_traces_of(call, found.principal_id),
            }
        ),
        headers=NO_STORE,
    )


async def erase_principal(call: Call) -> Answer:
    """POST /api/v1/privacy/principals/{id}/erasure: forget who it is. Repeating it finishes it."""
    body = struct_from_body(call.body, call.content_type, ErasureBody)
    if call.path_params["id"] == call.principal.id:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "Nobody erases themselves: the trail has to say who did. Ask another admin.",
        )
    await _principal(call)
    command = ErasePrincipal(principal_id=call.path_params["id"], reason=body.reason)
    await call.services.writer.submit(call.caller, command, lambda _: b"{}")
    await call.services.erasures.finish()
    return await show_principal(call)


async def _principal(call: Call) -> PrincipalState:
    found = await call.services.state(KIND, call.path_params["id"])
    if not isinstance(found, PrincipalState):
        raise NotFound(f"There is no principal {shown(call.path_params['id'])}.")
    return found


def _traces_of(call: Call, principal_id: str) -> wire.Json:
    state, now_ms = call.services.fold.state, call.services.now_ms()
    tokens = credential.of_principal(state, principal_id)
    grants = access.state_of(state).grants.values()
    models = [
        m
        for m in state.of_kind(registered_model.KIND)
        if isinstance(m, registered_model.RegisteredModel)
    ]
    return {
        "credentials": [t.credential_id for t in tokens if t.is_live(now_ms)],
        "grants": [
            record.grant.grant_id
            for record in grants
            if (record.grant.subject_kind, record.grant.subject) == ("principal", principal_id)
        ],
        "experiments": sum(
            isinstance(found, experiment.Experiment) and found.created_by == principal_id
            for found in state.of_kind(experiment.KIND)
        ),
        "models": sum(model.created_by == principal_id for model in models),
        "versions": sum(
            version.created_by == principal_id
            for model in models
            for version in model.versions.values()
        ),
        "holds": sorted(found.hold for found in hold.on_principal(state, principal_id)),
    }


async def list_holds(call: Call) -> bytes:
    """GET /api/v1/holds: those in force, by name."""
    await call.services.caught_up()
    found = sorted(hold.in_force(call.services.fold.state), key=lambda one: one.hold)
    return wire.encode({"holds": [_shown(one) for one in found]})


async def place_hold(call: Call) -> bytes:
    """PUT /api/v1/holds/{name}."""
    body = struct_from_body(call.body, call.content_type, HoldBody)
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    workspace = body.workspace or call.caller.workspace
    command = hold.PlaceHold(hold=call.path_params["name"], **{**fields, "workspace": workspace})
    return await call.services.writer.submit(
        call.caller, command, lambda outcome: wire.encode({"hold": _shown(outcome.after)})
    )


async def release_hold(call: Call) -> bytes:
    """DELETE /api/v1/holds/{name}?reason=."""
    reason = from_query(call.query, _REASON)["reason"]
    command = hold.ReleaseHold(hold=call.path_params["name"], reason=reason)
    return await call.services.writer.submit(call.caller, command, wire.empty)


def _shown(found: object) -> wire.Json:
    assert isinstance(found, hold.Hold)
    told = msgspec.to_builtins(found)
    name = told.pop("hold")
    del told["version"]
    return {"name": name, **{key: value for key, value in told.items() if value is not None}}


_PRINCIPAL, _HOLD = "/api/v1/privacy/principals/{id}", "/api/v1/holds/{name}"

ROUTES = (
    Route("GET", _PRINCIPAL, P.SERVER_ADMIN, show_principal),
    Route("POST", f"{_PRINCIPAL}/erasure", P.SERVER_ADMIN, erase_principal),
    Route("GET", "/api/v1/holds", P.SERVER_READ, list_holds),
    Route("PUT", _HOLD, P.SERVER_ADMIN, place_hold),
    Route("DELETE", _HOLD, P.SERVER_ADMIN, release_hold),
)
