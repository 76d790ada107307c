"""The tables of metric points. Both only grow, and hold what was logged, duplicates included.

A run's rows lie close together because they are in the order of arrival: DuckDB skips the row groups
outside of them by their smallest and largest run id. (Sorting each batch by run and key made the file
half as large again and reads no faster.)
"""

CREATE = """
CREATE TABLE points (
    run_id VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    step BIGINT NOT NULL,
    timestamp_ms BIGINT NOT NULL,
    value DOUBLE NOT NULL
);
CREATE TABLE model_points (
    model_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    step BIGINT NOT NULL,
    timestamp_ms BIGINT NOT NULL,
    value DOUBLE NOT NULL,
    dataset_name VARCHAR,
    dataset_digest VARCHAR
);
"""

INCOMING = "incoming_points"
"""Name under which a batch's rows are registered."""

INSERT_POINTS = f"INSERT INTO points SELECT * FROM {INCOMING}"

INSERT_MODEL_POINTS = f"INSERT INTO model_points SELECT * FROM {INCOMING}"

DOUBLE_MAX = 1.7976931348623157e308

CLAMPED = f"greatest(least(value, {DOUBLE_MAX!r}), -{DOUBLE_MAX!r})"
ORDERED = f"CASE WHEN isnan(value) THEN 0.0 ELSE {CLAMPED} END"
"""Upstream stores NaN as 0 with a mark, and sorts it so."""

DISTINCT_POINTS = f"""
SELECT run_id, step, timestamp_ms, {ORDERED} AS ordered, isnan(value)::INTEGER AS nan,
       any_value(value) AS value
FROM points WHERE run_id IN (SELECT unnest(?)) AND key = ?
GROUP BY ALL
"""
