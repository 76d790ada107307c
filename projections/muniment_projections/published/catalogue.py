"""The tables that analysts may ask: which there are, and what each column says.

They are made of the projections' tables and hold less: no sealed identities, no documents, nothing
of credentials but their ids, no remembered requests. What stands here is all that there is to read;
`export.py` writes it down as Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from muniment_projections.published import catalog_rows
from muniment_projections.published.catalog_rows import Rows

TEXT: Final = "VARCHAR"
TEXTS: Final = "VARCHAR[]"
JSON: Final = "VARCHAR"
"""JSON is published as text: not every reader of Parquet knows more."""

SMALL: Final = "INTEGER"
NUMBER: Final = "BIGINT"
REAL: Final = "DOUBLE"
FLAG: Final = "BOOLEAN"
TIME: Final = "TIMESTAMP WITH TIME ZONE"
"""In UTC, microseconds in the file."""

FIRST_MS: Final = -2_208_988_800_000
LAST_MS: Final = 253_402_300_799_999
"""The years 1900 to 9999: what clients call a time may be any number, and readers stop there."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a published table. sql: what it is made of, over the table's source."""

    name: str
    type: str
    meaning: str
    sql: str


@dataclass(frozen=True, slots=True)
class Table:
    """A published table.

    source: the FROM of its query. grows: rows are only ever added, in the order of `t.rowid`, from
    0 on. rows: what fills the source where no table of the projections has it; it is registered
    under the name ROWS.
    """

    name: str
    meaning: str
    source: str
    columns: tuple[Column, ...]
    grows: bool = False
    rows: Rows | None = None

    @property
    def select(self) -> str:
        """The query that makes it."""
        made = ", ".join(f'CAST({c.sql} AS {c.type}) AS "{c.name}"' for c in self.columns)
        return f"SELECT {made} FROM {self.source}"


ROWS: Final = "published_rows"


def _column(name: str, kind: str, meaning: str, sql: str | None = None) -> Column:
    return Column(name, kind, meaning, sql or f't."{name}"')


def _time(name: str, meaning: str, sql: str) -> Column:
    at = f"CASE WHEN {sql} BETWEEN {FIRST_MS} AND {LAST_MS} THEN make_timestamptz({sql} * 1000) END"
    return Column(name, TIME, meaning, at)


def _interval(subject: Iterable[Column]) -> tuple[Column, ...]:
    return (
        _column("model_id", TEXT, "id of the registered model, which stays when it is renamed"),
        *subject,
        _time("valid_from", "from when on it held", "t.valid_from_ms"),
        _time("valid_to", "until just before when; NULL: it still holds", "t.valid_to_ms"),
        _column("from_actor", TEXT, "principal that began it"),
        _column("from_event_id", TEXT, "event that began it"),
        _column("from_offset", NUMBER, "where that is in the topic catalog, partition 0"),
        _column("to_actor", TEXT, "principal that ended it"),
        _column("to_event_id", TEXT, "event that ended it"),
        _column("to_offset", NUMBER, "where that is"),
    )


_NAME_THEN = _column("name", TEXT, "name of the model when this began")
_VERSION = _column("version", SMALL, "number of the version")

