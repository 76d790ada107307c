"""The artifact proxy (`mlflow-artifacts:`): upload, download, list and delete files by path."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import SERVER
from muniment_projections.artifacts.reader import find_artifact
from muniment_services.api import wire
from muniment_services.api.downloads import download, is_folder, refusals, refused
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Answer, Call, Handler, Route
from muniment_services.artifacts.base import ArtifactError, ArtifactIsFolder, Entry, Stored
from muniment_services.authority import Denied, Need, of_model
from muniment_services.domain import workspace as workspaces
from muniment_services.domain.artifact import KIND as ARTIFACT
from muniment_services.domain.artifact import checked_path, file_path, is_in_folder, owners
from muniment_services.domain.artifact_changes import RecordDeletion, RecordUpload, refuse_held
from muniment_services.domain.registered_model import KIND, RegisteredModel
from muniment_services.domain.version_files import folder_of, require_unsealed
from muniment_services.targets import of_path

_LIST: Fields = (Field("path", checked=False),)


async def put(call: Call) -> Answer:
    """PUT mlflow-artifacts/artifacts/PATH: 200 when the file and its event are durable."""
    given = call.path_params["path"]
    path = file_path(given)
    if given.endswith("/"):
        return _detail("Artifact path must include a filename (cannot end with '/').")
    assert call.stream is not None
    await upload(call, path, call.stream)
    return Answer(b"", content_type="")


async def authorise(call: Call, path: str) -> None:
    """Raise Denied unless the caller may do what the route is for with the file or folder.

    Whether there is anything at the path makes no difference to what is said, nor whether it is in
    another workspace.
    """
    authority, services = call.authority, call.services
    authority.touch(ARTIFACT, path)
    if authority.reads_all:
        return
    await services.caught_up()
    await services.fold.look_up(owners(path), authority.knows)
    needs = tuple(of_path(services.fold.state, path))
    may = all(authority.allows(need.resource, need.permission) for need in needs)
    if may and _is_here(call, path, needs):
        return
    if not (authority.permission is P.ARTIFACT_READ and _is_registered(call, path)):
        raise Denied(f"this principal has no {authority.permission} on this path")


def _is_here(call: Call, path: str, needs: Sequence[Need]) -> bool:
    """Whether a path is of the request's workspace: by what it belongs to, else by its folder."""
    authority = call.authority
    if not authority.isolated:
        return True
    places: set[str | None] = {n.resource.workspace for n in needs if n.resource != SERVER}
    return (places or {workspaces.at(call.services.fold.state, path)}) == {authority.workspace}


def _is_registered(call: Call, path: str) -> bool:
    """Whether a path is in the folder of a version's files, of a model whose files one may read.

    Clients load a version by the place of its files, as they get it from get-download-uri.
    """
    state, authority = call.services.fold.state, call.authority
    ids = [aggregate_id for _, aggregate_id in owners(path)]

    def has_it(model: RegisteredModel) -> bool:
        # By the text first: there may be many versions, and next to none names the owner.
        named = (
            version
            for version in model.versions.values()
            if any(owner in version.storage_location for owner in ids)
        )
        folders = (folder_of(state, version) for version in named)
        return any(folder and is_in_folder(path, folder) for folder in folders)

    return any(
        isinstance(model, RegisteredModel)
        and has_it(model)
        and (not authority.isolated or model.workspace == authority.workspace)
        and all(authority.allows(of_model(model), p) for p in (P.ARTIFACT_READ, P.MODEL_READ))
        for model in state.of_kind(KIND)
    )


async def authorise_change(call: Call, path: str, adds: bool = False) -> None:
    """The same for a route that changes files; raises ReviewRequired for what stays as it is.

    It is checked again when the change is decided; here, so that nobody sends a file for nothing.
    adds: whether it may turn out that there is no such file yet.
    """
    await authorise(call, path)
    services = call.services
    await services.caught_up()
    await services.fold.ensure_loaded(owners(path))
    owned_by = (owner for _, owner in owners(path))
    require_unsealed(call.authority.view(services.fold.state), owned_by, path, adds)


