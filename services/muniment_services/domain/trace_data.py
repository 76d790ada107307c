"""Decisions on traces: info, spans, tags, links to runs and prompts, deletion."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from muniment_schemas import events as e
from muniment_services.domain import experiment as experiments
from muniment_services.domain import hold
from muniment_services.domain.assessment import TIME_MS_MAX, TIME_MS_MIN, Assessment, dumped
from muniment_services.domain.assessment_data import completed
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import (
    INT64_MAX,
    INT64_MIN,
    KEY_CHARS_MAX,
    check_key,
    check_length,
)
from muniment_services.domain.spans import (
    COST_KEY,
    COST_KINDS,
    SESSION_KEY,
    TOKEN_KINDS,
    TOKENS_KEY,
)
from muniment_services.domain.trace import (
    IN_PROGRESS,
    KIND,
    SPANS_LOCATION_TAG,
    STATES,
    find,
    require,
)

TAG_VALUE_CHARS_MAX = 4096
SESSION_CHARS_MAX = 250
LINKED_TRACES_MAX = 100

NAME_TAG = "mlflow.traceName"
ARTIFACTS_TAG = "mlflow.artifactLocation"
ARCHIVAL_FAILURE_TAG = "mlflow.trace.archivalFailure"
FINALIZED_KEY = "mlflow.trace.infoFinalized"
_READ_ONLY_TAGS = frozenset(
    {SPANS_LOCATION_TAG, "mlflow.trace.archiveLocation", ARCHIVAL_FAILURE_TAG}
)


class TraceCommand(Command, frozen=True, kw_only=True):
    """A command about one trace."""

    trace_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The trace."""
        return ((KIND, self.trace_id),)


class StartTrace(TraceCommand, frozen=True, kw_only=True):
    """Record a trace's info. finalized: MLflow marks infos of API 3.0 so."""

    experiment_id: str
    request_time_ms: int
    execution_duration_ms: int | None = None
    state: str = IN_PROGRESS
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    metadata: dict[str, str]
    tags: dict[str, str]
    assessments: tuple[Assessment, ...] = ()
    finalized: bool = True


class BeginTrace(Command, frozen=True, kw_only=True):
    """Begin a trace of API 2.0, which gets its id here and is ended later."""

    experiment_id: str
    request_time_ms: int
    metadata: dict[str, str]
    tags: dict[str, str]


class EndTrace(TraceCommand, frozen=True, kw_only=True):
    """End a trace of API 2.0; metadata and tags are added."""

    end_time_ms: int
    state: str
    metadata: dict[str, str]
    tags: dict[str, str]


class LogSpans(TraceCommand, frozen=True, kw_only=True):
    """Keep spans of one trace. resource_spans: TracesData, protobuf, with these spans only."""

    experiment_id: str
    span_count: int
    resource_spans: bytes
    summary: e.SpansSummary


class SetTraceTag(TraceCommand, frozen=True, kw_only=True):
    """Set one tag."""

    key: str
    value: str


class DeleteTraceTag(TraceCommand, frozen=True, kw_only=True):
    """Remove one tag."""

    key: str


class DeleteTrace(TraceCommand, frozen=True, kw_only=True):
    """Delete a trace of an experiment with all that belongs to it."""

    experiment_id: str


