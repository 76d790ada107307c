"""The `activities` table: what was done to model versions, and asked, by whom, in log order.

id: of the event; with a number behind it for what the event did to other versions; for a comment,
its own. updated_at_ms: when a comment was last changed, else as at_ms.
"""

CREATE = """
CREATE TABLE activities (
    model_id VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    topic VARCHAR NOT NULL,
    "partition" INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    place INTEGER NOT NULL,
    at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    from_target VARCHAR,
    to_target VARCHAR,
    comment VARCHAR,
    system_comment VARCHAR
)
"""

INSERT = "INSERT INTO activities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

CHANGE = """
UPDATE activities SET updated_at_ms = ?, comment = ?, system_comment = ?
WHERE model_id = ? AND version = ? AND id = ?
"""
"""Takes what a comment says now, and which it is."""

_COLUMNS = """
SELECT model_id, id, topic, "partition", "offset", at_ms, updated_at_ms, kind, actor, from_target,
    to_target, comment, system_comment
FROM activities
"""

OF_VERSION = f"""
{_COLUMNS} WHERE model_id = ? AND version = ? ORDER BY "offset", place
"""

OF_NAME = f"""
{_COLUMNS} WHERE version = $version
AND model_id IN (SELECT model_id FROM model_intervals WHERE name = $name)
AND model_id IN (SELECT model_id FROM model_workspaces WHERE workspace = $workspace)
ORDER BY "offset", place
"""
