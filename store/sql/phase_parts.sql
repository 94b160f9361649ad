-- One row per phase and part of one step, the longest first; idle time has no phase.
SELECT
    phase,
    part,
    sum(duration_ns) / 1e6 AS step_ms,
    sum(duration_ns) / nullif(sum(sum(duration_ns)) OVER (), 0) AS share
FROM ledger
GROUP BY phase, part
ORDER BY step_ms DESC, phase, part