AUDIT = Table(
    "audit",
    "a row per event and per call: all that was done, read and refused",
    "audit_events AS t",
    (
        _column("topic", TEXT, "topic of the log"),
        _column("partition", SMALL, "partition of the topic"),
        _column("offset", NUMBER, "place in the partition: the leaf's index in its tree"),
        _column("event_id", TEXT, "id of the event"),
        _time("recorded_at", "when the server recorded it", "t.at_ms"),
        _column("type", TEXT, "type of the event; ApiCalled: a call that changed nothing"),
        _column("action", TEXT, "what was done, as kind.verb: model.transition, run.read"),
        _column("actor", TEXT, "id of the principal that did it"),
        _column("auth_method", TEXT, "how it had signed in"),
        _column("client_id", TEXT, "client of the identity provider that it came by"),
        _column("token_id", TEXT, "id of the token that it showed"),
        _column("delegation", TEXTS, "who acted for it, the nearest first"),
        _column("outcome", TEXT, "success, void (lost a race), allowed, denied or failed"),
        _column("reason", TEXT, "why it was refused or void, or the reason that was given"),
        _column("resource_kind", TEXT, "what it was about: registered_model, run, experiment, …"),
        _column("resource_id", TEXT, "id of that"),
        _column("resource_name", TEXT, "name of that then"),
        _column("resource_version", SMALL, "version of the model that it was about"),
        _column("workspace", TEXT, "workspace in which it was done"),
        _column("request_id", TEXT, "id of the request"),
        _column("traceparent", TEXT, "W3C trace parent that the client sent"),
        _column("client_address", TEXT, "address that the request came from"),
        _column("user_agent", TEXT, "program that sent it"),
        _column("before", JSON, "JSON: fields that the event changed, as they were"),
        _column("after", JSON, "JSON: the same fields behind it"),
        _column("comment", TEXT, "comment that was given with it"),
        _column("error_code", TEXT, "of calls: error code of a refusal"),
        _column("method", TEXT, "of calls: HTTP method"),
        _column("route", TEXT, "of calls: template of the path"),
        _column("permission", TEXT, "of calls: permission that the route asks for"),
        _column("status", SMALL, "of calls: HTTP status"),
        _column("duration_us", NUMBER, "of calls: microseconds until the answer"),
        _column("bytes_in", NUMBER, "of calls: bytes of the request's body"),
        _column("bytes_out", NUMBER, "of calls: bytes of the answer's body"),
        _column("touched", TEXTS, "of calls about several things: each, as kind/id and kind/name"),
        _column("request", JSON, "JSON: of calls at level request: query and body, redacted"),
    ),
    grows=True,
)

EXPERIMENTS = Table(
    "experiments",
    "a row per experiment, deleted ones included",
    "experiments AS t",
    (
        _column("experiment_id", TEXT, "id of the experiment"),
        _column("name", TEXT, "its name"),
        _column("lifecycle", TEXT, "active or deleted"),
        _time("created_at", "when it was created", "t.created_at_ms"),
        _time("updated_at", "when it was last changed", "t.updated_at_ms"),
        _column("artifact_location", TEXT, "URI below which its runs keep files"),
        _column("created_by", TEXT, "principal that created it"),
        _column("workspace", TEXT, "workspace that it is in"),
    ),
)

RUNS = Table(
    "runs",
    "a row per run, deleted ones included",
    "runs AS t",
    (
        _column("run_id", TEXT, "id of the run"),
        _column("experiment_id", TEXT, "id of its experiment"),
        _column("name", TEXT, "its name"),
        _column("user_id", TEXT, "name of the user that the client told; not a principal"),
        _column("status", TEXT, "RUNNING, FINISHED, FAILED, …"),
        _time("started_at", "when it began, by the client's clock", "t.start_time_ms"),
        _time("ended_at", "when it ended, by the client's clock", "t.end_time_ms"),
        _column("lifecycle", TEXT, "the run's own: active or deleted; see experiments too"),
        _column("artifact_uri", TEXT, "URI below which its files are"),
    ),
)

PARAMS = Table(
    "params",
    "a row per param of a run",
    "(SELECT run_id, unnest(map_entries(params)) AS entry FROM runs) AS t",
    (
        _column("run_id", TEXT, "id of the run"),
        _column("key", TEXT, "name of the param", "t.entry.key"),
        _column("value", TEXT, "its value", "t.entry.value"),
    ),
)

METRICS = Table(
    "metrics",
    "a row per metric of a run: its latest point",
    "(SELECT run_id, unnest(map_entries(metrics)) AS entry FROM runs) AS t",
    (
        _column("run_id", TEXT, "id of the run"),
        _column("key", TEXT, "name of the metric", "t.entry.key"),
        _column("value", REAL, "its value; may be NaN or infinite", "t.entry.value.value"),
        _column("step", NUMBER, "step of the point", "t.entry.value.step"),
        _time("logged_at", "time of the point, by the client", "t.entry.value.timestamp_ms"),
    ),
)

