-- One row per collective, type and size, per step, the longest first.
SELECT
    collective,
    kernel,
    dtype,
    num_ranks,
    message_bytes / 2 ** 20 AS message_mib,
    num_calls / $num_steps::BIGINT AS num_calls,
    total_ns / $num_steps::BIGINT / 1e6 AS step_ms,
    bus_gbs
FROM collectives
ORDER BY total_ns DESC, collective, message_bytes
