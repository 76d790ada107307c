"""MLflow's traces: info, spans, search, tags, links, deletion. Spans come in by `otlp`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any

from muniment_auth.permissions import Permission as P
from muniment_projections.search.entities.traces import TRACES
from muniment_projections.search.page import Page, Search, search
from muniment_projections.search.predicate import one_of
from muniment_projections.traces import reader
from muniment_services.api import wire, wire_traces
from muniment_services.api.downloads import download, refusals
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, missing
from muniment_services.api.routes import Answer, Call, Route, mlflow
from muniment_services.api.submissions import submit_each
from muniment_services.api.trace_requests import info_fields
from muniment_services.documents import parse
from muniment_services.domain import experiment as experiments
from muniment_services.domain import trace as traces
from muniment_services.domain import trace_data as domain
from muniment_services.domain.artifact import below, checked_path, path_of
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import Invalid, NotAllowedNow, NotFound
from muniment_services.domain.trace import Trace
from muniment_services.write import Outcome

MAX_RESULTS_DEFAULT = 100
MAX_RESULTS_MAX = 500
DELETED_MAX = 100_000
"""Traces that one delete-traces deletes at most; the client may call again."""

EXPORT_WAITS_S = (1.0, 2.0)
"""How long traces/get waits for spans that the info announces and that are not here yet."""

SIZE_KEY = "mlflow.trace.sizeStats"
SPANS_FILE = "traces.json"

_START: Fields = (Field("trace", "any", required=True, checked=False),)
_GET: Fields = (Field("trace_id", required=True), Field("allow_partial", "bool"))
_BATCH: Fields = (
    Field("trace_ids", repeated=True, required=True),
    Field("experiment_ids", repeated=True),
)
_SEARCH: Fields = (
    Field("locations", "any", repeated=True, required=True),
    Field("filter"),
    Field("max_results", "int", nullable=False, most=MAX_RESULTS_MAX),
    Field("order_by", repeated=True),
    Field("page_token"),
)
_SET_TAG: Fields = (Field("key", required=True), Field("value"))
_DELETE_TAG: Fields = (Field("key", required=True),)
_DELETE: Fields = (
    Field("experiment_id", required=True),
    Field("max_timestamp_millis", "int"),
    Field("max_traces", "int"),
    Field("request_ids", repeated=True),
)
_ARTIFACT: Fields = (Field("request_id"), Field("path"))
_LINK: Fields = (
    Field("trace_ids", repeated=True, required=True),
    Field("run_id", required=True),
)
_LINK_PROMPTS: Fields = (
    Field("trace_id", required=True),
    Field(
        "prompt_versions",
        "message",
        required=True,
        repeated=True,
        fields=(Field("name"), Field("version")),
    ),
)


def _info(outcome: Outcome) -> bytes:
    assert isinstance(outcome.after, Trace)
    return wire.encode({"trace": {"trace_info": wire_traces.trace_info(outcome.after)}})


async def start(call: Call) -> bytes:
    """POST 3.0 traces."""
    given = info_fields(call.params(_START)["trace"])
    if not given.get("trace_location"):
        raise missing("trace.trace_info.trace_location.mlflow_experiment.experiment_id")
    if not given.get("trace_id"):
        raise missing("trace.trace_info.trace_id")
    command = domain.StartTrace(
        trace_id=given["trace_id"],
        experiment_id=given["trace_location"],
        client_request_id=given.get("client_request_id"),
        request_preview=given.get("request_preview"),
        response_preview=given.get("response_preview"),
        request_time_ms=given.get("request_time", 0),
        execution_duration_ms=given.get("execution_duration"),
        state=given.get("state", traces.UNSPECIFIED),
        metadata=given.get("trace_metadata", {}),
        tags=given.get("tags", {}),
        assessments=given.get("assessments", ()),
    )
    return await call.services.writer.submit(call.caller, command, _info)


async def get_info(call: Call) -> bytes:
    """GET 3.0 traces/ID."""
    trace_id = call.path_params["trace_id"]
    await call.look_up(traces.KIND, trace_id)
    found = traces.require(call.world, trace_id)
    return wire.encode({"trace": {"trace_info": wire_traces.trace_info(found)}})


async def get(call: Call) -> bytes:
    """GET 3.0 traces/get: a trace with its spans, all of them unless allow_partial."""
    params = call.params(_GET)
    trace_id, partial = params["trace_id"], params.get("allow_partial", False)
    for wait_s in (*EXPORT_WAITS_S, None):
        trace, spans = await _one(call, trace_id)
        _require_here([(trace, spans)])
        if partial or _is_whole(trace, spans):
            return wire.encode({"trace": wire_traces.trace_with_spans(trace, spans)})
        if wait_s is not None:
            await asyncio.sleep(wait_s)
    raise NotFound(f"Trace with ID {trace_id} is not fully exported yet, please try again later.")


async def _one(call: Call, trace_id: str) -> tuple[Trace, list[str]]:
    found = await _with_spans(call, [trace_id])
    if not found:
        raise NotFound(f"Trace with ID {trace_id} is not found.")
    return found[0]


def _require_here(found: Iterable[tuple[Trace, list[str]]]) -> None:
    if not all(trace.has_spans for trace, _ in found):
        raise NotAllowedNow("Trace data not stored in tracking store")


async def _with_spans(call: Call, trace_ids: Sequence[str]) -> list[tuple[Trace, list[str]]]:
    """Traces that exist, with those of their spans that are here."""
    ids = await call.readable(traces.KIND, dict.fromkeys(trace_ids))
    documents, spans = await call.services.read(
        lambda connection: (
            reader.find_documents(connection, ids),
            reader.find_spans(connection, ids),
        )
    )
    found = shown(documents[i] for i in ids if i in documents)
    return [(trace, spans.get(trace.trace_id, [])) for trace in found]


def shown(documents: Iterable[bytes]) -> list[Trace]:
    """Documents as traces; those that are only linked to a run are left out."""
    states = (parse(traces.KIND, document) for document in documents)
    return [s for s in states if isinstance(s, Trace) and traces.is_shown(s)]


def _is_whole(trace: Trace, spans: Sequence[str]) -> bool:
    """Whether all spans are here that the client says it has sent."""
    try:
        announced = json.loads(trace.metadata.get(SIZE_KEY, "{}")).get("num_spans", 0)
    except (ValueError, AttributeError, RecursionError):
        announced = 0
    return bool(spans) and (not isinstance(announced, int) or len(spans) >= announced)


async def batch_get(call: Call) -> bytes:
    """GET 3.0 traces/batchGet: whole traces only."""
    params = call.params(_BATCH)
    found = await _with_spans(call, params["trace_ids"])
    _require_here(found)
    whole = [
        wire_traces.trace_with_spans(trace, spans)
        for trace, spans in found
        if _is_whole(trace, spans) and _is_in(trace, params.get("experiment_ids"))
    ]
    return wire.page("traces", whole, None)


async def batch_get_infos(call: Call) -> bytes:
    """POST 3.0 traces/batchGetInfos."""
    params = call.params(_BATCH)
    ids = await call.readable(traces.KIND, dict.fromkeys(params["trace_ids"]))
    documents = await call.services.read(lambda c: reader.find_documents(c, ids))
    found = shown(documents[i] for i in ids if i in documents)
    infos = (
        wire_traces.trace_info(trace)
        for trace in found
        if _is_in(trace, params.get("experiment_ids"))
    )
    return wire.page("trace_infos", infos, None)


def _is_in(trace: Trace, experiment_ids: Sequence[str] | None) -> bool:
    return experiment_ids is None or trace.experiment_id in experiment_ids


async def search_traces(call: Call) -> bytes:
    """POST 3.0 traces/search."""
    params = call.params(_SEARCH)
    places = (item.get("mlflow_experiment") for item in _dicts(params["locations"]))
    ids = [place.get("experiment_id", "") for place in _dicts(places)]
    if not all(isinstance(experiment_id, str) for experiment_id in ids):
        raise ApiError("INVALID_PARAMETER_VALUE", "An experiment_id of a location is a text.")
    found = await search_documents(call, params, ids)
    infos = (wire_traces.trace_info(trace) for trace in shown(found.documents))
    return wire.page("traces", infos, found.next_page_token)


async def search_documents(
    call: Call, params: dict[str, Any], experiment_ids: Sequence[str]
) -> Page:
    """A page of these experiments' traces. params: as in _SEARCH. Raises Invalid, SearchError."""
    wanted = Search(
        filter=params.get("filter", ""),
        order_by=tuple(params.get("order_by", ())),
        max_results=_max_results(params.get("max_results")),
        page_token=params.get("page_token") or None,
        scope=one_of("t.experiment_id", experiment_ids),
        context=tuple(experiment_ids),
        visible=call.authority.visible_experiments(),
    )
    return await call.services.read(lambda connection: search(connection, TRACES, wanted))


