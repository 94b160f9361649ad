-- One row per measured training run of the studies of $run_ids, of the same workload and processes as one of them;
-- keeps_fp32 marks those whose weights and optimizer state are as exact as the baseline's.
SELECT
    one.run_id,
    one.sweep_id,
    one.workload_key,
    one.combo_label,
    one.sweep_role AS role,
    one.precision NOT IN ('bf16', 'fp16') AND one.quantization = 'none' AND one.optimizer <> 'adamw_8bit' AS keeps_fp32
FROM run AS one
WHERE one.mode = 'train' AND was_measured(one.status, one.step_ms) AND EXISTS (
    FROM run AS asked
    WHERE list_contains($run_ids::VARCHAR[], asked.run_id)
        AND asked.sweep_id = one.sweep_id AND asked.workload_key = one.workload_key AND asked.seed = one.seed
)
ORDER BY one.sweep_id, one.workload_key, one.sweep_position, one.run_id
