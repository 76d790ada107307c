"""MLflow's traces as clients before 3.0 call them: start, end, info, search."""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire, wire_traces
from muniment_services.api.requests import TAG_FIELDS, Field, Fields, pairs
from muniment_services.api.routes import Call, Route, mlflow
from muniment_services.api.traces import MAX_RESULTS_MAX, search_documents, shown
from muniment_services.domain import trace as traces
from muniment_services.domain import trace_data as domain
from muniment_services.domain.trace import Trace
from muniment_services.write import Outcome

_UNSPECIFIED = "TRACE_STATUS_UNSPECIFIED"

_PAIRS: Fields = (
    Field("request_metadata", "message", repeated=True, fields=TAG_FIELDS, checked=False),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS, checked=False),
)
_START: Fields = (
    Field("experiment_id", required=True),
    Field("timestamp_ms", "int", required=True),
    *_PAIRS,
)
_END: Fields = (
    Field("timestamp_ms", "int", required=True),
    Field("status", "enum", required=True, checked=False),
    *_PAIRS,
)
_SEARCH: Fields = (
    Field("experiment_ids", repeated=True, required=True),
    Field("filter"),
    Field("max_results", "int", most=MAX_RESULTS_MAX),
    Field("order_by", repeated=True),
    Field("page_token"),
)


def _info(outcome: Outcome) -> bytes:
    assert isinstance(outcome.after, Trace)
    return wire.encode({"trace_info": wire_traces.trace_info_v2(outcome.after)})


async def start(call: Call) -> bytes:
    """POST traces."""
    params = call.params(_START)
    command = domain.BeginTrace(
        experiment_id=params["experiment_id"],
        request_time_ms=params["timestamp_ms"],
        metadata=dict(pairs(params.get("request_metadata"))),
        tags=dict(pairs(params.get("tags"))),
    )
    return await call.services.writer.submit(call.caller, command, _info)


async def end(call: Call) -> bytes:
    """PATCH traces/ID."""
    params = call.params(_END)
    status = params["status"]
    command = domain.EndTrace(
        trace_id=call.path_params["trace_id"],
        end_time_ms=params["timestamp_ms"],
        state=traces.UNSPECIFIED if status == _UNSPECIFIED else status,
        metadata=dict(pairs(params.get("request_metadata"))),
        tags=dict(pairs(params.get("tags"))),
    )
    return await call.services.writer.submit(call.caller, command, _info)


async def get_info(call: Call) -> bytes:
    """GET traces/ID/info."""
    trace_id = call.path_params["trace_id"]
    await call.look_up(traces.KIND, trace_id)
    found = traces.require(call.world, trace_id)
    return wire.encode({"trace_info": wire_traces.trace_info_v2(found)})


async def search_traces(call: Call) -> bytes:
    """GET traces."""
    params = call.params(_SEARCH)
    found = await search_documents(call, params, params["experiment_ids"])
    infos = (wire_traces.trace_info_v2(trace) for trace in shown(found.documents))
    return wire.page("traces", infos, found.next_page_token)


ROUTES: tuple[Route, ...] = (
    *mlflow("POST", "traces", P.TRACE_WRITE, start),
    *mlflow("GET", "traces", P.TRACE_READ, search_traces),
    *mlflow("PATCH", "traces/{trace_id}", P.TRACE_WRITE, end),
    *mlflow("GET", "traces/{trace_id}/info", P.TRACE_READ, get_info),
)
