"""Decisions on assessments: make, change, remove."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from msgspec import UNSET

from muniment_schemas import events as e
from muniment_schemas.ids import UUID7_RANDOM_BYTES, uuid7_hex
from muniment_services.domain.assessment import (
    Assessment,
    Expectation,
    Feedback,
    dumped,
    rfc3339,
)
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.errors import Invalid, NotAllowedNow, NotFound
from muniment_services.domain.trace import KIND, find, require


class CreateAssessment(Command, frozen=True, kw_only=True):
    """Assess a trace. Empty id and times of the assessment are filled in."""

    trace_id: str
    assessment: Assessment

    def needs(self) -> tuple[AggregateKey, ...]:
        """The trace."""
        return ((KIND, self.trace_id),)


class UpdateAssessment(Command, frozen=True, kw_only=True):
    """Change what is given; metadata are added to those it has."""

    trace_id: str
    assessment_id: str
    name: str | None = None
    feedback: Feedback | None = None
    expectation: Expectation | None = None
    rationale: str | None = None
    metadata: dict[str, str] | None = None

    def needs(self) -> tuple[AggregateKey, ...]:
        """The trace."""
        return ((KIND, self.trace_id),)

    def serial(self) -> AggregateKey:
        """One history: what is changed depends on what is there."""
        return (KIND, self.trace_id)


class DeleteAssessment(Command, frozen=True, kw_only=True):
    """Remove an assessment."""

    trace_id: str
    assessment_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The trace."""
        return ((KIND, self.trace_id),)


def create(world: World, command: CreateAssessment, context: Context) -> e.AssessmentLogged:
    """Raises NotFound for the trace or the overridden assessment."""
    trace = require(world, command.trace_id)
    assessment = completed(command.assessment, command.trace_id, context)
    overrides = assessment.overrides
    if overrides is not UNSET and overrides not in trace.assessments:
        raise _not_found(command.trace_id, overrides)
    if assessment.assessment_id in trace.assessments:
        raise NotAllowedNow(
            f"Failed to create assessment for trace '{command.trace_id}' "
            "due to a constraint violation."
        )
    return _logged(assessment, context)


def update(world: World, command: UpdateAssessment, context: Context) -> e.AssessmentLogged:
    """Raises NotFound, or Invalid when a value of another kind is given."""
    trace = find(world, command.trace_id)
    before = require_assessment(world, command.trace_id, command.assessment_id)
    assert trace is not None
    _check_kind(before, command)
    changes: dict[str, Any] = {"last_update_time": rfc3339(context.now_ms)}
    if command.name is not None:
        changes["assessment_name"] = command.name
    if command.feedback is not None:
        changes["feedback"] = command.feedback
    if command.expectation is not None:
        changes["expectation"] = command.expectation
    if command.rationale is not None and before.expectation is UNSET:
        changes["rationale"] = command.rationale
    if command.metadata:
        known = {} if before.metadata is UNSET else before.metadata
        changes["metadata"] = {**known, **command.metadata}
    return _logged(msgspec.structs.replace(before, **changes), context, trace.version)


def delete(world: World, command: DeleteAssessment, context: Context) -> e.AssessmentDeleted | None:
    """None when there is none."""
    trace = find(world, command.trace_id)
    if trace is None or command.assessment_id not in trace.assessments:
        return None
    return e.AssessmentDeleted(
        envelope=context.envelope(e.AssessmentDeleted, trace.trace_id),
        assessment_id=command.assessment_id,
    )


def require_assessment(world: World, trace_id: str, assessment_id: str) -> Assessment:
    """The assessment; raises NotFound."""
    trace = find(world, trace_id)
    if trace is None:
        raise NotFound(f"Trace with request_id '{trace_id}' not found")
    found = trace.assessments.get(assessment_id)
    if found is None:
        raise _not_found(trace_id, assessment_id)
    return found


def completed(given: Assessment, trace_id: str, context: Context, index: int = 0) -> Assessment:
    """An assessment with id, trace and times. index: its place among those of one command."""
    now = rfc3339(context.now_ms)
    return msgspec.structs.replace(
        given,
        assessment_id=given.assessment_id or _new_id(context, index),
        trace_id=trace_id,
        create_time=given.create_time or now,
        last_update_time=given.last_update_time or given.create_time or now,
        valid=True,
    )


def _new_id(context: Context, index: int) -> str:
    # A keyed request derives all its ids from the one key, so each needs its own place in it.
    if context.derive_from is None:
        return f"a-{context.new_id(context.now_ms)}"
    digest = hashlib.sha256(context.derive_from + index.to_bytes(4, "big")).digest()
    return f"a-{uuid7_hex(context.now_ms, digest[:UUID7_RANDOM_BYTES])}"


def _logged(
    assessment: Assessment, context: Context, expected_version: int | None = None
) -> e.AssessmentLogged:
    return e.AssessmentLogged(
        envelope=context.envelope(
            e.AssessmentLogged, assessment.trace_id, expected_version=expected_version
        ),
        assessment_id=assessment.assessment_id,
        assessment_json=dumped(assessment),
    )


def _check_kind(before: Assessment, command: UpdateAssessment) -> None:
    if command.expectation is not None and command.feedback is not None:
        raise Invalid("Cannot specify both `expectation` and `feedback` parameters.")
    if command.expectation is not None and before.expectation is UNSET:
        raise Invalid("Cannot update expectation value on a Feedback assessment.")
    if command.feedback is not None and before.feedback is UNSET:
        raise Invalid("Cannot update feedback value on an Expectation assessment.")


def _not_found(trace_id: str, assessment_id: str) -> NotFound:
    return NotFound(f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'")
