"""The artifact proxy (`mlflow-artifacts:`): upload, download, list and delete files by path."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from muniment_auth.permissions import Permission as P
from muniment_projections.artifacts.reader import find_artifact
from muniment_services.api import wire
from muniment_services.api.downloads import download, is_folder, refusals, refused
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Answer, Call, Handler, Route
from muniment_services.artifacts.base import ArtifactError, ArtifactIsFolder, Entry, Stored
from muniment_services.authority import Denied
from muniment_services.domain.artifact import (
    KIND,
    RecordDeletion,
    RecordUpload,
    checked_path,
    file_path,
    owners,
)
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

    Whether there is anything at the path makes no difference to what is said.
    """
    call.authority.touch(KIND, path)
    if call.authority.reads_all:
        return
    services = call.services
    await services.caught_up()
    await services.fold.ensure_loaded(owners(path))
    needs = of_path(services.fold.state, path)
    if not all(call.authority.allows(need.resource, need.permission) for need in needs):
        raise Denied(f"this principal has no {call.authority.permission} on this path")


async def upload(call: Call, path: str, chunks: AsyncIterator[bytes]) -> None:
    """Store a file and record it. Raises ApiError, Denied.

    An Idempotency-Key makes no difference: a repeated upload stores the same file again, and each
    that changed the store is in the log.
    """
    await authorise(call, path)
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
            previous_sha256=None if known is None else known.sha256,
        )
        await services.writer.submit(caller, command, lambda _: b"")

    with refusals():
        await services.artifacts.upload(path, chunks, record)


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
    await authorise(call, path)
    caller = replace(call.caller, idempotency_key=None, request=b"")

    async def record(owners: Mapping[str, int]) -> None:
        for owner, files in owners.items():
            command = RecordDeletion(owner=owner, path=path, files=files)
            await call.services.writer.submit(caller, command, lambda _: b"")

    with refusals():
        await call.services.artifacts.delete(path, record)
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
