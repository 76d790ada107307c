"""The tables of metric points. Both only grow, and hold what was logged, duplicates included.

A run's rows lie close together because they are in the order of arrival: DuckDB skips the row
groups outside of them by their smallest and largest run id. (Sorting each batch by run and key
made the file half as large again and reads no faster.)
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

LATEST_MODEL_POINTS = """
SELECT model_id, key, run_id, timestamp_ms, step, value, dataset_name, dataset_digest
FROM model_points WHERE model_id IN (SELECT unnest(?))
QUALIFY row_number() OVER (
    PARTITION BY model_id, key, dataset_name, dataset_digest
    ORDER BY timestamp_ms DESC, step DESC, run_id, value DESC
) = 1
ORDER BY model_id, key, dataset_name, dataset_digest
"""


def sampled(bounds: str) -> str:
    """A sample's SQL; `bounds` is a condition of ours on the step.

    Binds max_results, the run ids, the key, and what `bounds` binds. Upstream cuts a run's n points
    into max_results buckets, the first n % max_results of them one point larger, takes the first
    point of each, and replaces the last of these by the last point of all. The same by arithmetic
    on row numbers needs one sort.
    """
    return f"""
WITH numbered AS (
    SELECT *, ?::BIGINT AS most, row_number() OVER (
               PARTITION BY run_id ORDER BY step, timestamp_ms, ordered, nan
           ) - 1 AS place, count(*) OVER (PARTITION BY run_id) AS total
    FROM ({DISTINCT_POINTS}) WHERE {bounds}
), bucketed AS (
    SELECT *, total // most AS size, total % most AS larger,
           (total % most) * (total // most + 1) AS boundary
    FROM numbered
)
SELECT run_id, timestamp_ms, step, value FROM bucketed
WHERE size = 0 OR place = total - 1
   OR CASE WHEN place < boundary THEN place % (size + 1) = 0
           ELSE (place - boundary) % size = 0 AND larger + (place - boundary) // size < most - 1 END
ORDER BY run_id, place
"""
