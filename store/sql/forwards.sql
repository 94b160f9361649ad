-- One row per traced step and forward of it (a denoising step of a sampling loop), in order.
SELECT step, forward, busy_ns / 1e6 AS busy_ms
FROM forwards
ORDER BY step, forward
