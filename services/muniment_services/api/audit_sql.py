"""SQL over the published tables, and the tables themselves.

They show every experiment, run, model and grant: so whoever asks must be allowed to read all of
them, besides the trail. Statements are in the trail as they were sent, whatever came of them.
"""

from __future__ import annotations

from typing import Final

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import Resource
from muniment_schemas.access_events import ANYTHING
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.authority import Denied
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.sql.analysts import StatementRefused, described

STATEMENT_ROUTE = "/api/v1/audit/sql"

MEDIA_TYPES: Final = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

SHOWN = (
    (P.ACCESS_READ, "server"),
    (P.EXPERIMENT_READ, "experiment"),
    (P.RUN_READ, "experiment"),
    (P.ARTIFACT_READ, "experiment"),
    (P.MODEL_READ, "model"),
    (P.MODEL_READ, "prompt"),
)
"""What the tables show of everything of a kind."""

_STATEMENT: Fields = (Field("statement", required=True), Field("format"))


async def sql(call: Call) -> Answer:
    """POST /api/v1/audit/sql: what one SELECT over the published tables comes to."""
    _require_all(call)
    params = call.params(_STATEMENT)
    format_name = params.get("format") or "json"
    if format_name not in MEDIA_TYPES:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"format is one of {', '.join(MEDIA_TYPES)}, not '{format_name}'.",
        )
    await _ready(call)
    services = call.services
    try:
        body = await services.analysts.answer(services.runner, params["statement"], format_name)
    except StatementRefused as refused:
        raise ApiError("INVALID_PARAMETER_VALUE", str(refused)) from None
    return Answer(body, content_type=MEDIA_TYPES[format_name])


async def tables(call: Call) -> bytes:
    """GET /api/v1/audit/tables: which tables there are, and what their columns say."""
    return wire.encode({"tables": described()})


async def archive(call: Call) -> Answer:
    """GET /api/v1/audit/tables.tar: all of them as Parquet files."""
    _require_all(call)
    await _ready(call)
    made = await call.services.analysts.archive(call.services.runner)
    size = str(made.size_bytes).encode()
    headers = ((b"content-length", size),)
    return Answer(made.chunks, content_type="application/x-tar", headers=headers)


def _require_all(call: Call) -> None:
    """Raises Denied unless the caller may read all that the tables show, in all workspaces."""
    for permission, kind in SHOWN:
        everything = Resource(kind, workspace=ANYTHING)
        if not call.access.decide(permission, everything, now_ms=call.services.now_ms()).allowed:
            raise Denied(
                f"the tables show more than this principal may read: {permission} is needed on "
                f"every {kind} in every workspace, as the role auditor on '*' has it"
            )


async def _ready(call: Call) -> None:
    """Wait until the projections hold what is in the log. Raises ApiError when too many ask."""
    services = call.services
    if services.analysts.busy:
        raise ApiError(
            "REQUEST_LIMIT_EXCEEDED",
            "Other statements are being answered; try again, or ask another replica.",
            ((b"retry-after", b"5"),),
        )
    await services.caught_up(FOLDED_TOPICS)
    await services.runner.fresh(trail=True)


ROUTES = (
    Route("POST", STATEMENT_ROUTE, P.AUDIT_READ, sql),
    Route("GET", "/api/v1/audit/tables", P.AUDIT_READ, tables),
    Route("GET", "/api/v1/audit/tables.tar", P.AUDIT_READ, archive),
)
