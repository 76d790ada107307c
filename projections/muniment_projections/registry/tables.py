"""The registry's tables: what is now, for searches, and from when until when what was so.

`registered_models` and `model_versions` hold what lives. The interval tables hold all that ever
was: a row says that something held from `valid_from_ms` until just before `valid_to_ms` (NULL:
still), and which event began and which ended it. Times are the server's, milliseconds since 1970,
and never go back from event to event (`registry_clock`), whatever the clocks of the servers did; of
changes within one millisecond only the last is visible at a point in time.
"""

CREATE = """
CREATE TABLE registered_models (
    model_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    description VARCHAR,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    tags MAP(VARCHAR, VARCHAR) NOT NULL,
    is_prompt BOOLEAN NOT NULL,
    created_by VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    document BLOB NOT NULL
);
CREATE TABLE model_versions (
    model_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    source VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    tags MAP(VARCHAR, VARCHAR) NOT NULL,
    is_prompt BOOLEAN NOT NULL,
    document BLOB NOT NULL
);
"""

DOCUMENTS = "SELECT model_id, document FROM registered_models"
"""All registered models, for current state at start."""

DELETE_MODELS = "DELETE FROM registered_models WHERE model_id IN (SELECT unnest(?::VARCHAR[]))"

INSERT_MODELS = """
INSERT INTO registered_models
SELECT model_id, name, description, created_at_ms, updated_at_ms,
    map(tag_keys, tag_values), is_prompt, created_by, workspace, document
FROM (SELECT
    unnest(?::VARCHAR[]) AS model_id, unnest(?::VARCHAR[]) AS name,
    unnest(?::VARCHAR[]) AS description, unnest(?::BIGINT[]) AS created_at_ms,
    unnest(?::BIGINT[]) AS updated_at_ms, unnest(?::VARCHAR[][]) AS tag_keys,
    unnest(?::VARCHAR[][]) AS tag_values, unnest(?::BOOLEAN[]) AS is_prompt,
    unnest(?::VARCHAR[]) AS created_by, unnest(?::VARCHAR[]) AS workspace,
    unnest(?::BLOB[]) AS document)
"""

DELETE_ALL_VERSIONS = "DELETE FROM model_versions WHERE model_id IN (SELECT unnest(?::VARCHAR[]))"

DELETE_VERSIONS = """
DELETE FROM model_versions AS stored
USING (SELECT unnest(?::VARCHAR[]) AS model_id, unnest(?::INTEGER[]) AS version) AS changed
WHERE stored.model_id = changed.model_id AND stored.version = changed.version
"""

INSERT_VERSIONS = """
INSERT INTO model_versions
SELECT model_id, name, version, source, run_id, stage, created_at_ms, updated_at_ms,
    map(tag_keys, tag_values), is_prompt, document
FROM (SELECT
    unnest(?::VARCHAR[]) AS model_id, unnest(?::VARCHAR[]) AS name,
    unnest(?::INTEGER[]) AS version, unnest(?::VARCHAR[]) AS source,
    unnest(?::VARCHAR[]) AS run_id, unnest(?::VARCHAR[]) AS stage,
    unnest(?::BIGINT[]) AS created_at_ms, unnest(?::BIGINT[]) AS updated_at_ms,
    unnest(?::VARCHAR[][]) AS tag_keys, unnest(?::VARCHAR[][]) AS tag_values,
    unnest(?::BOOLEAN[]) AS is_prompt, unnest(?::BLOB[]) AS document)
"""

MARK_PROMPTS = """
UPDATE model_versions AS stored SET is_prompt = changed.is_prompt
FROM (SELECT unnest(?::VARCHAR[]) AS model_id, unnest(?::BOOLEAN[]) AS is_prompt) AS changed
WHERE stored.model_id = changed.model_id AND stored.is_prompt <> changed.is_prompt
"""

