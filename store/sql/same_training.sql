-- One row per measured training run of the studies of $run_ids, and of the same workload as one of them. Runs of one
-- study (a number) start from the same weights and see the same batches: as many seeds, kinds of device (which draw
-- otherwise) and versions of PyTorch a sweep has, so many studies. keeps_fp32 marks those whose weights and optimizer
-- state are as exact as the baseline's. Left out are runs of several processes, whose curve may be one process's share
-- of the batch, and those whose loss scaling skipped steps, which are behind by that.
SELECT
    one.run_id,
    dense_rank() OVER (ORDER BY one.sweep_id, one.workload_key, one.seed, one.machine_label, one.torch) AS study,
    one.combo_label,
    one.sweep_role AS role,
    one.precision NOT IN ('bf16', 'fp16') AND one.quantization = 'none' AND one.optimizer <> 'adamw_8bit' AS keeps_fp32
FROM run AS one
WHERE one.mode = 'train' AND was_measured(one.status, one.step_ms) AND one.world_size = 1
    AND coalesce(one.num_skipped_steps, 0) = 0
    AND EXISTS (
        FROM run AS asked
        WHERE list_contains($run_ids::VARCHAR[], asked.run_id)
            AND asked.sweep_id = one.sweep_id AND asked.workload_key = one.workload_key
    )
ORDER BY study, one.sweep_position, one.run_id
