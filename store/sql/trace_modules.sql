-- One row per step and module of a trace that runs operators, in the order they first run (the table ops is a run's
-- ops.parquet).
SELECT step, module, count(*) AS num_ops
FROM ops
WHERE module IS NOT NULL
GROUP BY step, module
ORDER BY step, min(start_ns), module
