"""Reviewed promotions, as Databricks' workspace registry speaks of them: requests, comments,
activities. A stage `@ALIAS` asks for an alias instead.

Source: databricks-sdk, `ModelRegistryAPI`; Databricks REST API, model registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import NO_ATTRIBUTES, Attributes
from muniment_projections.activities.apply import REQUESTED, Activity
from muniment_projections.activities.apply import activities as activities_by
from muniment_projections.activities.reader import RecordedActivity, of_name, of_version
from muniment_projections.artifacts.reader import artifacts_below
from muniment_schemas.promotion_events import ALIAS
from muniment_services.api import wire
from muniment_services.api import wire_registry as shapes
from muniment_services.api.model_versions import TRANSITION, VERSION, transition_command
from muniment_services.api.registered_models import NAME, search_models
from muniment_services.api.registry_history import past_readable
from muniment_services.api.requests import Field, Fields, refuse_two_values
from muniment_services.api.routes import Call, Route, mlflow
from muniment_services.approvers import attributes_of, gives
from muniment_services.authority import of_model
from muniment_services.domain import promotion as domain
from muniment_services.domain.approvals import Case
from muniment_services.domain.promotion_evidence import FileDigests
from muniment_services.domain.promotion_guard import origins_of
from muniment_services.domain.registered_model import (
    ModelVersion,
    RegisteredModel,
    aliases_of,
    latest_versions,
    require,
    require_version,
)
from muniment_services.domain.registry_names import PRODUCTION, STAGING, version_number
from muniment_services.domain.review import Comment, Request
from muniment_services.domain.version_files import folder_of
from muniment_services.write import Outcome

EVIDENCE_FILES_MAX = 1000
"""Digests of files in the evidence of one approval; how many there are is told besides."""

ACTIONS = ("APPROVE_TRANSITION_REQUEST", "REJECT_TRANSITION_REQUEST")
CANCEL = "CANCEL_TRANSITION_REQUEST"

LEVELS = (
    ("CAN_MANAGE", P.MODEL_DELETE, None),
    ("CAN_MANAGE_PRODUCTION_VERSIONS", P.MODEL_PROMOTE, PRODUCTION),
    ("CAN_MANAGE_STAGING_VERSIONS", P.MODEL_PROMOTE, STAGING),
    ("CAN_EDIT", P.MODEL_WRITE, None),
)
"""Databricks' permission levels, the highest first, and what a caller must hold for each."""
LEVEL_LEAST = "CAN_READ"

_CREATE: Fields = (*VERSION, Field("stage", required=True), Field("comment"))
_APPROVE: Fields = (
    *_CREATE,
    Field("archive_existing_versions", "bool"),
    Field("evidence_sha256"),
)
_DELETE: Fields = (*_CREATE, Field("creator"))
_COMMENT: Fields = (*VERSION, Field("comment", required=True))
_UPDATE_COMMENT: Fields = (Field("id", required=True), Field("comment", required=True))
_COMMENT_ID: Fields = (Field("id", required=True),)


async def create(call: Call) -> bytes:
    """POST transition-requests/create."""
    refuse_two_values(call.body)
    command = domain.RequestTransition(**call.params(_CREATE))
    target = domain.target_of(command.stage)
    made: list[tuple[RegisteredModel, Request]] = []

    def note(outcome: Outcome) -> bytes:
        model = outcome.after
        assert isinstance(model, RegisteredModel)
        found = model.review.request(int(command.version), target)
        assert found is not None
        made.append((model, found))
        return b""

    await call.services.writer.submit(call.caller, command, note)
    [(model, found)] = made
    [case] = await _cases(call, model, [found])
    return wire.encode({"request": _request(call, model, found, case)})


async def list_open(call: Call) -> bytes:
    """GET transition-requests/list: those that nobody has decided yet."""
    params = call.params(VERSION)
    await call.services.caught_up()
    number = params["version"]
    model, version = require_version(call.world_of_version(number), params["name"], number)
    found = [r for r in model.review.requests if r.version == version.version]
    cases = await _cases(call, model, found)
    shown = [_request(call, model, case.request, case) for case in cases]
    return wire.encode({"requests": shown})


async def _cases(call: Call, model: RegisteredModel, requests: Sequence[Request]) -> Sequence[Case]:
    """Requests for one version, and all that their approvals are held against as it is now."""
    if not requests:
        return ()
    world, now_ms = call.services.fold.state, call.services.now_ms()
    version = model.versions[requests[0].version]
    await call.services.fold.ensure_loaded(origins_of(version))
    files = await _digests(call, version)
    return [domain.case_of(world, model, request, files, now_ms, gives) for request in requests]


async def approve(call: Call) -> bytes:
    """POST transition-requests/approve: the last approval that it takes moves the version."""
    refuse_two_values(call.body)
    params = call.params(_APPROVE)
    archive_others = params.pop("archive_existing_versions", False)
    services, (name, number) = call.services, (params["name"], params["version"])
    await services.caught_up()
    view = call.authority.view(services.fold.state)
    _, version = require_version(view, name, number)
    await services.fold.ensure_loaded(origins_of(version))
    async with AsyncExitStack() as held:
        folder = folder_of(view, version)
        if folder is not None:  # What is approved is what is there until it is decided.
            await held.enter_async_context(services.artifacts.unchanged(folder))
        files = await _digests(call, version)
        command = domain.ApproveRequest(**params, archive_others=archive_others, files=files)
        return await _decide(call, command)


