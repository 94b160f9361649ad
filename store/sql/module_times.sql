-- One row per module of one step (of phase $phase unless that is null), and one per phase of what no module did.
SELECT
    CASE
        WHEN module IS NOT NULL THEN module
        WHEN part LIKE 'idle:%' THEN 'idle'
        ELSE coalesce(phase || ', no module', 'no module')
    END AS module,
    CASE WHEN module IS NULL THEN 'other' ELSE 'module' END AS kind,
    sum(duration_ns) / 1e6 AS self_ms,
    sum(num_pieces)::BIGINT AS num_pieces
FROM ledger
WHERE $phase::VARCHAR IS NULL OR phase = $phase
GROUP BY ALL
ORDER BY self_ms DESC, module