def _dicts(items: Iterable[object]) -> Iterable[dict[str, Any]]:
    return (item for item in items if isinstance(item, dict))


def _max_results(given: int | None) -> int:
    if given is None:
        return MAX_RESULTS_DEFAULT
    if given < 1:
        raise Invalid(
            f"Invalid value {given} for parameter 'max_results' supplied. "
            "It must be a positive integer"
        )
    return given


async def set_tag(call: Call) -> bytes:
    """PATCH traces/ID/tags. MLflow answers 400, not 404, when there is no such trace."""
    params = call.params(_SET_TAG)
    command = domain.SetTraceTag(
        trace_id=call.path_params["trace_id"], key=params["key"], value=params.get("value", "")
    )
    try:
        return await _submit(call, command)
    except NotFound as error:
        raise ApiError("BAD_REQUEST", error.message) from None


async def delete_tag(call: Call) -> bytes:
    """DELETE traces/ID/tags. The key stands in the body."""
    if not call.body:
        raise missing("key")
    key = call.params(_DELETE_TAG)["key"]
    command = domain.DeleteTraceTag(trace_id=call.path_params["trace_id"], key=key)
    return await _submit(call, command)


async def _submit(call: Call, command: Command) -> bytes:
    return await call.services.writer.submit(call.caller, command, wire.empty)