async def upload(call: Call, path: str, chunks: AsyncIterator[bytes]) -> None:
    """Store a file and record it. Raises ApiError, Denied, ReviewRequired.

    An Idempotency-Key makes no difference: a repeated upload stores the same file again, and each
    that changed the store is in the log.
    """
    await authorise_change(call, path, adds=True)
    caller = replace(call.caller, idempotency_key=None, request=b"")
    services = call.services

    async def record(stored: Stored, replaced: bool) -> None:
        known = None
        if replaced:
            known = await services.read(lambda connection: find_artifact(connection, path))
        command = RecordUpload(
            path=path,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            replaces=replaced,
            previous_sha256=None if known is None else known.sha256,
        )
        await services.writer.submit(caller, command, lambda _: b"")

    async def allowed() -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
        # What was allowed at the first byte may not be at the last, which may come hours later.
        await authorise_change(call, path, adds=True)

    with refusals():
        await services.artifacts.upload(path, allowed(), record)


async def get(call: Call) -> Answer:
    """GET or HEAD mlflow-artifacts/artifacts/PATH."""
    path = file_path(call.path_params["path"])
    await authorise(call, path)
    try:
        return await download(call, path)
    except ArtifactIsFolder:
        return _detail(is_folder(path))
    except ArtifactError as error:
        raise refused(error) from error


async def delete(call: Call) -> bytes:
    """DELETE mlflow-artifacts/artifacts/PATH: a file or a folder; none there is no error."""
    path = file_path(call.path_params["path"])
    await authorise_change(call, path)
    caller = replace(call.caller, idempotency_key=None, request=b"")
    services = call.services

    async def record(losing: Mapping[str, int]) -> AsyncIterator[str]:
        # All or none: what one owner loses is recorded apart from what another does.
        await services.fold.ensure_loaded([key for owner in losing for key in owners(owner)])
        require_unsealed(call.authority.view(services.fold.state), losing, path)
        for owner in losing:
            refuse_held(services.fold.state, owner, path)
        for owner, files in losing.items():
            command = RecordDeletion(owner=owner, path=path, files=files)
            await services.writer.submit(caller, command, lambda _: b"")
            yield owner

    with refusals():
        await services.artifacts.delete(path, record)
    return b"{}"


async def list_files(call: Call) -> bytes:
    """GET mlflow-artifacts/artifacts?path=PATH; paths in the answer are relative to PATH."""
    folder = checked_path(from_query(call.query, _LIST).get("path", ""))
    await authorise(call, folder)
    with refusals():
        entries = await call.services.artifacts.store.list(folder)
    files = [file_info(entry, posixpath.basename(entry.path)) for entry in entries]
    return wire.encode({"files": files} if files else {})


def file_info(entry: Entry, path: str) -> wire.Json:
    """MLflow's FileInfo, with the path as the caller of this route sees it."""
    info: wire.Json = {"path": path, "is_dir": entry.is_folder}
    if entry.size_bytes and not entry.is_folder:  # As upstream: no size for an empty file.
        info["file_size"] = entry.size_bytes
    return info


def _detail(text: str) -> Answer:
    # Some refusals of MLflow's artifact proxy have FastAPI's shape, not MLflow's.
    return Answer(wire.encode({"detail": text}), 400)


def proxy(
    method: str, path: str, permission: P, handler: Handler, streams: bool = False
) -> tuple[Route, ...]:
    """A route of the artifact proxy with its `/ajax-api` twin."""
    return tuple(
        Route(method, f"/{root}/2.0/mlflow-artifacts/{path}", permission, handler, streams)
        for root in ("api", "ajax-api")
    )


ROUTES = (
    *proxy("GET", "artifacts", P.ARTIFACT_READ, list_files),
    *proxy("GET", "artifacts/{path:path}", P.ARTIFACT_READ, get),
    *proxy("PUT", "artifacts/{path:path}", P.ARTIFACT_WRITE, put, streams=True),
    *proxy("DELETE", "artifacts/{path:path}", P.ARTIFACT_DELETE, delete),
)
