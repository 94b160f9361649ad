-- One row per folder that a sync has seen: indexed (reason is null) or set aside.
SELECT folder, root, record_mtime_ns, run_id, NULL::VARCHAR AS reason FROM run
UNION ALL
SELECT folder, root, record_mtime_ns, run_id, reason FROM set_aside