async def reject(call: Call) -> bytes:
    """POST transition-requests/reject."""
    refuse_two_values(call.body)
    return await _decide(call, domain.RejectRequest(**call.params(_CREATE)))


async def cancel(call: Call) -> bytes:
    """DELETE transition-requests/delete: one's own request."""
    return await _decide(call, domain.CancelRequest(**call.deletion_params(_DELETE)))


async def _decide(call: Call, command: domain.ReviewCommand) -> bytes:
    return await call.services.writer.submit(call.caller, command, _decided)


def _decided(outcome: Outcome) -> bytes:
    event, model = outcome.event, outcome.after
    assert event is not None
    assert isinstance(model, RegisteredModel)
    done = next(activities_by(event, model))
    at_ms = event.envelope.recorded_at_ms
    who = event.envelope.actor.principal_id
    return wire.encode({"activity": _activity(done, event.envelope.event_id, who, at_ms, at_ms)})


async def _digests(call: Call, version: ModelVersion) -> FileDigests:
    """Digests of the version's files, as everything that was in the log at this call says."""
    location = version.storage_location
    folder = folder_of(call.services.fold.state, version)
    if folder is None:
        return FileDigests(location=location)
    files = await call.services.read(
        lambda connection: artifacts_below(connection, folder, EVIDENCE_FILES_MAX)
    )
    return FileDigests(
        location=location,
        by_path={path: digest.hex() for path, digest in files.listed},
        total=files.total,
        sha256=files.sha256,
    )


def _request(
    call: Call, model: RegisteredModel, request: Request, case: Case | None = None
) -> wire.Json:
    """A request. case: what its approvals are held against, where that is looked up."""
    void = () if case is None else case.weighed()[1]
    aliased = request.target.kind == ALIAS
    return wire.without_none(
        id=request.activity_id,
        activity_type=REQUESTED,
        creation_timestamp=request.at_ms,
        last_updated_timestamp=max([request.at_ms, *(a.at_ms for a in request.approvals)]),
        user_id=request.requester,
        from_stage=None if aliased else model.versions[request.version].stage,
        to_stage=request.target.shown,
        comment=request.comment,
        available_actions=_actions(call, model, request),
        approvals=[a.approver for a in request.approvals] or None,
        void_approvals=[msgspec.to_builtins(one) for one in void] or None,
        evidence_sha256=None if case is None else case.evidence_sha256.hex(),
    )


def _actions(call: Call, model: RegisteredModel, request: Request) -> list[str]:
    may = call.authority.allows(of_model(model), P.MODEL_APPROVE, attributes_of(request.target))
    mine = request.requester == call.caller.actor.principal_id
    return [*(ACTIONS if may else ()), *((CANCEL,) if mine else ())]


async def activities(call: Call) -> bytes:
    """GET activities/list: all that was done to a version, and asked for it, the oldest first."""
    params = call.params(VERSION)
    await call.services.caught_up()
    number = params["version"]
    model, version = require_version(call.world_of_version(number), params["name"], number)
    found = await call.services.read(lambda c: of_version(c, model.model_id, version.version))
    return wire.page("activities", map(_recorded, found), None)


async def activities_of(call: Call) -> bytes:
    """GET /api/v1/models/NAME/versions/VERSION/activities: the same, of what is gone as well.

    Versions of that number of every model that ever had the name are told; the model_id tells them
    apart.
    """
    name, number = call.path_params["name"], version_number(call.path_params["version"])
    workspace = call.authority.workspace
    found = await call.services.read(lambda c: of_name(c, name, number, workspace))
    may_read = await past_readable(call, (activity.model_id for activity in found))
    told = [activity for activity in found if activity.model_id in may_read]
    if not told:
        require_version(call.world_of_version(str(number)), name, str(number))
    return wire.encode(
        {"activities": [{**_recorded(one), "model_id": one.model_id} for one in told]}
    )


def _recorded(found: RecordedActivity) -> wire.Json:
    return _activity(found, found.id, found.actor, found.at_ms, found.updated_at_ms)


def _activity(
    activity: Activity | RecordedActivity, own_id: str, who: str, at_ms: int, updated_at_ms: int
) -> wire.Json:
    return wire.without_none(
        id=own_id,
        activity_type=activity.kind,
        user_id=who,
        creation_timestamp=at_ms,
        last_updated_timestamp=updated_at_ms,
        from_stage=activity.from_target,
        to_stage=activity.to_target,
        comment=activity.comment,
        system_comment=activity.system_comment,
    )


