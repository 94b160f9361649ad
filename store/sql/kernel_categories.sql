-- One row per run of $run_ids and kernel category, per step, in the order of the list, the longest first.
SELECT
    run_id,
    any_value(run.combo_label) AS combo_label,
    kernel.category,
    sum(kernel.total_ns) / 1e6 AS step_total_ms,
    sum(kernel.total_ns) / nullif(sum(sum(kernel.total_ns)) OVER (PARTITION BY run_id), 0) AS share
FROM kernel
JOIN run USING (run_id)
WHERE list_contains($run_ids::VARCHAR[], run_id)
GROUP BY run_id, kernel.category
ORDER BY list_position($run_ids::VARCHAR[], run_id), step_total_ms DESC, kernel.category
