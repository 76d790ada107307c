"""Traces: their state, and how it follows from events. What changes a trace is decided in
`trace_data` (info, spans, tags, links, deletion) and `assessment_data`.

Info and spans of a trace arrive apart, from different threads of a client, so the state must be the
same whichever comes first: what the info says counts, what it leaves open is taken from the spans.
Tags that spans bring never replace a tag that is there already, those of the info always do.
"""

from __future__ import annotations

import msgspec

from muniment_schemas import events as e
from muniment_services.domain.assessment import Assessment, parsed
from muniment_services.domain.commands import State, World
from muniment_services.domain.errors import NotFound, Void
from muniment_services.domain.spans import Spans, merged
from muniment_services.domain.tags import without_tag

KIND = "trace"
IN_PROGRESS = "IN_PROGRESS"
UNSPECIFIED = "STATE_UNSPECIFIED"
STATES = frozenset({UNSPECIFIED, "OK", "ERROR", IN_PROGRESS})

SPANS_LOCATION_TAG = "mlflow.trace.spansLocation"
SPANS_HERE = "TRACKING_STORE"
"""Value of that tag that tells clients to ask the server for the spans, not the artifacts."""


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What the client said about a trace as a whole."""

    client_request_id: str | None
    request_preview: str | None
    response_preview: str | None
    request_time_ms: int
    execution_duration_ms: int | None
    state: str
    metadata: dict[str, str]


class Trace(State, frozen=True, kw_only=True):
    """A trace. One that was only linked to a run has no info and no spans, and is not shown yet."""

    trace_id: str
    experiment_id: str
    info: Info | None = None
    spans: Spans | None = None
    tags: dict[str, str]
    assessments: dict[str, Assessment]
    run_ids: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()

    @property
    def request_time_ms(self) -> int:
        """When the traced call began."""
        if self.info is not None:
            return self.info.request_time_ms
        return self.spans.first_start_ms if self.spans is not None else 0

    @property
    def execution_duration_ms(self) -> int | None:
        """How long it took; None while that is not known."""
        if self.info is not None:
            return self.info.execution_duration_ms
        if self.spans is None or self.spans.last_end_ms is None:
            return None
        return self.spans.last_end_ms - self.spans.first_start_ms

    @property
    def state(self) -> str:
        """OK, ERROR, IN_PROGRESS or STATE_UNSPECIFIED; the root span ends what is in progress."""
        own = self.info.state if self.info is not None else IN_PROGRESS
        if own in (IN_PROGRESS, UNSPECIFIED) and self.spans is not None:
            return self.spans.root_state or own
        return own

    @property
    def client_request_id(self) -> str | None:
        """The client's own id of the request."""
        return self.info.client_request_id if self.info is not None else None

    @property
    def request_preview(self) -> str | None:
        """Start of the request."""
        if self.info is not None and self.info.request_preview is not None:
            return self.info.request_preview
        return self.spans.request_preview if self.spans is not None else None

    @property
    def response_preview(self) -> str | None:
        """Start of the response."""
        if self.info is not None and self.info.response_preview is not None:
            return self.info.response_preview
        return self.spans.response_preview if self.spans is not None else None

    @property
    def metadata(self) -> dict[str, str]:
        """The info's metadata over those that follow from spans."""
        own = self.info.metadata if self.info is not None else {}
        return {**(self.spans.metadata if self.spans is not None else {}), **own}

    @property
    def has_spans(self) -> bool:
        """Whether spans of it are kept here."""
        return self.spans is not None


def find(world: World, trace_id: str) -> Trace | None:
    """The trace, if it is known and shown."""
    found = world.get(KIND, trace_id)
    assert found is None or isinstance(found, Trace)
    return found if found is not None and is_shown(found) else None


def is_shown(trace: Trace) -> bool:
    """Whether anything but a link is known of the trace."""
    return trace.info is not None or trace.spans is not None


def require(world: World, trace_id: str) -> Trace:
    """The trace; raises NotFound."""
    found = find(world, trace_id)
    if found is None:
        raise NotFound(f"Trace with ID '{trace_id}' not found.")
    return found


