-- One row per done run of the same workload, number of processes, device and boot as run $run_id, the fastest of each combo.
SELECT other.combo_key, arg_min(other.run_id, other.step_ms) AS run_id, min(other.step_ms) AS step_ms
FROM run AS own
JOIN run AS other USING (workload_key, world_size, device_key, boot_id)
WHERE own.run_id = $run_id AND other.status = 'done' AND other.run_id <> own.run_id AND other.step_ms IS NOT NULL
GROUP BY other.combo_key
ORDER BY step_ms
