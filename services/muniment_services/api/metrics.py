"""MLflow's metric history: of one run and key, of many runs, and sampled for charts."""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_projections.metrics import reader
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Call, Route, mlflow
from muniment_services.api.runs import RUN_ID, run_id_of
from muniment_services.domain.run import KIND

HISTORY_MAX = 25_000
BULK_RUNS_MAX = 100
INTERVAL_POINTS_MAX = 2_500
INTERVAL_POINTS_DEFAULT = 320

NO_RUN = ""
"""The id of no run: what a run that the caller may not read is answered like."""

_HISTORY: Fields = (
    *RUN_ID,
    Field("metric_key", required=True),
    Field("max_results", "int", checked=False),
    Field("page_token"),
)
_BULK: Fields = (
    Field("run_id", repeated=True),
    Field("metric_key"),
    Field("max_results", "int"),
)
_INTERVAL: Fields = (
    Field("run_ids", repeated=True, required=True),
    Field("metric_key", required=True),
    Field("start_step", "int"),
    Field("end_step", "int"),
    Field("max_results", "int"),
)


async def history(call: Call) -> bytes:
    """GET metrics/get-history. Paged only when max_results is given."""
    params = call.params(_HISTORY)
    run_id, key = run_id_of(params), params["metric_key"]
    max_results = params.get("max_results")
    if max_results is not None and max_results < 1:
        raise _bad_max_results(max_results, "It must be a positive integer")
    token = params.get("page_token") or None
    [run_id] = await call.readable(KIND, [run_id]) or [NO_RUN]
    found = await call.services.read(lambda c: reader.history(c, run_id, key, max_results, token))
    return wire.page(
        "metrics",
        (wire.metric(key, p.value, p.timestamp_ms, p.step) for p in found.points),
        found.next_page_token,
    )


async def history_bulk(call: Call) -> bytes:
    """GET metrics/get-history-bulk: one key of up to 100 runs."""
    params = call.params(_BULK)
    run_ids = params.get("run_id", [])
    if not run_ids:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "GetMetricHistoryBulk request must specify at least one run_id.",
        )
    if len(run_ids) > BULK_RUNS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"GetMetricHistoryBulk request cannot specify more than {BULK_RUNS_MAX} run_ids. "
            f"Received {len(run_ids)} run_ids.",
        )
    if not params.get("metric_key"):
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "GetMetricHistoryBulk request must specify a metric_key.",
        )
    key = params["metric_key"]
    most = min(params.get("max_results", HISTORY_MAX), HISTORY_MAX)
    run_ids = await call.readable(KIND, run_ids)
    found = await call.services.read(lambda c: reader.history_bulk(c, run_ids, key, most))
    return wire.encode({"metrics": [_point(key, point) for point in found]})


async def history_interval(call: Call) -> bytes:
    """GET metrics/get-history-bulk-interval: evenly sampled, first and last steps kept."""
    params = call.params(_INTERVAL)
    run_ids, key = params["run_ids"], params["metric_key"]
    start, end = params.get("start_step"), params.get("end_step")
    _check_interval(run_ids, start, end)
    most = params.get("max_results", INTERVAL_POINTS_DEFAULT)
    if not 1 <= most <= INTERVAL_POINTS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"max_results must be between 1 and {INTERVAL_POINTS_MAX}. See the API docs for more "
            "information about request parameters.",
        )
    run_ids = await call.readable(KIND, run_ids)
    found = await call.services.read(lambda c: reader.sample(c, run_ids, key, most, start, end))
    return wire.page("metrics", (_point(key, point) for point in found), None)


def _check_interval(run_ids: list[str], start: int | None, end: int | None) -> None:
    if len(run_ids) > BULK_RUNS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"GetMetricHistoryBulkInterval request must specify at most {BULK_RUNS_MAX} run_ids. "
            f"Received {len(run_ids)} run_ids.",
        )
    if (start is None) != (end is None):
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "If either start step or end step are specified, both must be specified.",
        )
    if start is not None and end is not None and start > end:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"end_step must be greater than start_step. Found start_step={start} "
            f"and end_step={end}.",
        )


def _bad_max_results(given: int, rule: str) -> ApiError:
    return ApiError(
        "INVALID_PARAMETER_VALUE",
        f"Invalid value {given} for parameter 'max_results' supplied. {rule}.",
    )


def _point(key: str, point: reader.RunPoint) -> wire.Json:
    return {**wire.metric(key, point.value, point.timestamp_ms, point.step), "run_id": point.run_id}


ROUTES = (
    *mlflow("GET", "metrics/get-history", P.RUN_READ, history),
    *mlflow("GET", "metrics/get-history-bulk-interval", P.RUN_READ, history_interval),
    Route("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk", P.RUN_READ, history_bulk),
)