def evolve(state: Trace | None, event: e.Event) -> Trace | None:
    """The trace behind an event. Raises Void when the event does not fit the state."""
    match event:
        case e.TraceStarted() | e.SpansLogged() | e.TraceLinkedToRun():
            return _arrived(state or _nothing_yet(event.envelope.aggregate_id), event)
    if state is None or not is_shown(state):
        raise Void("the trace does not exist")
    match event:
        case e.TraceDeleted():
            return None
        case e.TraceTagSet():
            changes: dict[str, object] = {"tags": {**state.tags, event.key: event.value}}
        case e.TraceTagDeleted():
            changes = {"tags": without_tag(state.tags, event.key)}
        case e.TracePromptsLinked():
            changes = {"prompts": tuple(dict.fromkeys((*state.prompts, *event.prompts)))}
        case e.AssessmentLogged():
            changes = {"assessments": _assessed(state.assessments, parsed(event.assessment_json))}
        case e.AssessmentDeleted():
            changes = {"assessments": _unassessed(state.assessments, event.assessment_id)}
        case _:
            raise AssertionError(f"{type(event).__name__} is no event of a trace")
    return msgspec.structs.replace(state, version=state.version + 1, **changes)


def _nothing_yet(trace_id: str) -> Trace:
    return Trace(version=0, trace_id=trace_id, experiment_id="", tags={}, assessments={})


def _arrived(state: Trace, event: e.TraceStarted | e.SpansLogged | e.TraceLinkedToRun) -> Trace:
    match event:
        case e.TraceStarted():
            changes = _started(state, event)
        case e.SpansLogged():
            tags = {**event.summary.tags, **state.tags, SPANS_LOCATION_TAG: SPANS_HERE}
            changes = {"spans": merged(state.spans, event.summary), "tags": tags}
            if not is_shown(state):
                changes["experiment_id"] = event.experiment_id
        case e.TraceLinkedToRun():
            changes = {"run_ids": tuple(dict.fromkeys((*state.run_ids, event.run_id)))}
    return msgspec.structs.replace(state, version=state.version + 1, **changes)


def _started(state: Trace, event: e.TraceStarted) -> dict[str, object]:
    before = state.info
    tags = {**state.tags, **event.tags}
    if state.spans is not None:
        tags[SPANS_LOCATION_TAG] = SPANS_HERE
    assessments = state.assessments
    for text in event.assessments_json:
        assessments = _assessed(assessments, parsed(text))
    return {
        "experiment_id": event.experiment_id,
        "info": Info(
            client_request_id=event.client_request_id,
            request_preview=_kept(
                event.request_preview, before.request_preview if before else None
            ),
            response_preview=_kept(
                event.response_preview, before.response_preview if before else None
            ),
            request_time_ms=event.request_time_ms,
            execution_duration_ms=event.execution_duration_ms,
            state=event.state,
            metadata={**(before.metadata if before is not None else {}), **event.metadata},
        ),
        "tags": tags,
        "assessments": assessments,
    }


def _kept(new: str | None, old: str | None) -> str | None:
    return new if new is not None else old


def _assessed(all_: dict[str, Assessment], one: Assessment) -> dict[str, Assessment]:
    """With one more; the one that it overrides is not valid any more."""
    after = {**all_, one.assessment_id: one}
    return _with_validity(after, one.overrides, False)


def _unassessed(all_: dict[str, Assessment], assessment_id: str) -> dict[str, Assessment]:
    """Without one; the one that it had overridden is valid again."""
    gone = all_.get(assessment_id)
    after = {key: value for key, value in all_.items() if key != assessment_id}
    return after if gone is None else _with_validity(after, gone.overrides, True)


def _with_validity(
    all_: dict[str, Assessment], overridden: str | msgspec.UnsetType, valid: bool
) -> dict[str, Assessment]:
    if overridden is msgspec.UNSET or overridden not in all_:
        return all_
    changed = msgspec.structs.replace(all_[overridden], valid=valid)
    return {**all_, overridden: changed}
