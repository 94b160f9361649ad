-- One row per run and part of its step; a run's rows add up to its wall time.
SELECT
    run_id,
    part,
    sum(duration_ns) / 1e6 AS step_ms,
    sum(duration_ns) / nullif(sum(sum(duration_ns)) OVER (PARTITION BY run_id), 0) AS share,
    sum(duration_ns)::BIGINT AS duration_ns
FROM ledger
GROUP BY run_id, part
ORDER BY run_id, step_ms DESC, part
