-- One row per run of $run_ids and kernel category, per step, in the order of the list, the longest first.
-- idle_ms, the same in each row of a run: what is left of the timed step; null on a CPU, where operators are traced and
-- slowed down by that.
SELECT
    run_id,
    any_value(run.combo_label) AS combo_label,
    kernel.category,
    sum(kernel.total_ns) / 1e6 AS step_total_ms,
    sum(kernel.total_ns) / nullif(sum(sum(kernel.total_ns)) OVER (PARTITION BY run_id), 0) AS share,
    CASE WHEN any_value(run.device) = 'cuda'
        THEN greatest(any_value(run.step_ms) - sum(sum(kernel.total_ns)) OVER (PARTITION BY run_id) / 1e6, 0)
    END AS idle_ms,
    any_value(run.of_whole_trace) AS of_whole_trace
FROM kernel
JOIN run USING (run_id)
WHERE list_contains($run_ids::VARCHAR[], run_id)
GROUP BY run_id, kernel.category
ORDER BY list_position($run_ids::VARCHAR[], run_id), step_total_ms DESC, kernel.category
