"""The `artifacts` table: one row per file that is there, as the log has it."""

CREATE = """
CREATE TABLE artifacts (
    path VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    size_bytes BIGINT NOT NULL,
    sha256 BLOB NOT NULL,
    uploaded_at_ms BIGINT NOT NULL,
    actor VARCHAR NOT NULL
)
"""

INCOMING = "incoming_artifacts"
"""Name under which a batch's rows are registered."""

DELETE_BELOW = """
DELETE FROM artifacts WHERE owner = ? AND (path = ? OR starts_with(path, ?))
"""
"""Takes the owner, a path, and the same path with a slash behind it."""

REPLACE = f"DELETE FROM artifacts WHERE path IN (SELECT path FROM {INCOMING})"

INSERT = f"INSERT INTO artifacts SELECT * FROM {INCOMING}"

FIND = "SELECT size_bytes, sha256 FROM artifacts WHERE path = ?"

ALL = "SELECT path, size_bytes, sha256 FROM artifacts"

BELOW = """
SELECT path, sha256 FROM artifacts WHERE path = ? OR starts_with(path, ?) ORDER BY path
"""
