-- One row per sweep, the newest first; at last one of all runs that belong to none, imported ones aside.
SELECT
    coalesce(sweep_id, $single_runs) AS sweep_id,
    coalesce(any_value(sweep_name), $single_runs) AS sweep_name,
    string_agg(DISTINCT workload_label, ', ' ORDER BY workload_label) AS workload_label,
    string_agg(DISTINCT machine_label, ', ' ORDER BY machine_label) AS machine_label,
    bool_and(root = $recorded_root) AS is_recorded,
    coalesce(max(num_jobs), count(*)) AS num_jobs,
    count(*) AS num_runs,
    count(*) FILTER (WHERE status = 'done') AS num_done,
    min(started_at) AS started_at,
    max(ended_at) AS ended_at
FROM run
WHERE sweep_id IS NOT NULL OR status <> 'imported'
GROUP BY run.sweep_id
ORDER BY run.sweep_id IS NULL, started_at DESC NULLS LAST, sweep_id
