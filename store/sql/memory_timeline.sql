-- One row per moment and category of memory (the table memory is a run's memory.parquet). Of more than $max_points
-- moments, every nth is kept: the fullest of its neighbours, so that the peak stays in.
WITH moment AS (
    SELECT
        *,
        parameters_bytes + gradients_bytes + optimizer_state_bytes + activations_bytes + workspace_bytes
            + other_bytes AS total_bytes,
        (row_number() OVER (ORDER BY time_ns) - 1) * least($max_points::BIGINT, count(*) OVER ())
            // count(*) OVER () AS bucket
    FROM memory
),
kept AS (SELECT unnest(arg_max(moment, total_bytes)) FROM moment GROUP BY bucket)
SELECT
    time_ns / 1e6 AS time_ms,
    replace(category, '_bytes', '') AS category,
    bytes / 2 ** 30 AS gib
FROM (
    UNPIVOT kept ON
        parameters_bytes, gradients_bytes, optimizer_state_bytes, activations_bytes, workspace_bytes, other_bytes
    INTO NAME category VALUE bytes
)
ORDER BY time_ms
