-- One row per class that multiplies matrices and level of evidence for Tensor Cores, per step.
SELECT
    category,
    tensor_cores,
    sum(total_ns) / $num_steps::BIGINT / 1e6 AS step_ms,
    sum(total_ns) / nullif(sum(sum(total_ns)) OVER (PARTITION BY category), 0) AS share
FROM kernel_kinds
WHERE category IN ('attention', 'conv', 'gemm')
GROUP BY category, tensor_cores
ORDER BY sum(step_ms) OVER (PARTITION BY category) DESC, category, step_ms DESC
