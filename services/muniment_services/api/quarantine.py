"""What is in quarantine: histories that this release cannot follow, and since which record."""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.routes import Call, Route


async def list_quarantine(call: Call) -> bytes:
    """GET /api/v1/quarantine: one entry per history, with the record that begins it and why."""
    stopped = call.services.fold.state.quarantine
    entries = [
        {
            "kind": kind,
            "id": aggregate_id,
            "topic": entry.at.topic,
            "partition": entry.at.partition,
            "offset": entry.offset,
            "event_type": entry.event_type,
            "reason": entry.reason,
            "held_records": entry.held,
        }
        for (kind, aggregate_id), entry in stopped.items()
    ]
    return wire.encode({"quarantine": entries})


ROUTES = (Route("GET", "/api/v1/quarantine", P.SERVER_ADMIN, list_quarantine),)
