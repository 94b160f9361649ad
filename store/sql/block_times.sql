-- One row per UNet block and kernel class of one step; what no block did stands under the phase's name.
SELECT
    coalesce(block, CASE WHEN module IS NOT NULL THEN 'between blocks' END, phase, 'elsewhere') AS block,
    part AS category,
    sum(duration_ns) / 1e6 AS step_ms,
    sum(duration_ns) / nullif(sum(sum(duration_ns)) OVER (), 0) AS share
FROM ledger
WHERE part NOT LIKE 'idle:%'
GROUP BY ALL
ORDER BY block, step_ms DESC, category
