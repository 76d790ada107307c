"""MLflow's assessments of traces: make, get, change, remove."""

from __future__ import annotations

from muniment_auth.permissions import Permission as P
from muniment_schemas.events import AssessmentLogged
from muniment_services.api import wire
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Call, mlflow
from muniment_services.api.trace_requests import assessment_changes, assessment_of, update_mask
from muniment_services.domain import assessment_data as domain
from muniment_services.domain.assessment import parsed
from muniment_services.domain.trace import KIND
from muniment_services.write import Outcome

_CREATE: Fields = (Field("assessment", "any", required=True, checked=False),)
_UPDATE: Fields = (*_CREATE, Field("update_mask", "any", required=True, checked=False))


def _logged(outcome: Outcome) -> bytes:
    assert isinstance(outcome.event, AssessmentLogged)
    return wire.encode({"assessment": parsed(outcome.event.assessment_json)})


async def create(call: Call) -> bytes:
    """POST traces/ID/assessments."""
    assessment = assessment_of(call.params(_CREATE)["assessment"])
    command = domain.CreateAssessment(trace_id=call.path_params["trace_id"], assessment=assessment)
    return await call.services.writer.submit(call.caller, command, _logged)


async def get(call: Call) -> bytes:
    """GET traces/ID/assessments/AID."""
    trace_id, assessment_id = call.path_params["trace_id"], call.path_params["assessment_id"]
    await call.look_up(KIND, trace_id)
    found = domain.require_assessment(call.world, trace_id, assessment_id)
    return wire.encode({"assessment": found})


async def update(call: Call) -> bytes:
    """PATCH traces/ID/assessments/AID."""
    params = call.params(_UPDATE)
    changes = assessment_changes(params["assessment"], update_mask(params["update_mask"]))
    command = domain.UpdateAssessment(
        trace_id=call.path_params["trace_id"],
        assessment_id=call.path_params["assessment_id"],
        **changes,
    )
    return await call.services.writer.submit(call.caller, command, _logged)


async def delete(call: Call) -> bytes:
    """DELETE traces/ID/assessments/AID."""
    command = domain.DeleteAssessment(
        trace_id=call.path_params["trace_id"], assessment_id=call.path_params["assessment_id"]
    )
    return await call.services.writer.submit(call.caller, command, wire.empty)


_ONE = "traces/{trace_id}/assessments/{assessment_id}"

ROUTES = (
    *mlflow("POST", "traces/{trace_id}/assessments", P.TRACE_WRITE, create, "3.0"),
    *mlflow("GET", _ONE, P.TRACE_READ, get, "3.0"),
    *mlflow("PATCH", _ONE, P.TRACE_WRITE, update, "3.0"),
    *mlflow("DELETE", _ONE, P.TRACE_WRITE, delete, "3.0"),
)