DATASETS = Table(
    "datasets",
    "a row per dataset that a run used",
    "(SELECT run_id, unnest(datasets) AS entry FROM runs) AS t",
    (
        _column("run_id", TEXT, "id of the run"),
        _column("name", TEXT, "name of the dataset", "t.entry.name"),
        _column("digest", TEXT, "its digest", "t.entry.digest"),
        _column("context", TEXT, "what it was used for: training, …", "t.entry.context"),
    ),
)

TAGS = Table(
    "tags",
    "a row per tag of a run, experiment, registered model or version",
    """(
    SELECT 'run' AS kind, run_id AS id, NULL AS version, unnest(map_entries(tags)) AS entry
    FROM runs
    UNION ALL SELECT 'experiment', experiment_id, NULL, unnest(map_entries(tags)) FROM experiments
    UNION ALL SELECT 'model', model_id, NULL, unnest(map_entries(tags)) FROM registered_models
    UNION ALL SELECT 'version', model_id, version, unnest(map_entries(tags)) FROM model_versions
) AS t""",
    (
        _column("kind", TEXT, "what has the tag: run, experiment, model or version"),
        _column("id", TEXT, "run_id, experiment_id or model_id of that"),
        _column("version", SMALL, "number of the version, of versions"),
        _column("key", TEXT, "name of the tag", "t.entry.key"),
        _column("value", TEXT, "its value", "t.entry.value"),
    ),
)

MODELS = Table(
    "models",
    "a row per registered model (and prompt) that there is",
    "registered_models AS t",
    (
        _column("model_id", TEXT, "id of the model, which stays when it is renamed"),
        _column("name", TEXT, "its name"),
        _column("description", TEXT, "its description"),
        _time("created_at", "when it was created", "t.created_at_ms"),
        _time("updated_at", "when it was last changed", "t.updated_at_ms"),
        _column("is_prompt", FLAG, "whether it is a prompt"),
        _column("created_by", TEXT, "principal that created it"),
        _column("workspace", TEXT, "workspace that it is in"),
    ),
)

VERSIONS = Table(
    "versions",
    "a row per version of a registered model that there is",
    "model_versions AS t",
    (
        _column("model_id", TEXT, "id of the model"),
        _column("name", TEXT, "name of the model"),
        _VERSION,
        _column("source", TEXT, "URI of its files, as it was registered"),
        _column("run_id", TEXT, "run that it comes from; empty: none was named"),
        _column("stage", TEXT, "stage that it is in"),
        _time("created_at", "when it was registered", "t.created_at_ms"),
        _time("updated_at", "when it was last changed", "t.updated_at_ms"),
        _column("is_prompt", FLAG, "whether it is of a prompt"),
    ),
)

MODEL_HISTORY = Table(
    "model_history",
    "a row per time during which a model had a name, deleted models included",
    "model_intervals AS t",
    _interval((_column("name", TEXT, "the name"),)),
)

VERSION_HISTORY = Table(
    "version_history",
    "a row per version that there ever was, from its registration to its deletion",
    "version_intervals AS t",
    _interval((_NAME_THEN, _VERSION)),
)

STAGES = Table(
    "stages",
    "a row per time during which a version was in a stage",
    "stage_intervals AS t",
    _interval((_NAME_THEN, _VERSION, _column("stage", TEXT, "the stage"))),
)

ALIASES = Table(
    "aliases",
    "a row per time during which an alias meant a version",
    "alias_intervals AS t",
    _interval((_NAME_THEN, _column("alias", TEXT, "the alias"), _VERSION)),
)

