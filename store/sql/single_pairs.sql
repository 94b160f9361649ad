-- One row per run of no sweep, and per baseline that one of them is compared with, baselines first: the done run of the
-- baseline, of any sweep or none, on its own device, boot and workload, with its own torch, that was nearest in time
-- (null without one).
WITH pair AS (
    SELECT
        one.run_id,
        arg_min(baseline.run_id, abs(epoch(baseline.started_at) - epoch(one.started_at))) AS baseline_run_id
    FROM run AS one
    LEFT JOIN measured AS baseline
        ON baseline.combo_label = 'baseline'
        AND baseline.status = 'done'
        AND baseline.device_key = one.device_key
        AND baseline.boot_id = one.boot_id
        AND baseline.workload_key = one.workload_key
        AND baseline.torch = one.torch
    WHERE one.sweep_id IS NULL AND one.status <> 'imported'
    GROUP BY one.run_id
),
chosen AS (
    SELECT run_id, baseline_run_id FROM pair
    UNION
    SELECT baseline_run_id, baseline_run_id FROM pair WHERE baseline_run_id IS NOT NULL
)
SELECT run_id, baseline_run_id
FROM chosen
JOIN run USING (run_id)
ORDER BY combo_label <> 'baseline', started_at, run_id
