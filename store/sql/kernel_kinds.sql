-- One row per kernel, operator and launch geometry, per step, the longest first.
SELECT
    name,
    category,
    op,
    total_ns / $num_steps::BIGINT / 1e6 AS step_ms,
    total_ns / nullif(sum(total_ns) OVER (), 0) AS share,
    num_calls / $num_steps::BIGINT AS num_calls,
    total_ns / nullif(num_calls, 0) / 1e3 AS mean_us,
    min_ns / 1e3 AS min_us,
    max_ns / 1e3 AS max_us,
    grid,
    block,
    registers,
    shared_bytes / 1024 AS shared_kib,
    occupancy_percent,
    tensor_cores
FROM kernel_kinds
ORDER BY total_ns DESC, name, op, grid
