-- One row per step and part of its time, the longest part first.
SELECT step, part, duration_ns / 1e6 AS step_ms, duration_ns / nullif(sum(duration_ns) OVER (PARTITION BY step), 0) AS share
FROM steps
ORDER BY step, duration_ns DESC, part
