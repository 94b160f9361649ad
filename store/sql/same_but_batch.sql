-- One row per run that equals one of $run_ids in all but its batch, on the same kind of device; with the memory that
-- the driver and libraries take beside the allocator. Of several at one batch the newest that was measured, else the newest.
SELECT
    anchor.run_id AS anchor_run_id,
    one.run_id,
    one.combo_label,
    one.batch,
    one.status,
    one.cause,
    CASE WHEN was_measured(one.status, one.step_ms) THEN one.peak_allocated_gib END AS peak_gib,
    CASE WHEN was_measured(one.status, one.step_ms) THEN one.peak_device_gib - one.peak_reserved_gib END AS overhead_gib,
    CASE WHEN one.device = 'cuda' THEN one.gpu_memory_gib END AS device_gib
FROM run AS anchor
JOIN run AS one
    ON one.combo_key = anchor.combo_key
    AND one.model = anchor.model
    AND one.mode = anchor.mode
    AND one.resolution = anchor.resolution
    AND one.device = anchor.device
    AND one.world_size = anchor.world_size
    AND one.machine_label = anchor.machine_label
    AND one.torch = anchor.torch
    AND (one.mode <> 'sample' OR one.num_inference_steps = anchor.num_inference_steps)
    AND (one.mode <> 'sample' OR one.guidance_scale = anchor.guidance_scale)
WHERE list_contains($run_ids::VARCHAR[], anchor.run_id) AND (was_measured(one.status, one.step_ms) OR one.status = 'oom')
QUALIFY row_number() OVER (
    PARTITION BY anchor.run_id, one.batch
    ORDER BY was_measured(one.status, one.step_ms) DESC, one.started_at DESC NULLS LAST, one.run_id
) = 1
ORDER BY list_position($run_ids::VARCHAR[], anchor.run_id), one.batch
