-- The index over run folders. Any change of this file makes the next sync rebuild the index from the folders.

-- One row: this index. generation grows with every change of it, also over a rebuild.
CREATE TABLE meta (schema_digest VARCHAR, generation BIGINT);

-- One row per run: every scalar of record.json. The columns of Combo and Metrics bear their fields' names.
CREATE TABLE run (
    run_id VARCHAR,
    root VARCHAR,
    folder VARCHAR,
    status VARCHAR,
    cause VARCHAR,
    contaminated BOOLEAN,
    started_at TIMESTAMP,  -- UTC, as all times here
    duration_s DOUBLE,
    sweep_id VARCHAR,
    sweep_name VARCHAR,
    sweep_position BIGINT,
    sweep_role VARCHAR,
    num_jobs BIGINT,
    -- Combo
    attention VARCHAR,
    precision VARCHAR,
    memory_format VARCHAR,
    fusion VARCHAR,
    quantization VARCHAR,
    checkpointing VARCHAR,
    optimizer VARCHAR,
    parallelism VARCHAR,
    compilation VARCHAR,
    cuda_graphs VARCHAR,
    combo_label VARCHAR,
    combo_key VARCHAR,
    -- Workload
    model VARCHAR,
    model_label VARCHAR,
    mode VARCHAR,
    batch BIGINT,
    resolution BIGINT,
    device VARCHAR,
    world_size BIGINT,
    workload_label VARCHAR,
    num_inference_steps BIGINT,
    guidance_scale DOUBLE,
    dataset_size BIGINT,
    seed BIGINT,
    -- Machine
    machine_label VARCHAR,
    gpu_name VARCHAR,
    gpu_uuid VARCHAR,
    boot_id VARCHAR,
    torch VARCHAR,
    cuda VARCHAR,
    -- Metrics
    step_ms DOUBLE,
    step_iqr_ms DOUBLE,
    step_p95_ms DOUBLE,
    num_samples BIGINT,
    forward_ms DOUBLE,
    backward_ms DOUBLE,
    optimizer_ms DOUBLE,
    samples_per_s DOUBLE,
    epoch_s DOUBLE,
    image_s DOUBLE,
    first_call_s DOUBLE,
    compile_s DOUBLE,
    warm_compile_s DOUBLE,
    build_s DOUBLE,
    host_enqueue_ms DOUBLE,
    profiler_overhead DOUBLE,
    gpu_busy_ms DOUBLE,
    gpu_busy_share DOUBLE,
    num_kernels DOUBLE,
    recompute_ms DOUBLE,
    host_gap_ms DOUBLE,
    peak_allocated_gib DOUBLE,
    peak_reserved_gib DOUBLE,
    peak_device_gib DOUBLE,
    host_peak_gib DOUBLE,
    weights_gib DOUBLE,
    gradients_gib DOUBLE,
    optimizer_state_gib DOUBLE,
    activations_gib DOUBLE,
    activation_mib_per_sample DOUBLE,
    samples_per_s_per_gib DOUBLE,
    step_tflop DOUBLE,
    achieved_tflops DOUBLE,
    datasheet_tflops DOUBLE,
    mfu DOUBLE,
    ceiling_tflops DOUBLE,
    ceiling_share DOUBLE,
    step_energy_j DOUBLE,
    sample_energy_j DOUBLE,
    mean_power_w DOUBLE,
    mean_sm_clock_mhz DOUBLE,
    max_temperature_c DOUBLE,
    output_error DOUBLE,
    output_cosine DOUBLE,
    output_error_eager DOUBLE,
    output_error_ratio DOUBLE,
    gradient_error DOUBLE,
    gradient_error_eager DOUBLE,
    gradient_error_ratio DOUBLE,
    loss DOUBLE,
    loss_scale DOUBLE,
    num_skipped_steps BIGINT,
    -- Findings
    launch_verdict VARCHAR,  -- graded by gpu_busy_share: gpu-bound, partly launch-bound, launch-bound
    attention_observed VARCHAR,
    trace_file VARCHAR,
    of_whole_trace BOOLEAN,  -- a foreign trace that marks no steps: what is told per step is of all of it
    schema_version BIGINT,
    -- What pairs runs, and what sync compares; frames.runs leaves these out.
    ended_at TIMESTAMP,
    device_key VARCHAR,  -- the GPU's UUID, or the CPU's name for device=cpu
    workload_key VARCHAR,  -- equal when step times may be divided by one another; of any world_size
    eager_key VARCHAR,  -- combo_key of the same combo with compilation=eager
    gpu_memory_gib DOUBLE,  -- of the whole device
    record_mtime_ns BIGINT
);

