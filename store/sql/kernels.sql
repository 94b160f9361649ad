-- One row per kernel, operator and phase of run $run_id, per step, the longest first.
SELECT
    name,
    category,
    op,
    phase,
    num_calls,
    total_ns / 1e6 AS total_ms,
    total_ns / nullif(num_calls, 0) / 1e3 AS mean_us,
    total_ns / nullif(sum(total_ns) OVER (), 0) AS share
FROM kernel
WHERE run_id = $run_id
ORDER BY total_ns DESC, name, op, phase