async def add_comment(call: Call) -> bytes:
    """POST comments/create."""
    params = call.params(_COMMENT)
    command = domain.AddComment(
        name=params["name"], version=params["version"], text=params["comment"]
    )

    def render(outcome: Outcome) -> bytes:
        return _commented(outcome, outcome.event.comment_id)  # type: ignore[union-attr]

    return await call.services.writer.submit(call.caller, command, render)


async def update_comment(call: Call) -> bytes:
    """PATCH comments/update."""
    params = call.params(_UPDATE_COMMENT)
    command = domain.UpdateComment(comment_id=params["id"], text=params["comment"])

    def render(outcome: Outcome) -> bytes:
        if outcome.event is None:
            found = domain.comment_of(call.services.fold.state, params["id"])
            assert found is not None
            return wire.encode({"comment": _comment(found[1])})
        return _commented(outcome, params["id"])

    return await call.services.writer.submit(call.caller, command, render)


async def delete_comment(call: Call) -> bytes:
    """DELETE comments/delete: one's own, or any on a model that one manages."""
    comment_id = call.deletion_params(_COMMENT_ID)["id"]
    await call.services.caught_up()
    found = domain.comment_of(call.world, comment_id)
    others = found is not None and found[1].author != call.caller.actor.principal_id
    manages = (
        found is not None and others and call.authority.allows(of_model(found[0]), P.MODEL_DELETE)
    )
    command = domain.DeleteComment(comment_id=comment_id, as_manager=manages)
    return await call.services.writer.submit(call.caller, command, wire.empty)


def _commented(outcome: Outcome, comment_id: str) -> bytes:
    assert isinstance(outcome.after, RegisteredModel)
    return wire.encode({"comment": _comment(outcome.after.review.comments[comment_id])})


def _comment(comment: Comment) -> wire.Json:
    return {
        "id": comment.comment_id,
        "user_id": comment.author,
        "comment": comment.text,
        "creation_timestamp": comment.created_at_ms,
        "last_updated_timestamp": comment.updated_at_ms,
        "available_actions": ["EDIT_COMMENT", "DELETE_COMMENT"],
    }


async def transition(call: Call) -> bytes:
    """POST databricks/model-versions/transition-stage."""
    command = transition_command(call.params(TRANSITION))

    def render(outcome: Outcome) -> bytes:
        model = outcome.after
        assert isinstance(model, RegisteredModel)
        return wire.encode(
            {"model_version_databricks": _version(call, model, int(command.version))}
        )

    return await call.services.writer.submit(call.caller, command, render)


async def get_model(call: Call) -> bytes:
    """GET databricks/registered-models/get."""
    await call.services.caught_up()
    model = require(call.world, call.params(NAME)["name"])
    latest = [
        {**shapes.model_version(version), "user_id": version.created_by}
        for version in latest_versions(model)
    ]
    return wire.encode(
        {
            "registered_model_databricks": {
                **shapes.registered_model(model),
                **({"latest_versions": latest} if latest else {}),
                "id": model.model_id,
                "user_id": model.created_by,
                "permission_level": _level(call, model),
            }
        }
    )


def _version(call: Call, model: RegisteredModel, number: int) -> wire.Json:
    version = model.versions[number]
    shown = shapes.model_version(version, aliases_of(model, number))
    opened = [_request(call, model, r) for r in model.review.requests if r.version == number]
    return {
        **shown,
        "user_id": version.created_by,
        "permission_level": _level(call, model),
        **({"open_requests": opened} if opened else {}),
    }


def _level(call: Call, model: RegisteredModel) -> str:
    """What the caller may do with a model, as near as Databricks' levels can say it."""
    resource = of_model(model)
    for level, permission, stage in LEVELS:
        attributes = NO_ATTRIBUTES if stage is None else Attributes(stage=stage)
        if call.authority.allows(resource, permission, attributes):
            return level
    return LEVEL_LEAST


def _databricks(path: str) -> str:
    return f"/api/2.0/mlflow/databricks/{path}"


ROUTES: tuple[Route, ...] = (
    *mlflow("POST", "transition-requests/create", P.MODEL_REQUEST, create),
    *mlflow("GET", "transition-requests/list", P.MODEL_READ, list_open),
    *mlflow("POST", "transition-requests/approve", P.MODEL_APPROVE, approve),
    *mlflow("POST", "transition-requests/reject", P.MODEL_APPROVE, reject),
    *mlflow("DELETE", "transition-requests/delete", P.MODEL_REQUEST, cancel),
    *mlflow("GET", "activities/list", P.MODEL_READ, activities),
    *mlflow("POST", "comments/create", P.MODEL_REQUEST, add_comment),
    *mlflow("PATCH", "comments/update", P.MODEL_REQUEST, update_comment),
    *mlflow("DELETE", "comments/delete", P.MODEL_REQUEST, delete_comment),
    *mlflow("GET", "registered-models/list", P.MODEL_READ, search_models),
    Route("POST", _databricks("model-versions/transition-stage"), P.MODEL_PROMOTE, transition),
    Route("GET", _databricks("registered-models/get"), P.MODEL_READ, get_model),
    Route(
        "GET", "/api/v1/models/{name}/versions/{version}/activities", P.MODEL_READ, activities_of
    ),
)