-- One row per sample behind a run's metric.
CREATE TABLE sample (run_id VARCHAR, metric VARCHAR, index BIGINT, value DOUBLE);

-- One row per optimisation family that a run applied.
CREATE TABLE evidence (
    run_id VARCHAR,
    family VARCHAR,
    choice VARCHAR,
    confirmed BOOLEAN,
    facts VARCHAR,  -- in words, and so is observed
    must_appear VARCHAR,
    must_not_appear VARCHAR,
    observed VARCHAR,
    finding VARCHAR
);

-- One row per kernel, operator and phase of a run; counts and times are per traced step.
CREATE TABLE kernel (
    run_id VARCHAR,
    name VARCHAR,
    category VARCHAR,
    op VARCHAR,
    phase VARCHAR,
    num_calls DOUBLE,
    total_ns DOUBLE
);

-- One row per complete folder that is not indexed. run_id is null unless another folder holds the same run.
CREATE TABLE set_aside (folder VARCHAR, root VARCHAR, reason VARCHAR, run_id VARCHAR, record_mtime_ns BIGINT);

-- Whether a row of run holds the figures of a whole run; any other status may hold those of a run cut short.
CREATE MACRO was_measured(status, step_ms) AS
    status IN ('done', 'wrong', 'ineffective') AND coalesce(step_ms > 0, false);

-- One row per run that was measured to its end.
CREATE VIEW measured AS SELECT * FROM run WHERE was_measured(status, step_ms);

-- One row per sweep, device, boot and workload whose baseline ran more than once: how far its medians are apart.
CREATE VIEW drift AS
SELECT sweep_id, device_key, boot_id, workload_key, max(step_ms) / min(step_ms) - 1 AS drift
FROM measured
WHERE sweep_id IS NOT NULL AND sweep_role IN ('baseline', 'baseline_repeat') AND status = 'done'
GROUP BY ALL
HAVING count(*) > 1;

-- One row per compiled run with an eager partner: the steps after which compiling has paid for itself, if ever.
CREATE VIEW break_even AS
SELECT
    compiled.run_id,
    arg_min(eager.run_id, apart) AS eager_run_id,
    arg_min(eager.step_ms, apart) AS eager_step_ms,
    any_value(compiled.compile_s) * 1000
        / nullif(greatest(arg_min(eager.step_ms, apart) - any_value(compiled.step_ms), 0), 0) AS break_even_steps
FROM measured AS compiled
JOIN measured AS eager
    ON eager.combo_key = compiled.eager_key
    AND eager.workload_key = compiled.workload_key
    AND eager.world_size = compiled.world_size
    AND eager.device_key = compiled.device_key
    AND eager.boot_id = compiled.boot_id
    AND eager.status = 'done'
-- Of several partners: the one of the same sweep, then the nearest in time.
CROSS JOIN LATERAL (
    SELECT (eager.sweep_id IS DISTINCT FROM compiled.sweep_id)::DOUBLE * 1e12
        + coalesce(abs(epoch(eager.started_at) - epoch(compiled.started_at)), 1e11) AS apart
)
WHERE compiled.compilation <> 'eager'
GROUP BY compiled.run_id;
