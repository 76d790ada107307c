"""The registry's past: what a version went through.

GET /api/v1/models/{name}/versions/{version}/timeline
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import Resource
from muniment_projections.registry import reader
from muniment_services.api import wire
from muniment_services.api.routes import Call, Route
from muniment_services.domain.errors import NotFound
from muniment_services.domain.registered_model import KIND, RegisteredModel
from muniment_services.domain.registry_names import version_number


async def timeline(call: Call) -> bytes:
    """When a version existed, its stages and its aliases, each with the events at both ends.

    Versions of that number of every model that ever had the name are told, deleted ones too; the
    model_id tells them apart.
    """
    name, version = call.path_params["name"], version_number(call.path_params["version"])
    workspace = call.authority.workspace

    found = await call.services.read(lambda c: reader.version_history(c, name, version, workspace))
    readable = _readable(call, name)
    existed = readable(found.existed)
    if not existed:
        raise NotFound(f"Model Version (name={name}, version={version}) not found")
    return wire.encode(
        {
            "name": name,
            "version": str(version),
            "existed": _intervals(existed),
            "stages": _intervals(readable(found.stages), "stage"),
            "aliases": _intervals(readable(found.aliases), "alias"),
        }
    )


def past_readable(call: Call, name: str) -> Callable[[str], bool]:
    """Whether a model that has the name, or had it, may be told of: by its id.

    The one that lives is decided on as what it is. Those of the past have nothing but the name.
    """
    living = call.world.named(KIND, name)
    assert living is None or isinstance(living, RegisteredModel)
    was = Resource(kind="model", id="", name=name, workspace=call.authority.workspace)
    by_name = call.authority.allows(was)
    return lambda model_id: by_name or (living is not None and living.model_id == model_id)


def _readable(
    call: Call, name: str
) -> Callable[[Sequence[reader.Interval]], list[reader.Interval]]:
    may_read = past_readable(call, name)
    return lambda found: [interval for interval in found if may_read(interval.model_id)]


def _intervals(found: Sequence[reader.Interval], subject: str | None = None) -> list[wire.Json]:
    return [
        {
            "model_id": interval.model_id,
            **({} if subject is None else {subject: interval.subject}),
            "valid_from_ms": interval.valid_from_ms,
            "valid_to_ms": interval.valid_to_ms,
            "began_by": _turn(interval.began),
            "ended_by": None if interval.ended is None else _turn(interval.ended),
        }
        for interval in found
    ]


def _turn(turn: reader.Turn) -> wire.Json:
    return {
        "topic": turn.topic,
        "partition": turn.partition,
        "offset": turn.offset,
        "event_id": turn.event_id,
        "actor": turn.actor,
    }


ROUTES = (
    Route("GET", "/api/v1/models/{name}/versions/{version}/timeline", P.MODEL_READ, timeline),
)
