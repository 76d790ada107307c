"""Artifacts by run, logged model or model version instead of by path, as MLflow's UI asks."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.artifacts import file_info, upload
from muniment_services.api.downloads import download, refusals
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Answer, Call, Route, mlflow
from muniment_services.domain import artifact, logged_model, run
from muniment_services.domain.artifact import below, checked_path, path_of
from muniment_services.domain.errors import Invalid
from muniment_services.domain.promotion_guard import origins_of
from muniment_services.domain.registered_model import require_version
from muniment_services.domain.version_files import place_of

UI_UPLOAD_BYTES_MAX = 10 * 1024 * 1024

_RUN: Fields = (
    Field("run_id", required=True),
    Field("run_uuid", checked=False),
    Field("path"),
)
_RUN_FILE: Fields = (*_RUN[:2], Field("path", required=True))
_VERSION_FILE: Fields = (Field("name"), Field("version"), Field("path", required=True))
_MODEL_FILE: Fields = (Field("artifact_file_path", checked=False),)
_MODEL_FOLDER: Fields = (Field("artifact_directory_path"),)
_UPLOAD: Fields = (Field("run_uuid", checked=False), Field("path", checked=False))


async def list_run(call: Call) -> bytes:
    """GET artifacts/list."""
    params = from_query(call.query, _RUN)
    path = checked_path(params.get("path", ""))
    found = await _run(call, params.get("run_id") or params.get("run_uuid", ""))
    return await _list(call, found.artifact_uri, path)


async def list_logged_model(call: Call) -> bytes:
    """GET logged-models/ID/artifacts/directories."""
    path = checked_path(from_query(call.query, _MODEL_FOLDER).get("artifact_directory_path", ""))
    found = await _logged_model(call)
    return await _list(call, found.artifact_uri, path)


async def get_run_file(call: Call) -> Answer:
    """GET /get-artifact."""
    params = from_query(call.query, _RUN_FILE)
    path = checked_path(params["path"])
    found = await _run(call, params.get("run_id") or params.get("run_uuid", ""))
    return await _download(call, found.artifact_uri, path)


async def get_logged_model_file(call: Call) -> Answer:
    """GET logged-models/ID/artifacts/files."""
    path = from_query(call.query, _MODEL_FILE).get("artifact_file_path", "")
    if not path:
        raise ApiError(
            "BAD_REQUEST", 'Request must include the "artifact_file_path" query parameter.'
        )
    path = checked_path(path)
    found = await _logged_model(call)
    return await _download(call, found.artifact_uri, path)


async def get_version_file(call: Call) -> Answer:
    """GET /model-versions/get-artifact."""
    params = from_query(call.query, _VERSION_FILE)
    path = checked_path(params["path"])
    await call.services.caught_up()
    version = params.get("version", "")
    _, found = require_version(call.world_of_version(version), params.get("name", ""), version)
    await call.services.fold.ensure_loaded(origins_of(found))
    return await _download(call, place_of(call.services.fold.state, found), path)


async def upload_run_file(call: Call) -> Answer:
    """POST upload-artifact?run_uuid=&path=: the UI's upload of a small file, its body as it is."""
    params = from_query(call.query, _UPLOAD)
    for name in ("run_uuid", "path"):
        if not params.get(name):
            raise Invalid(f"Request must specify {name}.")
    path = checked_path(params["path"])
    if len(call.body) > UI_UPLOAD_BYTES_MAX:
        raise Invalid("Artifact size is too large. Max size is 10MB.")
    if not call.body:
        raise Invalid("Request must specify data.")
    found = await _run(call, params["run_uuid"])
    await upload(call, below(path_of(found.artifact_uri), path), _one(call.body))
    return Answer(b"")


async def _run(call: Call, run_id: str) -> run.Run:
    await call.look_up(run.KIND, run_id)
    return run.require(call.world, run_id)


async def _logged_model(call: Call) -> logged_model.LoggedModel:
    model_id = call.path_params["model_id"]
    await call.look_up(logged_model.KIND, model_id)
    return logged_model.require_active(call.world, model_id)


async def _list(call: Call, root_uri: str, path: str) -> bytes:
    with refusals():
        entries = await call.services.artifacts.store.list(below(path_of(root_uri), path))
    files = [file_info(entry, below(path, posixpath.basename(entry.path))) for entry in entries]
    return wire.encode({"root_uri": root_uri, **({"files": files} if files else {})})


async def _download(call: Call, root_uri: str, path: str) -> Answer:
    where = below(path_of(root_uri), path)
    call.authority.touch(artifact.KIND, where)
    with refusals():
        return await download(call, where)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


ROUTES = (
    *mlflow("GET", "artifacts/list", P.ARTIFACT_READ, list_run),
    *mlflow("POST", "upload-artifact", P.ARTIFACT_WRITE, upload_run_file),
    *mlflow(
        "GET",
        "logged-models/{model_id}/artifacts/directories",
        P.ARTIFACT_READ,
        list_logged_model,
    ),
    *mlflow(
        "GET", "logged-models/{model_id}/artifacts/files", P.ARTIFACT_READ, get_logged_model_file
    ),
    Route("GET", "/get-artifact", P.ARTIFACT_READ, get_run_file),
    Route("GET", "/model-versions/get-artifact", P.ARTIFACT_READ, get_version_file),
)
