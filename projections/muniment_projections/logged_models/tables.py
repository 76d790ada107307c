"""The `logged_models` table: one row per logged model, deleted ones included."""

CREATE = """
CREATE TABLE logged_models (
    model_id VARCHAR NOT NULL,
    experiment_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    model_type VARCHAR,
    status VARCHAR,
    source_run_id VARCHAR,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    params MAP(VARCHAR, VARCHAR) NOT NULL,
    tags MAP(VARCHAR, VARCHAR) NOT NULL,
    lifecycle VARCHAR NOT NULL,
    document BLOB NOT NULL
)
"""

INCOMING = "incoming_logged_models"
"""Name under which a batch's rows are registered."""

DELETE = f"DELETE FROM logged_models WHERE model_id IN (SELECT model_id FROM {INCOMING})"

INSERT = f"INSERT INTO logged_models SELECT * FROM {INCOMING}"

DOCUMENTS = "SELECT model_id, document FROM logged_models WHERE model_id IN (SELECT unnest(?))"
"""States by id. Takes the list of ids."""

OF_RUN = """
SELECT model_id FROM logged_models
WHERE experiment_id = ? AND source_run_id = ? AND name = ? AND lifecycle = 'active'
ORDER BY created_at_ms DESC, model_id DESC LIMIT 1
"""
"""The newest logged model of a name that a run made in its experiment."""

POINTS = """
SELECT model_id, key, run_id, timestamp_ms, step, value, dataset_name, dataset_digest
FROM model_points WHERE model_id IN (SELECT unnest(?))
GROUP BY ALL ORDER BY min(rowid)
"""
"""All metric points of models, in the order in which they were logged. Takes the list of ids."""