async def delete(call: Call) -> bytes:
    """POST traces/delete-traces: by ids, or all until a time, oldest first."""
    params = call.params(_DELETE)
    experiment_id = params["experiment_id"]
    until_ms, most = params.get("max_timestamp_millis"), params.get("max_traces")
    ids = list(dict.fromkeys(params.get("request_ids", ())))
    _check_deletion(until_ms, most, ids)
    if until_ms is not None:
        limit = min(most or DELETED_MAX, DELETED_MAX)
        ids = await call.services.read(lambda c: reader.oldest(c, experiment_id, until_ms, limit))
    commands = [domain.DeleteTrace(trace_id=i, experiment_id=experiment_id) for i in ids]
    return wire.encode({"traces_deleted": await submit_each(call, commands)})


def _check_deletion(until_ms: int | None, most: int | None, ids: Sequence[str]) -> None:
    if until_ms is None and not ids:
        raise Invalid("Either `max_timestamp_millis` or `trace_ids` must be specified.")
    if until_ms is not None and ids:
        raise Invalid("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
    if ids and most is not None:
        raise Invalid("`max_traces` can't be specified if `trace_ids` is specified.")
    if most is not None and most <= 0:
        raise Invalid(f"`max_traces` must be a positive integer, received {most}.")


async def link_to_run(call: Call) -> bytes:
    """POST traces/link-to-run."""
    params = call.params(_LINK)
    ids = params["trace_ids"]
    if len(ids) > domain.LINKED_TRACES_MAX:
        raise Invalid(
            f"Cannot link more than {domain.LINKED_TRACES_MAX} traces to a run in a single "
            f"request. Provided {len(ids)} traces."
        )
    commands = [domain.LinkTraceToRun(trace_id=i, run_id=params["run_id"]) for i in ids if i]
    await submit_each(call, commands)
    return b"{}"


async def link_prompts(call: Call) -> bytes:
    """POST traces/link-prompts."""
    params = call.params(_LINK_PROMPTS)
    prompts = tuple(
        f"{p.get('name', '')}/{p.get('version', '')}" for p in params["prompt_versions"]
    )
    return await _submit(call, domain.LinkPrompts(trace_id=params["trace_id"], prompts=prompts))


async def get_artifact(call: Call) -> Answer:
    """GET get-trace-artifact: the spans as the file that MLflow's UI reads, or an attachment.

    Spans that the client has not sent but put among the trace's artifacts are read from there.
    """
    params = call.params(_ARTIFACT)
    trace_id = params.get("request_id")
    if not trace_id:
        raise ApiError("BAD_REQUEST", 'Request must include the "request_id" query parameter.')
    trace, spans = await _one(call, trace_id)
    if params.get("path"):
        return await _file(call, trace, f"attachments/{checked_path(params['path'])}")
    if not trace.has_spans:
        return await _file(call, trace, SPANS_FILE)
    body = f'{{"spans":[{",".join(spans)}]}}'.encode()
    attachment = f"attachment; filename={SPANS_FILE}".encode()
    return Answer(body, content_type="text/plain", headers=((b"content-disposition", attachment),))


async def _file(call: Call, trace: Trace, path: str) -> Answer:
    # Where the experiment keeps them: the trace's own tag says the same, but anyone may change it.
    experiment = experiments.require(call.world, trace.experiment_id)
    folder = path_of(domain.artifacts_of(experiment, trace.trace_id))
    with refusals():
        return await download(call, below(folder, path))


ROUTES: tuple[Route, ...] = (
    *mlflow("POST", "traces", P.TRACE_WRITE, start, "3.0"),
    *mlflow("GET", "traces/get", P.TRACE_READ, get, "3.0"),
    *mlflow("GET", "traces/batchGet", P.TRACE_READ, batch_get, "3.0"),
    *mlflow("POST", "traces/batchGetInfos", P.TRACE_READ, batch_get_infos, "3.0"),
    *mlflow("POST", "traces/search", P.TRACE_READ, search_traces, "3.0"),
    *mlflow("GET", "traces/{trace_id}", P.TRACE_READ, get_info, "3.0"),
    *mlflow("POST", "traces/link-to-run", P.TRACE_WRITE, link_to_run),
    *mlflow("POST", "traces/link-prompts", P.TRACE_WRITE, link_prompts),
    *(
        route
        for version in ("2.0", "3.0")
        for route in (
            *mlflow("POST", "traces/delete-traces", P.TRACE_DELETE, delete, version),
            *mlflow("PATCH", "traces/{trace_id}/tags", P.TRACE_WRITE, set_tag, version),
            *mlflow("DELETE", "traces/{trace_id}/tags", P.TRACE_WRITE, delete_tag, version),
            Route(
                "GET", f"/ajax-api/{version}/mlflow/get-trace-artifact", P.TRACE_READ, get_artifact
            ),
        )
    ),
)
