"""The registry's past: what a version went through.

GET /api/v1/models/{name}/versions/{version}/timeline
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import Resource
from muniment_projections.registry import reader
from muniment_services.api import wire
from muniment_services.api.routes import Call, Route
from muniment_services.authority import of_model
from muniment_services.domain.errors import NotFound
from muniment_services.domain.registered_model import KIND, RegisteredModel
from muniment_services.domain.registry_names import version_number
from muniment_services.state import CurrentState
from muniment_services.targets import NOWHERE


async def timeline(call: Call) -> bytes:
    """When a version existed, its stages and its aliases, each with the events at both ends.

    Versions of that number of every model that ever had the name are told, deleted ones too; the
    model_id tells them apart.
    """
    name, version = call.path_params["name"], version_number(call.path_params["version"])
    workspace = call.authority.workspace

    found = await call.services.read(lambda c: reader.version_history(c, name, version, workspace))
    may_read = await past_readable(call, (interval.model_id for interval in found.existed))

    def readable(intervals: Sequence[reader.Interval]) -> list[reader.Interval]:
        return [interval for interval in intervals if interval.model_id in may_read]

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


async def past_readable(call: Call, model_ids: Iterable[str]) -> frozenset[str]:
    """Those of the models that there are or were which may be told of, by their ids."""
    wanted = frozenset(model_ids)
    last = await call.services.read(lambda connection: reader.last_known(connection, wanted))
    state = call.services.fold.state
    things = ((model_id, thing_of(state, model_id, last)) for model_id in wanted)
    return frozenset(one for one, thing in things if call.authority.allows(thing))


def thing_of(state: CurrentState, model_id: str, last: Mapping[str, reader.LastKnown]) -> Resource:
    """A model that there is or was, as what its past is decided on: what it is, or was last.

    What it was called before, or whose name another one has now, gives no right to its past.
    """
    living = state.get(KIND, model_id)
    if isinstance(living, RegisteredModel):
        return of_model(living)
    known = last.get(model_id)
    if known is None:
        return NOWHERE
    kind = "prompt" if known.is_prompt else "model"
    return Resource(kind=kind, id=model_id, name=known.name, workspace=known.workspace)


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
