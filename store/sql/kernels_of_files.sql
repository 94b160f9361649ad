-- One row per kernel, operator and phase of a file of $files; counts and times are per traced step.
WITH per_step AS MATERIALIZED (  -- so that the files are scanned once
    SELECT filename, step, name, category, op, phase, count(*) AS num_calls, sum(duration_ns) AS total_ns
    FROM read_parquet($files::VARCHAR[], filename = true)
    GROUP BY ALL
),
file AS (SELECT filename, count(DISTINCT step) AS num_steps FROM per_step GROUP BY filename)
SELECT
    filename,
    name::VARCHAR AS name,
    category::VARCHAR AS category,
    op::VARCHAR AS op,
    phase::VARCHAR AS phase,
    (sum(num_calls) / any_value(num_steps))::DOUBLE AS num_calls,
    (sum(total_ns) / any_value(num_steps))::DOUBLE AS total_ns
FROM per_step
JOIN file USING (filename)
GROUP BY ALL
