"""The `experiments` table: one row per experiment, deleted ones included."""

CREATE = """
CREATE TABLE experiments (
    experiment_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    artifact_location VARCHAR NOT NULL,
    lifecycle VARCHAR NOT NULL,
    lifecycle_changed_at_ms BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    tags MAP(VARCHAR, VARCHAR) NOT NULL,
    created_by VARCHAR NOT NULL,
    workspace VARCHAR NOT NULL,
    document BLOB NOT NULL
)
"""

DELETE = "DELETE FROM experiments WHERE experiment_id = ?"

INSERT = "INSERT INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?, MAP(?, ?), ?, ?, ?)"

DOCUMENTS = "SELECT experiment_id, document FROM experiments"
"""All experiments, for current state at start."""
