-- One row per pair of $run_ids and $baseline_run_ids (lists of equal length; a null baseline gives null ratios):
-- the run against its baseline, in the order of the lists.
SELECT
    one.run_id,
    one.sweep_position,
    one.sweep_role,
    one.combo_label,
    one.status,
    one.cause,
    measured.step_ms,
    measured.step_iqr_ms,
    measured.num_samples,
    measured.samples_per_s,
    CASE WHEN why_not_comparable IS NULL THEN baseline.step_ms / one.step_ms END AS speedup,
    measured.peak_allocated_gib,
    CASE WHEN why_not_comparable IS NULL
        THEN one.peak_allocated_gib / nullif(baseline.peak_allocated_gib, 0)
    END AS memory_ratio,
    measured.output_error,
    measured.gradient_error,
    measured.output_error_ratio,
    measured.gradient_error_ratio,
    measured.compile_s,
    break_even.break_even_steps,
    measured.mfu,
    measured.launch_verdict,
    measured.gpu_busy_share,
    measured.attention_observed,
    baseline.run_id AS baseline_run_id,
    greatest(own.drift, other.drift) AS drift,
    why_not_comparable
FROM (
    SELECT
        unnest($run_ids::VARCHAR[]) AS run_id,
        unnest($baseline_run_ids::VARCHAR[]) AS baseline_run_id,
        generate_subscripts($run_ids::VARCHAR[], 1) AS place
) AS pair
JOIN run AS one ON one.run_id = pair.run_id
LEFT JOIN run AS baseline ON baseline.run_id = pair.baseline_run_id
LEFT JOIN measured ON measured.run_id = one.run_id
LEFT JOIN break_even ON break_even.run_id = one.run_id
LEFT JOIN drift AS own
    ON own.sweep_id = one.sweep_id AND own.device_key = one.device_key
    AND own.boot_id = one.boot_id AND own.workload_key = one.workload_key
LEFT JOIN drift AS other
    ON other.sweep_id = baseline.sweep_id AND other.device_key = baseline.device_key
    AND other.boot_id = baseline.boot_id AND other.workload_key = baseline.workload_key
-- Why the two must not be divided by one another, in words; null when they may.
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN one.status = 'imported' OR baseline.status = 'imported'
            THEN 'an imported trace does not say with which choices it was made, and its steps ran under a profiler'
        WHEN NOT was_measured(one.status, one.step_ms) THEN 'nothing was timed: the run is ' || one.status
        WHEN baseline.run_id IS NULL AND one.sweep_id IS NULL
            THEN 'no baseline of its workload and torch is done on this device since its last boot'
        WHEN baseline.run_id IS NULL THEN 'the sweep has no baseline that is done on this device since its last boot'
        WHEN baseline.status <> 'done' OR NOT was_measured(baseline.status, baseline.step_ms)
            THEN 'the baseline is ' || baseline.status
        WHEN one.workload_key IS DISTINCT FROM baseline.workload_key
            THEN 'another workload than the baseline''s ' || baseline.workload_label
        WHEN one.device_key IS NULL OR baseline.device_key IS NULL THEN 'the device is not known'
        WHEN one.device_key <> baseline.device_key AND one.machine_label = baseline.machine_label
            THEN 'another ' || one.machine_label || ' than the baseline''s'
        WHEN one.device_key <> baseline.device_key THEN 'another device than the baseline''s ' || baseline.machine_label
        WHEN one.boot_id IS DISTINCT FROM baseline.boot_id THEN 'the machine was restarted since the baseline'
    END AS why_not_comparable
)
ORDER BY pair.place
