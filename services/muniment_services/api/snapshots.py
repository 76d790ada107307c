"""Snapshots of the projections of the running server: make one, ask how far it is."""

from __future__ import annotations

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.domain.errors import Invalid
from muniment_services.snapshot import KEEP_DEFAULT
from muniment_services.snapshotter import SnapshotUnderWay

KEEP_MAX = 1_000

_CREATE: Fields = (Field("keep", "int"),)


async def start_snapshot(call: Call) -> Answer:
    """POST /api/v1/snapshots?keep=N: begin a snapshot; the newest N are kept."""
    keep = from_query(call.query, _CREATE).get("keep", KEEP_DEFAULT)
    if not 1 <= keep <= KEEP_MAX:
        raise Invalid(f"'keep' must be between 1 and {KEEP_MAX}.")
    try:
        status = call.services.snapshotter.start(keep)
    except SnapshotUnderWay as error:
        raise ApiError("RESOURCE_CONFLICT", str(error)) from None
    return Answer(wire.encode(msgspec.to_builtins(status)), status=202)


async def snapshot_status(call: Call) -> bytes:
    """GET /api/v1/snapshots: how far the snapshot is, or how the last one ended."""
    return wire.encode(msgspec.to_builtins(call.services.snapshotter.status))


ROUTES = (
    Route("POST", "/api/v1/snapshots", P.SERVER_ADMIN, start_snapshot),
    Route("GET", "/api/v1/snapshots", P.SERVER_ADMIN, snapshot_status),
)
