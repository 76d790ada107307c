"""Events of the runs topic: what jobs log (runs, logged models, traces, artifacts), ordered per
thing and not across them. What each field means stands in `avro/`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.envelope import RUNS, Event


class MetricContext(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model, and perhaps a dataset, that points were measured on."""

    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class MetricColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Metric points as columns.

    Point i is keys[key_index[i]], value[i], timestamp_ms[i], step[i].
    """

    count: int
    keys: tuple[str, ...]
    key_index: bytes
    value: bytes
    timestamp_ms: bytes
    step: bytes
    contexts: tuple[MetricContext, ...] = ()
    context_index: bytes = b""


class DatasetInput(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset and how the run used it."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None
    tags: dict[str, str]


class ModelOutput(msgspec.Struct, frozen=True, kw_only=True):
    """A logged model and the step that produced it."""

    model_id: str
    step: int


class RunCreated(Event, frozen=True, kw_only=True):
    """A run was started."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    experiment_id: str
    name: str
    user_id: str
    start_time_ms: int
    artifact_uri: str
    tags: dict[str, str]


class RunUpdated(Event, frozen=True, kw_only=True):
    """Status, end or name of a run changed; null fields did not."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    status: str | None = None
    end_time_ms: int | None = None
    name: str | None = None


class RunDeleted(Event, frozen=True, kw_only=True):
    """A run was moved to the deleted stage."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"


class RunRestored(Event, frozen=True, kw_only=True):
    """A deleted run was made active again."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"


class BatchLogged(Event, frozen=True, kw_only=True):
    """Params, tags and metric points of a run, logged by one call.

    All of it applies or none: a param that has another value already makes the event void.
    """

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    params: dict[str, str]
    tags: dict[str, str]
    metrics: MetricColumns | None = None


class RunTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of a run was removed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    key: str


class InputsLogged(Event, frozen=True, kw_only=True):
    """Datasets and models that a run used.

    A dataset that the run has already (same name and digest) is not added again.
    """

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    datasets: tuple[DatasetInput, ...]
    models: tuple[str, ...]


class OutputsLogged(Event, frozen=True, kw_only=True):
    """Logged models that a run produced."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "run"
    models: tuple[ModelOutput, ...]


class LoggedModelCreated(Event, frozen=True, kw_only=True):
    """A logged model was created, pending until it is finalized."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"
    experiment_id: str
    name: str
    artifact_uri: str
    source_run_id: str | None = None
    model_type: str | None = None
    params: dict[str, str]
    tags: dict[str, str]


class LoggedModelFinalized(Event, frozen=True, kw_only=True):
    """The upload of a logged model ended."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"
    status: str


class LoggedModelTagsSet(Event, frozen=True, kw_only=True):
    """Tags of a logged model were set."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"
    tags: dict[str, str]


class LoggedModelTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of a logged model was removed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"
    key: str


class LoggedModelParamsLogged(Event, frozen=True, kw_only=True):
    """Params of a logged model were logged."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"
    params: dict[str, str]


class LoggedModelDeleted(Event, frozen=True, kw_only=True):
    """A logged model was deleted."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "logged_model"


class TraceStarted(Event, frozen=True, kw_only=True):
    """A trace's info was recorded; a second one for the same trace replaces what it says."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    experiment_id: str
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    request_time_ms: int
    execution_duration_ms: int | None = None
    state: str
    metadata: dict[str, str]
    tags: dict[str, str]
    assessments_json: tuple[str, ...] = ()


class SpanUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A span's place in its trace's tree, and the tokens and money (US dollars) that it reports."""

    span_id: str
    parent_span_id: str | None = None
    tokens: dict[str, int] | None = None
    cost: dict[str, float] | None = None


class SpansSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the spans of one request say about their trace."""

    first_start_ms: int
    last_end_ms: int | None = None
    root_state: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    tags: dict[str, str]
    usages: tuple[SpanUsage, ...]


class SpansLogged(Event, frozen=True, kw_only=True):
    """Spans of a trace arrived by OTLP.

    The bytes are kept as they came; the summary is what the server read in them then.
    """

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    experiment_id: str
    span_count: int
    resource_spans: bytes
    summary: SpansSummary


class TraceTagSet(Event, frozen=True, kw_only=True):
    """A tag of a trace was set."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    key: str
    value: str


class TraceTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of a trace was removed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    key: str


class TraceDeleted(Event, frozen=True, kw_only=True):
    """A trace was deleted."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"


class TraceLinkedToRun(Event, frozen=True, kw_only=True):
    """A trace was linked to a run."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    run_id: str


class TracePromptsLinked(Event, frozen=True, kw_only=True):
    """A trace was linked to versions of prompts that it used."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    prompts: tuple[str, ...]


class AssessmentLogged(Event, frozen=True, kw_only=True):
    """An assessment of a trace was made or changed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    assessment_id: str
    assessment_json: str


class AssessmentDeleted(Event, frozen=True, kw_only=True):
    """An assessment of a trace was removed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "trace"
    assessment_id: str


class ArtifactUploaded(Event, frozen=True, kw_only=True):
    """A file was stored, or an existing one overwritten.

    Its bytes were hashed while they streamed.
    """

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "artifact"
    owner: str
    path: str
    size_bytes: int
    sha256: bytes
    previous_sha256: bytes | None = None


class ArtifactDeleted(Event, frozen=True, kw_only=True):
    """A file, or a folder with all that is in it, was removed."""

    TOPIC: ClassVar[str] = RUNS
    AGGREGATE: ClassVar[str] = "artifact"
    owner: str
    path: str
    files: int
