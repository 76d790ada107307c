"""The `audit_events` table: one row for every event that was folded, void ones included.

Rows lie in the order in which this replica folded them, which is nearly that of time, so that
DuckDB skips the row groups outside of a span of time by their smallest and largest values. A column
that no event of a kind has is NULL in its rows, which costs next to nothing.

touched: every thing that a call was about, as `kind/id` and `kind/name`, where that is more than
the row's own resource says. before, after: what changed in the aggregate, by field, for events of
the catalog. request: what was sent, at level `request`.
"""

COLUMNS = """
    topic VARCHAR NOT NULL,
    "partition" INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    at_ms BIGINT NOT NULL,
    type VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    auth_method VARCHAR NOT NULL,
    client_id VARCHAR,
    token_id VARCHAR,
    delegation VARCHAR[],
    outcome VARCHAR NOT NULL,
    reason VARCHAR,
    resource_kind VARCHAR,
    resource_id VARCHAR,
    resource_name VARCHAR,
    resource_version INTEGER,
    workspace VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    traceparent VARCHAR,
    client_address VARCHAR,
    user_agent VARCHAR,
    before JSON,
    after JSON,
    comment VARCHAR,
    error_code VARCHAR,
    method VARCHAR,
    route VARCHAR,
    permission VARCHAR,
    status INTEGER,
    duration_us BIGINT,
    bytes_in BIGINT,
    bytes_out BIGINT,
    touched VARCHAR[],
    request JSON
"""

CREATE = f"CREATE TABLE audit_events ({COLUMNS})"

CREATE_CLOCK_STEPS = """
CREATE TABLE audit_clock_steps (
    topic VARCHAR NOT NULL, "partition" INTEGER NOT NULL, "offset" BIGINT NOT NULL,
    back_ms BIGINT NOT NULL
)
"""
"""Events whose recorded time lies before an earlier one's of their topic-partition, by more than
that of any before them: a few rows, however long the trail is."""

NEWEST = """
SELECT coalesce(max(at_ms), 0) FROM audit_events WHERE topic = ? AND "partition" = ?
"""

LARGEST_STEP = """
SELECT coalesce(max(back_ms), 0) FROM audit_clock_steps WHERE topic = ? AND "partition" = ?
"""

INSERT_STEP = "INSERT INTO audit_clock_steps VALUES (?, ?, ?, ?)"

INCOMING = "incoming_audit"
"""Name under which a batch's rows are registered."""

OF_ANY = (
    "topic", "partition", "offset", "event_id", "at_ms", "type", "action", "actor", "auth_method",
    "client_id", "token_id", "delegation", "outcome", "reason", "resource_kind", "resource_id",
    "resource_name", "resource_version", "workspace", "request_id", "traceparent",
    "client_address", "user_agent",
)  # fmt: skip
"""Columns that every event may have, in the table's order."""

OF_CHANGES = ("before", "after", "comment")
"""Columns of events that change something."""

OF_CALLS = (
    "error_code", "method", "route", "permission", "status", "duration_us", "bytes_in", "bytes_out",
    "touched", "request",
)  # fmt: skip
"""Columns of calls."""


def insert(columns: tuple[str, ...]) -> str:
    """Adds a batch's rows, which have these columns."""
    names = ", ".join(f'"{name}"' for name in columns)
    return f"INSERT INTO audit_events ({names}) SELECT {names} FROM {INCOMING}"