MODEL_INTERVALS = "model_intervals"
VERSION_INTERVALS = "version_intervals"
STAGE_INTERVALS = "stage_intervals"
ALIAS_INTERVALS = "alias_intervals"

SUBJECTS = (
    (MODEL_INTERVALS, ("name VARCHAR",)),
    (VERSION_INTERVALS, ("name VARCHAR", "version INTEGER")),
    (STAGE_INTERVALS, ("name VARCHAR", "version INTEGER", "stage VARCHAR")),
    (ALIAS_INTERVALS, ("name VARCHAR", "alias VARCHAR", "version INTEGER")),
)
"""Each interval table and what it says of a model, besides model_id and the interval itself.

`name` is the model's when the interval began; only in `model_intervals` does another name begin
another interval.
"""

INTERVAL = (
    ("valid_from_ms", "BIGINT"),
    ("valid_to_ms", "BIGINT"),
    ("from_topic", "VARCHAR"),
    ("from_partition", "INTEGER"),
    ("from_offset", "BIGINT"),
    ("from_event_id", "VARCHAR"),
    ("from_actor", "VARCHAR"),
    ("to_offset", "BIGINT"),
    ("to_event_id", "VARCHAR"),
    ("to_actor", "VARCHAR"),
)
"""The columns of every interval table. A model's events are in one topic-partition, so that the
event that ended an interval needs its offset only."""

CREATE_WORKSPACES = """
CREATE TABLE model_workspaces (
    model_id VARCHAR NOT NULL, workspace VARCHAR NOT NULL, is_prompt BOOLEAN NOT NULL
)
"""

INSERT_WORKSPACES = """
INSERT INTO model_workspaces SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BOOLEAN[])
"""

CREATE_CLOCK = """
CREATE TABLE registry_clock (at_ms BIGINT NOT NULL);
INSERT INTO registry_clock VALUES (0)
"""

READ_CLOCK = "SELECT at_ms FROM registry_clock"

SET_CLOCK = "UPDATE registry_clock SET at_ms = ?"


def columns(table: str) -> tuple[tuple[str, str], ...]:
    """(name, type) of an interval table's columns, in order."""
    subject = dict(SUBJECTS)[table]
    named = ((column.split()[0], column.split()[1]) for column in subject)
    return (("model_id", "VARCHAR"), *named, *INTERVAL)


def create_intervals(table: str) -> str:
    """The statement that creates an interval table; only what ends an interval may be NULL."""
    ends = {"valid_to_ms", "to_offset", "to_event_id", "to_actor"}
    definitions = (
        f"{name} {kind}" + ("" if name in ends else " NOT NULL") for name, kind in columns(table)
    )
    return f"CREATE TABLE {table} ({', '.join(definitions)})"


def insert_intervals(table: str) -> str:
    """The statement that adds rows; takes one list per column."""
    lists = (f"unnest(?::{kind}[])" for _, kind in columns(table))
    return f"INSERT INTO {table} SELECT {', '.join(lists)}"


def close_intervals(table: str) -> str:
    """The statement that ends rows; takes lists of row id, time, offset, event id and actor."""
    return f"""
UPDATE {table} AS stored SET valid_to_ms = ended.at_ms, to_offset = ended.at_offset,
    to_event_id = ended.event_id, to_actor = ended.actor
FROM (SELECT unnest(?::BIGINT[]) AS place, unnest(?::BIGINT[]) AS at_ms,
    unnest(?::BIGINT[]) AS at_offset, unnest(?::VARCHAR[]) AS event_id,
    unnest(?::VARCHAR[]) AS actor) AS ended
WHERE stored.rowid = ended.place
"""


def open_intervals(table: str) -> str:
    """The query of what still holds for some models: row id, model_id and the subject's columns."""
    names = ", ".join(column.split()[0] for column in dict(SUBJECTS)[table])
    return f"""
SELECT rowid, model_id, {names} FROM {table}
WHERE valid_to_ms IS NULL AND model_id IN (SELECT unnest(?::VARCHAR[]))
"""
