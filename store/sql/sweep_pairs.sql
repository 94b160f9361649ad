-- One row per run of sweep $sweep_id with the baseline of its own device, boot and workload (null where there is none).
SELECT
    one.run_id,
    -- Of several baselines: the nearest in time, as a sweep that was resumed repeats its baseline.
    arg_min(baseline.run_id, abs(epoch(baseline.started_at) - epoch(one.started_at))) AS baseline_run_id
FROM run AS one
LEFT JOIN measured AS baseline
    ON baseline.sweep_id = one.sweep_id
    AND baseline.sweep_role = 'baseline'
    AND baseline.status = 'done'
    AND baseline.device_key = one.device_key
    AND baseline.boot_id = one.boot_id
    AND baseline.workload_key = one.workload_key
WHERE one.sweep_id = $sweep_id
GROUP BY one.run_id, one.sweep_position, one.started_at
ORDER BY one.sweep_position, one.started_at, one.run_id
