"""The past as it was: models, access and runs at a moment, and what changed between two.

A moment is `as_of`: a time as RFC 3339 has it, a date (its beginning, in UTC), milliseconds since
1970, or (for who may read the trail) the place of an event as `topic/partition/offset`, which
counts itself. All are asked of everything that was in the log when the question came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import SERVER
from muniment_projections.registry import then
from muniment_projections.registry.reader import last_known
from muniment_projections.registry.then import ModelThen
from muniment_schemas.access_events import Grant
from muniment_services.api import wire
from muniment_services.api.registry_history import past_readable, thing_of
from muniment_services.api.requests import Field, Fields, from_query, missing
from muniment_services.api.routes import Call, Route
from muniment_services.authority import Denied
from muniment_services.domain import run
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.reports import past
from muniment_services.reports.changes import Change, changes
from muniment_services.reports.moment import Moment, moment_of, time_shown
from muniment_services.reports.past import AccessThen
from muniment_services.reports.run import answered, answered_at_once
from muniment_services.reports.sources import Sources

MODELS_MAX = 1000
MODELS_DEFAULT = 100
GRANTS_MAX = 1000
"""Of one page."""

_MODEL: Fields = (Field("as_of"), Field("as_of_ms", "int"))
_PAGE: Fields = (Field("as_of"), Field("max_results", "int"), Field("page_token"))
_ACCESS: Fields = (*_PAGE, Field("principal"), Field("group"), Field("role"))
_RUN: Fields = (Field("as_of"),)
_DIFF: Fields = (Field("from"), Field("to"), Field("model"))


def _asked(call: Call, text: str) -> str:
    """A moment that the caller may ask about. Raises Denied.

    Where events of others are, and when they were recorded, is for who may read the trail.
    """
    if "/" in text and not call.authority.allows(SERVER, P.AUDIT_READ):
        raise Denied(f"a place in the log needs {P.AUDIT_READ}; ask by time")
    return text


def _moment(sources: Sources, text: str) -> Moment:
    return moment_of(text, sources.now_ms, sources.recorded_at)


def _told(moment: Moment) -> Mapping[str, Any]:
    place = {} if moment.place is None else {"as_of_place": str(moment.place)}
    return {"as_of": time_shown(moment.at_ms), "as_of_ms": moment.at_ms, **place}


def _page(params: Mapping[str, Any], default: int, most: int) -> int:
    wanted = params.get("max_results") or default
    if not 1 <= wanted <= most:
        raise Invalid(f"'max_results' must be between 1 and {most}.")
    return int(wanted)


def _next(token: str | None) -> Mapping[str, str]:
    return {} if token is None else {"next_page_token": token}


async def model(call: Call) -> bytes:
    """GET /api/v1/models/{name}/state?as_of=: its versions then, their stages and aliases."""
    params, name = from_query(call.query, _MODEL), call.path_params["name"]
    text = params.get("as_of") or (str(params["as_of_ms"]) if "as_of_ms" in params else "")
    if not _asked(call, text):
        raise missing("as_of")
    workspace = call.authority.workspace

    def read(sources: Sources) -> tuple[Moment, ModelThen | None]:
        moment = _moment(sources, text)
        return moment, then.model_at(sources.connection, name, moment.when, workspace)

    moment, found = await answered_at_once(call.services, "model", read)
    if found is None or not await past_readable(call, (found.model_id,)):
        raise NotFound(f"There was no registered model with name={name} at {moment}")
    return wire.encode({**_model(found), **_told(moment)})


def _model(found: ModelThen) -> wire.Json:
    return {
        "name": found.name,
        "model_id": found.model_id,
        "versions": [
            {"version": str(v.version), "stage": v.stage, "aliases": v.aliases}
            for v in found.versions
        ],
    }


async def models(call: Call) -> bytes:
    """GET /api/v1/models?as_of=: the models that there were, by name, as far as the caller may
    read them."""
    params = from_query(call.query, _PAGE)
    most = _page(params, MODELS_DEFAULT, MODELS_MAX)
    await call.services.caught_up()
    workspace = call.authority.workspace
    text = _asked(call, params.get("as_of", ""))

    def read(sources: Sources) -> tuple[Moment, list[ModelThen], str | None]:
        moment, found = _moment(sources, text), list[ModelThen]()
        after = params.get("page_token", "")
        while True:
            named = then.models_at(sources.connection, moment.when, workspace, after, MODELS_MAX)
            readable = _readable(call, sources, [model_id for model_id, _ in named])
            for model_id, name in named:
                if model_id in readable:
                    if len(found) == most:
                        return moment, found, found[-1].name
                    found.append(then.state_at(sources.connection, model_id, name, moment.when))
            if len(named) < MODELS_MAX:
                return moment, found, None
            after = named[-1][1]

    moment, found, token = await answered_at_once(call.services, "models", read)
    told = [_model(one) for one in found]
    return wire.encode({**_told(moment), "models": told, **_next(token)})


def _readable(call: Call, sources: Sources, model_ids: Sequence[str]) -> frozenset[str]:
    """Those of the models that there are or were which the caller may read."""
    last = last_known(sources.connection, model_ids)
    state, access, now_ms = call.services.fold.state, call.access, call.services.now_ms()
    things = ((model_id, thing_of(state, model_id, last)) for model_id in model_ids)
    return frozenset(
        one for one, thing in things if access.decide(P.MODEL_READ, thing, now_ms=now_ms).allowed
    )


async def access(call: Call) -> bytes:
    """GET /api/v1/access/state?as_of=: the roles and grants that there were, and who made them.

    principal, group, role: of these only. Grants are by id, the oldest first.
    """
    params = from_query(call.query, _ACCESS)
    most, after = _page(params, GRANTS_MAX, GRANTS_MAX), params.get("page_token", "")

    def read(sources: Sources) -> tuple[Moment, AccessThen]:
        moment = _moment(sources, params.get("as_of", ""))
        return moment, past.access_at(sources, moment)

    moment, found = await answered(call.services, "access", read)
    wanted = [
        (grant_id, record)
        for grant_id, record in sorted(found.state.grants.items())
        if grant_id > after and _is_wanted(record.grant, params)
    ]
    page = wanted[:most]
    names = await call.services.identities.names(
        one for _, record in page for one in (record.granted_by, record.grant.subject) if one
    )
    grants = [
        {
            **msgspec.to_builtins(record.grant),
            "granted_by": record.granted_by,
            "granted_at_ms": record.granted_at_ms,
            "expired": _has_ended(record.grant, moment),
            "event": str(found.last[past.GRANT, grant_id]),
        }
        for grant_id, record in page
    ]
    token = page[-1][0] if len(wanted) > most else None
    return wire.encode(
        {
            **_told(moment),
            "roles": _roles(found),
            "ownerships_ended": sorted(f"{kind}:{thing}" for kind, thing in found.state.ended),
            "names": names,
            "grants": grants,
            **_next(token),
        }
    )


def _is_wanted(grant: Grant, params: Mapping[str, Any]) -> bool:
    subject = (grant.subject_kind, grant.subject)
    return (
        (params.get("principal") in (None, "") or subject == ("principal", params["principal"]))
        and (params.get("group") in (None, "") or subject == ("group", params["group"]))
        and params.get("role") in (None, "", grant.role)
    )


def _has_ended(grant: Grant, moment: Moment) -> bool:
    return grant.expires_at_ms is not None and grant.expires_at_ms <= moment.at_ms


def _roles(found: AccessThen) -> list[wire.Json]:
    """Those of one's own; what built-in ones hold is the release's to say."""
    return [
        {
            "name": name,
            "permissions": role.permissions,
            "description": role.description,
            "event": str(found.last[past.ROLE, name]),
        }
        for name, role in sorted(found.state.roles.items())
    ]


async def run_state(call: Call) -> bytes:
    """GET /api/v1/runs/{run_id}/state?as_of=: params, tags, status, stage and latest metrics."""
    run_id = call.path_params["run_id"]
    await call.look_up(run.KIND, run_id)
    run.require(call.world, run_id)  # Whoever may read it now may read what it was.
    text = _asked(call, from_query(call.query, _RUN).get("as_of", ""))

    def read(sources: Sources) -> tuple[Moment, past.RunThen | None]:
        moment = _moment(sources, text)
        return moment, past.run_at(sources, run_id, moment)

    moment, found = await answered(call.services, "run", read)
    if found is None:
        raise NotFound(f"There was no run with id={run_id} at {moment}")
    told = {"run": wire.run(found.run, found.lifecycle), "event": str(found.last)}
    return wire.encode({**told, **_told(moment)})


async def diff(call: Call) -> bytes:
    """GET /api/v1/audit/diff?from=&to=: what of registry, roles and grants changed in between."""
    params, workspace = from_query(call.query, _DIFF), call.authority.workspace
    if not params.get("from"):
        raise missing("from")
    model = params.get("model") or None

    def read(sources: Sources) -> tuple[Moment, Moment, list[Change], bool]:
        one, other = _moment(sources, params["from"]), _moment(sources, params.get("to", ""))
        return one, other, *changes(sources, one, other, workspace, model)

    one, other, found, truncated = await answered(call.services, "diff", read)
    return wire.encode(
        {
            "from": _told(one),
            "to": _told(other),
            "changes": [_change(change) for change in found],
            "truncated": truncated,
        }
    )


def _change(change: Change) -> wire.Json:
    told = {
        "what": change.what,
        "of": change.of,
        "version": change.version,
        "before": change.before,
        "after": change.after,
        "event": str(change.place),
    }
    return {name: value for name, value in told.items() if value is not None}


ROUTES = (
    Route("GET", "/api/v1/models", P.MODEL_READ, models),
    Route("GET", "/api/v1/models/{name}/state", P.MODEL_READ, model),
    Route("GET", "/api/v1/access/state", P.AUDIT_READ, access),
    Route("GET", "/api/v1/runs/{run_id}/state", P.RUN_READ, run_state),
    Route("GET", "/api/v1/audit/diff", P.AUDIT_READ, diff),
)
