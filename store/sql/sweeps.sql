-- One row per sweep, the newest first.
SELECT
    sweep_id,
    any_value(sweep_name) AS sweep_name,
    string_agg(DISTINCT workload_label, ', ' ORDER BY workload_label) AS workload_label,
    string_agg(DISTINCT machine_label, ', ' ORDER BY machine_label) AS machine_label,
    bool_and(root = $recorded_root) AS is_recorded,
    max(num_jobs) AS num_jobs,
    count(*) AS num_runs,
    count(*) FILTER (WHERE status = 'done') AS num_done,
    min(started_at) AS started_at,
    max(ended_at) AS ended_at
FROM run
WHERE sweep_id IS NOT NULL
GROUP BY sweep_id
ORDER BY started_at DESC NULLS LAST, sweep_id
