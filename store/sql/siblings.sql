-- One row per combo that was tried with the same workload, number of processes, device and boot as run $run_id: its
-- fastest done run, null where it only came to nothing (wrong, ineffective, out of memory, failed).
SELECT
    other.combo_key,
    arg_min(other.run_id, other.step_ms) FILTER (other.status = 'done') AS run_id,
    min(other.step_ms) FILTER (other.status = 'done') AS step_ms
FROM run AS own
JOIN run AS other USING (workload_key, world_size, device_key, boot_id)
WHERE own.run_id = $run_id AND other.run_id <> own.run_id
    AND other.status IN ('done', 'wrong', 'ineffective', 'oom', 'failed')
GROUP BY other.combo_key
ORDER BY step_ms