ACTIVITIES = Table(
    "activities",
    "a row for everything that was asked for, approved, rejected, done or said of a version",
    "activities AS t",
    (
        _column("model_id", TEXT, "id of the model"),
        _VERSION,
        _column("id", TEXT, "id of the activity"),
        _time("at", "when it was", "t.at_ms"),
        _column("kind", TEXT, "REQUESTED_TRANSITION, APPROVED_REQUEST, APPLIED_TRANSITION, …"),
        _column("actor", TEXT, "principal that did it"),
        _column("from_target", TEXT, "stage before, or @alias"),
        _column("to_target", TEXT, "stage that it is about, or @alias"),
        _column("comment", TEXT, "what was said"),
        _column("system_comment", TEXT, "what the server said of it"),
        _column("offset", NUMBER, "where its event is in the topic catalog, partition 0"),
    ),
)

ARTIFACTS = Table(
    "artifacts",
    "a row per file that is there, as the log has it",
    "artifacts AS t",
    (
        _column("path", TEXT, "where it is in the artifact store"),
        _column(
            "owner",
            TEXT,
            "id of the run, logged model or trace that it belongs to, else the first folder",
        ),
        _column("size_bytes", NUMBER, "its size"),
        _column("sha256", TEXT, "SHA-256 of its bytes, in hex", "lower(hex(t.sha256))"),
        _time("uploaded_at", "when it was uploaded", "t.uploaded_at_ms"),
        _column("actor", TEXT, "principal that uploaded it"),
    ),
)

GRANTS = Table(
    "grants",
    "a row per grant that stands; those of the past are in audit, as access.grant and .revoke",
    f"{ROWS} AS t",
    (
        _column("grant_id", TEXT, "id of the grant"),
        _column("subject_kind", TEXT, "whom it is made to: principal, group, claims, …"),
        _column("subject", TEXT, "principal id or group's name; claims as key=value"),
        _column("issuer", TEXT, "identity provider that the group or claims are of"),
        _column("role", TEXT, "role that it gives"),
        _column("resource_kind", TEXT, "on what: experiment, model, prompt, server or *"),
        _column("pattern", TEXT, "which of these: a pattern of names, or id: and an id"),
        _column("workspace", TEXT, "in which workspace; *: in all"),
        _column("stages", TEXTS, "stages that it is narrowed to; empty: to none"),
        _column("aliases", TEXTS, "aliases that it is narrowed to"),
        _column("tag_keys", TEXTS, "keys of tags that it is narrowed to"),
        _time("expires_at", "when it ends; NULL: never", "t.expires_at_ms"),
        _column("comment", TEXT, "what was said with it"),
        _column("granted_by", TEXT, "principal that made it"),
        _time("granted_at", "when it was made", "t.granted_at_ms"),
    ),
    rows=catalog_rows.grants,
)

POLICIES = Table(
    "policies",
    "a row per promotion policy in force",
    f"{ROWS} AS t",
    (
        _column("policy", TEXT, "its name"),
        _column("pattern", TEXT, "names of models that it is about"),
        _column("workspace", TEXT, "of which workspace; *: of all"),
        _column("stages", TEXTS, "stages that it guards"),
        _column("aliases", TEXTS, "aliases that it guards"),
        _column("approvals", SMALL, "approvals that it takes"),
        _column("approver_groups", TEXTS, "groups of which approvers are members"),
        _column("exclude_requester", FLAG, "whether whoever asks does not approve"),
        _column("exclude_author", FLAG, "whether whoever made the version does not approve"),
        _column("required_tags", TEXTS, "tags that the version must have"),
        _column("condition", TEXT, "what must hold of its run"),
        _column("required_comment", FLAG, "whether approvers must say something"),
        _column("set_by", TEXT, "principal that set it as it is"),
        _time("set_at", "when that was", "t.set_at_ms"),
    ),
    rows=catalog_rows.policies,
)

TABLES: Final = {
    table.name: table
    for table in (
        *(AUDIT, EXPERIMENTS, RUNS, PARAMS, METRICS, DATASETS, TAGS, ARTIFACTS),
        *(MODELS, VERSIONS, MODEL_HISTORY, VERSION_HISTORY, STAGES, ALIASES, ACTIVITIES),
        *(GRANTS, POLICIES),
    )
}
"""All published tables by name."""
