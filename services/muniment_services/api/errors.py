"""Errors to HTTP: the one place that knows a refusal's status and MLflow `error_code`.

Body: `{"error_code", "message", "sqlstate", "error_class"}`, as MLflow's server answers.
Source: MLflow 3.17 REST API, error responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import msgspec

from muniment_auth.identity import KeysUnavailable
from muniment_projections.runner import ProjectionsUnavailable
from muniment_projections.search.errors import SearchError
from muniment_services.authority import Denied
from muniment_services.domain import errors as d
from muniment_services.log.base import LogBackpressure, LogError, RecordTooLarge
from muniment_services.reports.report import ReportTooSlow
from muniment_services.write import Contended

SQLSTATE = "KAM00"

STATUS: Mapping[str, int] = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_TOO_LARGE": 413,
    "RANGE_NOT_SATISFIABLE": 416,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "FEATURE_DISABLED": 500,
    "INTERNAL_ERROR": 500,
    "INVALID_STATE": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}

_DOMAIN: Mapping[type[d.DomainError], str] = {
    d.Invalid: "INVALID_PARAMETER_VALUE",
    d.NotFound: "RESOURCE_DOES_NOT_EXIST",
    d.ReviewRequired: "PERMISSION_DENIED",
    d.AlreadyExists: "RESOURCE_ALREADY_EXISTS",
    d.WrongState: "INVALID_STATE",
    d.Held: "RESOURCE_CONFLICT",
    d.StillNeeded: "RESOURCE_CONFLICT",
    d.SeenOtherwise: "RESOURCE_CONFLICT",
    d.Superseded: "RESOURCE_CONFLICT",
    d.NotAllowedNow: "INTERNAL_ERROR",
    d.KeyReused: "INVALID_PARAMETER_VALUE",
}

_TOO_MUCH = (
    "There is not enough memory for this question now. Ask for fewer results, or raise "
    "`projections_memory`."
)

_NO_KEYS = "Who calls cannot be noted now, since the keys cannot be reached; try again."

_CLASSES: Mapping[str, str] = {"RESOURCE_DOES_NOT_EXIST": "RESOURCE_NOT_FOUND"}


class ApiError(Exception):
    """A refusal that belongs to HTTP itself: content type, size, path, permission."""

    def __init__(
        self, error_code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message
        self.headers = headers


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """Status, extra headers and JSON body of a refusal, and what of it the trail is told."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    error_code: str
    message: str


def expected(error: Exception) -> ErrorAnswer | None:
    """The answer to an error that callers, brokers or disks can cause; None for a fault of ours."""
    match error:
        case ApiError():
            return _answer(error.error_code, error.message, error.headers)
        case Denied():
            return _answer("PERMISSION_DENIED", f"Permission denied: {error.reason}.")
        case d.DomainError():
            return _answer(_DOMAIN[type(error)], error.message)
        case ReportTooSlow():
            return _answer("INVALID_PARAMETER_VALUE", str(error))
        case SearchError():
            code = "INTERNAL_ERROR" if error.internal else "INVALID_PARAMETER_VALUE"
            return _answer(code, error.message)
        case RecordTooLarge():
            return _answer("REQUEST_TOO_LARGE", str(error))
        case LogBackpressure():
            return _answer("REQUEST_LIMIT_EXCEEDED", str(error), _retry(error.retry_after_s))
        case Contended():
            return _answer("TEMPORARILY_UNAVAILABLE", str(error), _retry(error.retry_after_s))
        case KeysUnavailable():
            return _answer("TEMPORARILY_UNAVAILABLE", _NO_KEYS, _retry(5))
        case d.Quarantined():
            return _answer("TEMPORARILY_UNAVAILABLE", error.message, _retry(error.retry_after_s))
        case duckdb.OutOfMemoryException():
            return _answer("TEMPORARILY_UNAVAILABLE", _TOO_MUCH, _retry(5))
        case LogError() | ProjectionsUnavailable():
            retry_s = getattr(error, "retry_after_s", 5)
            return _answer("TEMPORARILY_UNAVAILABLE", str(error), _retry(retry_s))
    return None


def internal(request_id: str) -> ErrorAnswer:
    """The answer to a fault of ours: nothing of it is shown but the request id to look for."""
    return _answer(
        "INTERNAL_ERROR",
        f"The server failed on this request. Its log says why, under request id {request_id}.",
    )


def _retry(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"retry-after", str(seconds).encode()),)


def _answer(
    error_code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> ErrorAnswer:
    body = {
        "error_code": error_code,
        "message": message,
        "sqlstate": SQLSTATE,
        "error_class": _CLASSES.get(error_code, error_code),
    }
    encoded = msgspec.json.encode(body)
    return ErrorAnswer(STATUS[error_code], headers, encoded, error_code, message)