class LinkTraceToRun(TraceCommand, frozen=True, kw_only=True):
    """Note that a trace belongs to a run; the trace may arrive later."""

    run_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The trace and the run."""
        return (*super().needs(), ("run", self.run_id))


class LinkPrompts(TraceCommand, frozen=True, kw_only=True):
    """Note which prompt versions (name/version) a trace used."""

    prompts: tuple[str, ...]


def start(world: World, command: StartTrace, context: Context) -> e.TraceStarted:
    """Raises NotFound or Invalid for the experiment, Invalid for a time or name out of range."""
    if not TIME_MS_MIN <= command.request_time_ms <= TIME_MS_MAX:
        raise Invalid(f"A trace cannot begin at {command.request_time_ms} ms since 1970.")
    experiment = experiments.require_active(world, command.experiment_id)
    check_length("Trace name", command.tags.get(NAME_TAG, ""), TAG_VALUE_CHARS_MAX)
    metadata = _canonical(command.metadata)
    if command.finalized:
        metadata[FINALIZED_KEY] = "true"
    location = artifacts_of(experiment, command.trace_id)
    return e.TraceStarted(
        envelope=context.envelope(
            e.TraceStarted, command.trace_id, occurred_at_ms=command.request_time_ms or None
        ),
        experiment_id=command.experiment_id,
        client_request_id=command.client_request_id,
        request_preview=command.request_preview,
        response_preview=command.response_preview,
        request_time_ms=command.request_time_ms,
        execution_duration_ms=command.execution_duration_ms,
        state=command.state if command.state in STATES else "STATE_UNSPECIFIED",
        metadata=metadata,
        tags={**command.tags, ARTIFACTS_TAG: location},
        assessments_json=tuple(
            dumped(completed(assessment, command.trace_id, context, index))
            for index, assessment in enumerate(command.assessments)
        ),
    )


def begin(world: World, command: BeginTrace, context: Context) -> e.TraceStarted:
    """Raises what `start` raises."""
    return start(
        world,
        StartTrace(
            trace_id=context.new_id(context.now_ms),
            experiment_id=command.experiment_id,
            request_time_ms=command.request_time_ms,
            metadata=command.metadata,
            tags=command.tags,
            finalized=False,
        ),
        context,
    )


def end(world: World, command: EndTrace, context: Context) -> e.TraceStarted:
    """Raises NotFound."""
    trace = require(world, command.trace_id)
    return e.TraceStarted(
        envelope=context.envelope(
            e.TraceStarted, trace.trace_id, occurred_at_ms=command.end_time_ms or None
        ),
        experiment_id=trace.experiment_id,
        client_request_id=trace.client_request_id,
        request_time_ms=trace.request_time_ms,
        execution_duration_ms=command.end_time_ms - trace.request_time_ms,
        state=command.state if command.state in STATES else "STATE_UNSPECIFIED",
        metadata=_canonical(command.metadata),
        tags=command.tags,
    )


def log_spans(world: World, command: LogSpans, context: Context) -> e.SpansLogged:
    """Raises NotFound or Invalid for the experiment of a trace that is not known yet."""
    trace = find(world, command.trace_id)
    summary = command.summary
    if trace is None:
        experiment = experiments.require(world, command.experiment_id)
        location = artifacts_of(experiment, command.trace_id)
        summary = msgspec.structs.replace(summary, tags={**summary.tags, ARTIFACTS_TAG: location})
    return e.SpansLogged(
        envelope=context.envelope(
            e.SpansLogged, command.trace_id, occurred_at_ms=summary.first_start_ms or None
        ),
        experiment_id=trace.experiment_id if trace is not None else command.experiment_id,
        span_count=command.span_count,
        resource_spans=command.resource_spans,
        summary=summary,
    )


def set_tag(world: World, command: SetTraceTag, context: Context) -> e.TraceTagSet:
    """Raises Invalid for the key, NotFound. A long value is cut."""
    if command.key in _READ_ONLY_TAGS:
        raise Invalid(f"Tag '{command.key}' is immutable and cannot be set on a trace.")
    check_tag_key(command.key)
    trace = require(world, command.trace_id)
    return e.TraceTagSet(
        envelope=context.envelope(e.TraceTagSet, trace.trace_id),
        key=command.key,
        value=command.value[:TAG_VALUE_CHARS_MAX],
    )


def delete_tag(world: World, command: DeleteTraceTag, context: Context) -> e.TraceTagDeleted:
    """Raises NotFound when there is no such trace or tag, Invalid for a tag of the server's own."""
    if command.key in _READ_ONLY_TAGS - {ARCHIVAL_FAILURE_TAG}:
        raise Invalid(f"Tag '{command.key}' is immutable and cannot be deleted on a trace.")
    trace = find(world, command.trace_id)
    if trace is None or command.key not in trace.tags:
        raise NotFound(
            f"No trace tag with key '{command.key}' for trace with ID '{command.trace_id}'"
        )
    return e.TraceTagDeleted(
        envelope=context.envelope(e.TraceTagDeleted, trace.trace_id), key=command.key
    )


def delete(world: World, command: DeleteTrace, context: Context) -> e.TraceDeleted | None:
    """None when the experiment has no such trace."""
    trace = find(world, command.trace_id)
    if trace is None or trace.experiment_id != command.experiment_id:
        return None
    hold.refuse(hold.on_trace(world, trace), f"The trace {trace.trace_id}")
    return e.TraceDeleted(envelope=context.envelope(e.TraceDeleted, trace.trace_id))


def link_to_run(
    world: World, command: LinkTraceToRun, context: Context
) -> e.TraceLinkedToRun | None:
    """None when it is linked already."""
    known: Any = world.get(KIND, command.trace_id)
    if known is not None and command.run_id in known.run_ids:
        return None
    return e.TraceLinkedToRun(
        envelope=context.envelope(e.TraceLinkedToRun, command.trace_id), run_id=command.run_id
    )


def link_prompts(
    world: World, command: LinkPrompts, context: Context
) -> e.TracePromptsLinked | None:
    """None when they all are linked already. Raises NotFound."""
    trace = require(world, command.trace_id)
    fresh = tuple(prompt for prompt in command.prompts if prompt not in trace.prompts)
    if not fresh:
        return None
    return e.TracePromptsLinked(
        envelope=context.envelope(e.TracePromptsLinked, trace.trace_id), prompts=fresh
    )


def check_tag_key(key: str) -> None:
    """Raises Invalid unless it is a key that a trace's tag may have."""
    check_key(key, "key")
    check_length("key", key, KEY_CHARS_MAX)


def artifacts_of(experiment: experiments.Experiment, trace_id: str) -> str:
    """Where the artifacts of a trace are, as a URI."""
    return f"{experiment.artifact_location.rstrip('/')}/traces/{trace_id}/artifacts"


def _canonical(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tokens and cost reduced to what can be counted, in MLflow's order; others as they are."""
    checked = dict(metadata)
    check_length("Session ID", checked.get(SESSION_KEY, ""), SESSION_CHARS_MAX)
    for key, kinds in ((TOKENS_KEY, TOKEN_KINDS), (COST_KEY, COST_KINDS)):
        given = checked.pop(key, None)
        counted = counts(given, key) if given is not None else None
        if counted:
            checked[key] = json.dumps({kind: counted[kind] for kind in kinds if kind in counted})
    return checked


def counts(given: object, key: str) -> dict[str, Any] | None:
    """What a usage (tokens: whole numbers; cost: finite ones) says, as an object or its JSON text.

    key: TOKENS_KEY or COST_KEY. None when it is no object.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    if not isinstance(given, dict):
        return None
    kinds, convert = (TOKEN_KINDS, _whole) if key == TOKENS_KEY else (COST_KINDS, _finite)
    found = {kind: convert(given[kind]) for kind in kinds if kind in given}
    return {kind: value for kind, value in found.items() if value is not None}


def _whole(value: object) -> int | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or number != number.to_integral_value():
        return None
    return int(number) if INT64_MIN <= number <= INT64_MAX else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
