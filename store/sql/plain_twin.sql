-- One row, or none: the run that differs from run $run_id in checkpointing alone, and has none; of several the one of
-- the same sweep, then the nearest in time.
SELECT plain.run_id
FROM run AS one
JOIN run AS plain
    ON plain.checkpointing = 'none'
    AND plain.workload_key = one.workload_key
    AND plain.world_size = one.world_size
    AND plain.machine_label = one.machine_label
    AND plain.attention IS NOT DISTINCT FROM one.attention
    AND plain.precision IS NOT DISTINCT FROM one.precision
    AND plain.memory_format IS NOT DISTINCT FROM one.memory_format
    AND plain.fusion IS NOT DISTINCT FROM one.fusion
    AND plain.quantization IS NOT DISTINCT FROM one.quantization
    AND plain.optimizer IS NOT DISTINCT FROM one.optimizer
    AND plain.parallelism IS NOT DISTINCT FROM one.parallelism
    AND plain.compilation IS NOT DISTINCT FROM one.compilation
    AND plain.cuda_graphs IS NOT DISTINCT FROM one.cuda_graphs
WHERE one.run_id = $run_id AND one.checkpointing <> 'none' AND was_measured(plain.status, plain.step_ms)
ORDER BY
    plain.sweep_id IS DISTINCT FROM one.sweep_id,
    abs(epoch(plain.started_at) - epoch(one.started_at)),
    plain.run_id
LIMIT 1
