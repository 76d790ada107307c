"""What operators ask of the server itself: rebuild the projections, tell what they hold."""

from __future__ import annotations

import msgspec

from muniment_auth.permissions import Permission as P
from muniment_projections.digest import digests
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.rebuilder import RebuildUnderWay


async def start_rebuild(call: Call) -> Answer:
    """POST /api/v1/projections/rebuild: begin a rebuild; the old projections serve meanwhile."""
    try:
        status = call.services.rebuilder.start()
    except RebuildUnderWay as error:
        raise ApiError("RESOURCE_CONFLICT", str(error)) from None
    return Answer(wire.encode(msgspec.to_builtins(status)), status=202)


async def rebuild_status(call: Call) -> bytes:
    """GET /api/v1/projections/rebuild: how far the rebuild is, or how the last one ended."""
    return wire.encode(msgspec.to_builtins(call.services.rebuilder.status))


async def projection_digests(call: Call) -> bytes:
    """GET /api/v1/projections/digests: rows and hash of every table, and of which checkpoints."""
    return wire.encode(msgspec.to_builtins(await call.services.runner.read(digests)))


ROUTES = (
    Route("POST", "/api/v1/projections/rebuild", P.SERVER_ADMIN, start_rebuild),
    Route("GET", "/api/v1/projections/rebuild", P.SERVER_ADMIN, rebuild_status),
    Route("GET", "/api/v1/projections/digests", P.SERVER_ADMIN, projection_digests),
)
