-- One row per operator and shapes that launched device work, per step, the costliest first; lost_ms is above its floor.
SELECT
    name,
    shapes,
    dtype,
    num_calls / $num_steps::BIGINT AS num_calls,
    device_ns / $num_steps::BIGINT / 1e6 AS step_ms,
    flop,
    num_bytes,
    flop_per_byte,
    tflops,
    gbs,
    bound,
    roof_share,
    device_ns * (1 - least(roof_share, 1)) / $num_steps::BIGINT / 1e6 AS lost_ms,
    tensor_cores
FROM roofline
ORDER BY device_ns DESC, name, shapes
