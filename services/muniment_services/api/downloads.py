"""Files as HTTP answers: ranges, names, content types. And refusals of the artifact store.

Files are always sent as attachments with `nosniff`, so that a browser never runs one as a page of
this server. One range per request is served; what else a Range header may say is ignored, and the
whole file is sent, as RFC 9110 allows.
Source: RFC 9110, section 14; RFC 6266 and RFC 8187 (file names); MLflow 3.17 server answers.
"""

from __future__ import annotations

import mimetypes
import posixpath
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from muniment_projections.artifacts.reader import find_artifact
from muniment_projections.runner import ProjectionsUnavailable
from muniment_services.api.errors import ApiError
from muniment_services.api.routes import Answer, Call
from muniment_services.artifacts.base import (
    ArtifactError,
    ArtifactIsFolder,
    ArtifactMissing,
    Opened,
    StoreUnavailable,
)

OPEN_TRIES_MAX = 5
"""Times that a range is looked up anew because the file was replaced by one of another size."""

TEXT_EXTENSIONS = frozenset(
    "txt log err cfg conf cnf cf ini properties prop hocon toml yaml yml xml json js py py3 csv "
    "tsv md rst ipynb MLmodel MLproject".split()
)
"""What MLflow calls text/plain; also whole names that have no extension."""

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


async def download(call: Call, path: str) -> Answer:
    """The answer to a GET or HEAD of one file. Raises ArtifactError, or ApiError (416)."""
    digest = await _digest(call, path)
    opened, span = await _open(call, path)
    size = opened.size_bytes
    headers: list[tuple[bytes, bytes]] = [
        (b"accept-ranges", b"bytes"),
        (b"content-disposition", content_disposition(posixpath.basename(path)).encode()),
        (b"content-length", str(size if span is None else len(span)).encode()),
    ]
    if digest is not None:
        headers.append((b"etag", b'"%s"' % digest.hex().encode()))
    if span is not None:
        shown = f"bytes {span.start}-{span.stop - 1}/{size}"
        headers.append((b"content-range", shown.encode()))
    status = 200 if span is None else 206
    return Answer(opened.chunks, status, content_type(path), tuple(headers))


async def _open(call: Call, path: str) -> tuple[Opened, range | None]:
    store = call.services.artifacts.store
    given = call.headers.get(b"range")
    if call.method == "HEAD" and (size := await store.size(path)) is not None:
        return Opened(size, _nothing()), None  # RFC 9110: Range is for GET only
    if given is None:
        return await store.get(path), None
    for _ in range(OPEN_TRIES_MAX):
        size = await store.size(path)
        span = None if size is None else wanted_span(given.decode("latin-1"), size)
        opened = await store.get(path, span)
        if opened.size_bytes == size:
            return opened, span
    raise StoreUnavailable(path, "the file is being replaced again and again")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield  # makes this a generator


async def _digest(call: Call, path: str) -> bytes | None:
    # SHA-256 of the file as it is now, None when that is not known for certain.
    try:
        found = await call.services.read(lambda connection: find_artifact(connection, path))
    except ProjectionsUnavailable:
        return None  # a download does not need it
    return None if found is None or call.services.artifacts.is_changing(path) else found.sha256


def wanted_span(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for, None for all of them.

    Raises ApiError (416) when the file has none of them.
    """
    matched = _RANGE.fullmatch(header)
    if matched is None or not any(matched.groups()):
        return None
    first, last = matched.groups()
    if first and last and int(last) < int(first):
        return None
    if first:
        span = range(int(first), min(int(last) + 1 if last else size, size))
    else:
        span = range(max(0, size - int(last)), size)
    if not span:
        raise ApiError(
            "RANGE_NOT_SATISFIABLE",
            f"The file has {size} bytes; the range asked for is not in it.",
            ((b"content-range", f"bytes */{size}".encode()),),
        )
    return span


def content_type(path: str) -> str:
    """The media type that a file's name suggests, as MLflow guesses it."""
    name = posixpath.basename(path)
    extension = posixpath.splitext(name)[1].replace(".", "") or name
    if extension in TEXT_EXTENSIONS:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def content_disposition(name: str) -> str:
    """An attachment of this name; one beyond ASCII is given in both forms."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "download"
    if _TOKEN.fullmatch(plain) is None:
        escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
        plain = f'"{escaped}"'
    if name.isascii():
        return f"attachment; filename={plain}"
    extended = quote(name, safe="!#$&+-.^_`|~")
    return f"attachment; filename={plain}; filename*=UTF-8''{extended}"


@contextmanager
def refusals() -> Iterator[None]:
    """The artifact store's refusals as ApiErrors."""
    try:
        yield
    except ArtifactError as error:
        raise refused(error) from error


def refused(error: ArtifactError) -> ApiError:
    """An artifact store's refusal as an answer."""
    match error:
        case ArtifactMissing():
            return ApiError("RESOURCE_DOES_NOT_EXIST", f"No such artifact: '{error.path}'")
        case ArtifactIsFolder():
            return ApiError("INVALID_PARAMETER_VALUE", is_folder(error.path))
        case StoreUnavailable():
            return ApiError(
                "TEMPORARILY_UNAVAILABLE",
                f"The artifact store cannot do this now: {error.reason}. {error.effect}",
                ((b"retry-after", str(error.retry_after_s).encode()),),
            )
    return ApiError("INVALID_PARAMETER_VALUE", f"'{error.path}': {error.reason}.")


def is_folder(path: str) -> str:
    """MLflow's message for a folder where a file is asked for."""
    return f"Artifact path refers to a directory, not a file: '{path}'"
