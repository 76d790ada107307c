"""Multipart uploads through this server: create, the parts, complete or abort.

An upload's parts wait in a store of their own, which is all the memory there is: a part's ETag is
the name it is stored by, so any server that shares the store may take any of these calls.
Completing an upload reads the parts in order into one ordinary upload, hashed and recorded like any
other. Parts that nobody completes are removed at a later start.
Source: MLflow 3.17 (`mlflow-artifacts/mpu`, as its client uses it).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.artifacts import authorise, authorise_change, proxy, upload
from muniment_services.api.downloads import refusals, refused
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Answer, Call
from muniment_services.artifacts.base import ArtifactMissing, ArtifactStore, StoreUnavailable
from muniment_services.domain.artifact import below, checked_path
from muniment_services.domain.errors import Invalid, NotFound

PARTS_MAX = 10_000
"""As S3 has it; with the client's 10 MiB parts, 100 GB."""

UPLOAD_ID_BYTES = 16
PART_NAME_BYTES = 8
TARGET = "target"
"""Name of the file beside an upload's parts that says where it goes."""

_CREATE: Fields = (Field("path", required=True), Field("num_parts", "int"))
_NUMBER = re.compile(r"[0-9]{1,5}")
_PART_NAME = re.compile(r"[0-9]{1,5}-[0-9a-f]+")
_PART: Fields = (Field("part_number", "int"), Field("etag"), Field("url"))
_COMPLETE: Fields = (
    Field("path", required=True),
    Field("upload_id"),
    Field("parts", "message", repeated=True, required=True, fields=_PART, checked=False),
)
_ABORT: Fields = (Field("path", required=True), Field("upload_id"))


async def create(call: Call) -> bytes:
    """POST mpu/create/FOLDER: an upload id, and a URL for each part."""
    params = call.params(_CREATE)
    target = _target(call, params)
    parts = params.get("num_parts", 1)
    if not 1 <= parts <= PARTS_MAX:
        raise Invalid(f"'num_parts' must be between 1 and {PARTS_MAX}.")
    await authorise_change(call, target, adds=True)
    upload_id = call.services.artifacts.random(UPLOAD_ID_BYTES).hex()
    with refusals():
        await call.services.artifacts.parts.put(f"{upload_id}/{TARGET}", _bytes(target.encode()))
    base = f"{_origin(call)}/api/2.0/mlflow-artifacts/mpu/parts/{upload_id}"
    headers = _signed_in(call)
    credentials = [
        {"url": f"{base}/{number}", "part_number": number, **headers}
        for number in range(1, parts + 1)
    ]
    return wire.encode({"upload_id": upload_id, "credentials": credentials})


async def put_part(call: Call) -> Answer:
    """PUT mpu/parts/UPLOAD_ID/NUMBER: the part's ETag is what `complete` must name it by."""
    upload_id, number = call.path_params["upload_id"], call.path_params["number"]
    if not (_NUMBER.fullmatch(number) and 1 <= int(number) <= PARTS_MAX):
        raise Invalid(f"A part's number is between 1 and {PARTS_MAX}.")
    store = call.services.artifacts.parts
    await authorise(call, await _require(store, upload_id))
    assert call.stream is not None
    with refusals():
        name = f"{int(number)}-{call.services.artifacts.random(PART_NAME_BYTES).hex()}"
        await store.put(f"{upload_id}/{name}", call.stream)
    return Answer(b"", content_type="", headers=((b"etag", f'"{name}"'.encode()),))


async def complete(call: Call) -> bytes:
    """POST mpu/complete/FOLDER: the parts as one file, durable and recorded."""
    params = call.params(_COMPLETE)
    target = _target(call, params)
    upload_id = params.get("upload_id", "")
    store = call.services.artifacts.parts
    if await _require(store, upload_id) != target:
        raise Invalid(f"The upload '{upload_id}' is not one to '{target}'.")
    names = _names(params["parts"])
    with refusals():
        there = {posixpath.basename(entry.path) for entry in await store.list(upload_id)}
    for name in names:
        if name not in there:
            raise Invalid(f"The upload '{upload_id}' has no part '{name}'.")
    await upload(call, target, _joined(store, [f"{upload_id}/{name}" for name in names]))
    with refusals():
        await store.delete(upload_id)
    return b"{}"


