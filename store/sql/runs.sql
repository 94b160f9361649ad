-- One row per run, the newest first.
SELECT * EXCLUDE (ended_at, device_key, workload_key, eager_key, gpu_memory_gib, record_mtime_ns)
FROM run
ORDER BY started_at DESC NULLS LAST, run_id
