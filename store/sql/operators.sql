-- One row per operator and shapes, per step, the costliest first: on the device where there is one.
SELECT
    name,
    shapes,
    types,
    num_calls / $num_steps::BIGINT AS num_calls,
    device_self_ns / $num_steps::BIGINT / 1e6 AS device_self_ms,
    device_total_ns / $num_steps::BIGINT / 1e6 AS device_total_ms,
    host_self_ns / $num_steps::BIGINT / 1e6 AS host_self_ms,
    host_total_ns / $num_steps::BIGINT / 1e6 AS host_total_ms
FROM operators
ORDER BY coalesce(device_self_ns, host_self_ns) DESC, host_self_ns DESC, name, shapes