async def abort(call: Call) -> bytes:
    """POST mpu/abort/FOLDER: the parts are removed; an upload that is not there is no error."""
    params = call.params(_ABORT)
    await authorise(call, _target(call, params))
    upload_id = params.get("upload_id", "")
    if _is_id(upload_id):
        with refusals():
            await call.services.artifacts.parts.delete(upload_id)
    return b"{}"


def _signed_in(call: Call) -> wire.Json:
    # The client sends parts with the headers that it is told, and with none of its own.
    given = call.headers.get(b"authorization")
    return {} if given is None else {"headers": {"Authorization": given.decode("latin-1")}}


def _target(call: Call, params: dict[str, Any]) -> str:
    # The client names its own local file; only the last part of that counts.
    name = posixpath.basename(params["path"])
    path = checked_path(below(call.path_params["path"], name))
    if not name:
        raise Invalid("'path' must name a file.")
    return path


def _names(parts: Sequence[dict[str, Any]]) -> list[str]:
    # What the parts are stored by (`NUMBER-RANDOM`, a repeated part has two), in their order.
    numbered: dict[int, str] = {}
    for part in parts:
        name = part.get("etag", "").strip('"')
        number = part.get("part_number", 0)
        if not _PART_NAME.fullmatch(name) or name.partition("-")[0] != str(number):
            raise Invalid(f"Part {number} has an ETag that was not given for it.")
        numbered[number] = name
    if sorted(numbered) != list(range(1, len(parts) + 1)):
        raise Invalid("The parts must be numbered from 1 without gaps.")
    return [numbered[number] for number in sorted(numbered)]


async def _require(store: ArtifactStore, upload_id: str) -> str:
    # Where an upload goes. Raises NotFound.
    try:
        if not _is_id(upload_id):
            raise ArtifactMissing(upload_id)
        opened = await store.get(f"{upload_id}/{TARGET}")
        return b"".join([chunk async for chunk in opened.chunks]).decode()
    except StoreUnavailable as error:
        raise refused(error) from error
    except ArtifactMissing:
        raise NotFound(
            f"There is no multipart upload '{upload_id}': it was completed or aborted, or "
            "given up long ago. Upload the file again."
        ) from None


def _is_id(upload_id: str) -> bool:
    return len(upload_id) == 2 * UPLOAD_ID_BYTES and upload_id.isascii() and upload_id.isalnum()


async def _joined(store: ArtifactStore, paths: Sequence[str]) -> AsyncIterator[bytes]:
    for path in paths:
        async for chunk in (await store.get(path)).chunks:
            yield chunk


async def _bytes(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _origin(call: Call) -> str:
    # How the client reached us, since it sends the parts to absolute URLs.
    host = call.headers.get(b"host", b"")
    if not host:
        raise ApiError("BAD_REQUEST", "The Host header is missing.")
    scheme = call.headers.get(b"x-forwarded-proto", b"http").partition(b",")[0].strip()
    return f"{scheme.decode('latin-1')}://{host.decode('latin-1')}"


ROUTES = (
    *proxy("POST", "mpu/create/{path:path}", P.ARTIFACT_WRITE, create),
    *proxy("PUT", "mpu/parts/{upload_id}/{number}", P.ARTIFACT_WRITE, put_part, streams=True),
    *proxy("POST", "mpu/complete/{path:path}", P.ARTIFACT_WRITE, complete),
    *proxy("POST", "mpu/abort/{path:path}", P.ARTIFACT_WRITE, abort),
)
