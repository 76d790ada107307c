"""What obstore and the operating system raise, as ArtifactErrors.

Clients see the reasons, so they say what is wrong and name no address or key; the operator finds
the service's own words in the log, at warning level.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError
from obstore.exceptions import UnauthenticatedError as Unauthenticated

from muniment_services.artifacts.base import (
    ArtifactMissing,
    PathRefused,
    StorageFull,
    StoreUnavailable,
)

NO_BUCKET = "there is no such bucket"
NO_ACCESS = "access is refused"
NO_ANSWER = "its endpoint cannot be reached"

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG})

_CODE = re.compile(r"<Code>(\w+)</Code>|\"(?:code|error|reason)\": ?\"(\w+)\"")
_SIGNS_OF_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
_SIGNS_OF_NO_ANSWER = ("kind: Connect", "kind: Timeout", "error sending request", "IMDS")
_SIGNS_OF_A_FULL_STORE = ("<Code>QuotaExceeded", "XMinioStorageFull", "507 Insufficient Storage")
_SIGNS_OF_A_REFUSED_KEY = ("KeyTooLong", "XMinioInvalidObjectName", "InvalidResourceName")

_log = structlog.get_logger("muniment.artifacts")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Errors of obstore and of the operating system as ArtifactErrors; others pass as they are."""
    try:
        yield
    except FileNotFoundError as error:
        if _says(error, _SIGNS_OF_NO_BUCKET):
            raise StoreUnavailable(path, _told(error, NO_BUCKET)) from error
        raise ArtifactMissing(path) from None
    except (BaseError, OSError) as error:
        number = _errno(error)
        if number in _FULL or _says(error, _SIGNS_OF_A_FULL_STORE):
            raise StorageFull(path, "no space is left in the artifact store") from error
        if number == errno.ENOTDIR:
            raise PathRefused(path, "a file stands where a folder would have to be") from error
        refused = isinstance(error, InvalidPathError) or _says(error, _SIGNS_OF_A_REFUSED_KEY)
        if number in _REFUSED or refused:
            raise PathRefused(path, "the store cannot have a file of this name there") from error
        raise StoreUnavailable(path, _reason(error)) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """As `translated`; what the store could not have at that path is not there."""
    try:
        with translated(path):
            yield
    except PathRefused:
        raise ArtifactMissing(path) from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) or _OS_ERROR.search(str(error)):
        return str(error).partition("\n")[0]
    if _says(error, _SIGNS_OF_NO_BUCKET):
        return _told(error, NO_BUCKET)
    if isinstance(error, PermissionDeniedError | Unauthenticated):
        return _told(error, NO_ACCESS)
    if _says(error, _SIGNS_OF_NO_ANSWER):
        return _told(error, NO_ANSWER)
    return _told(error, "the service failed")


def _told(error: Exception, reason: str) -> str:
    # The code by which the service names the refusal stands behind the reason.
    text = str(error)
    _log.warning("the object store refused", reason=reason, answer=text.partition("Debug")[0])
    found = _CODE.search(text)
    return f"{reason} ({found[1] or found[2]})" if found else reason


def _says(error: Exception, signs: tuple[str, ...]) -> bool:
    text = str(error)
    return any(sign in text for sign in signs)


def _errno(error: Exception) -> int | None:
    # obstore's errors carry the operating system's number in their text only.
    if isinstance(error, OSError):
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
