-- One row per moment of a step without a profiler (the table allocator is a run's allocator.parquet); idle_gib is whole
-- free segments.
SELECT
    time_ns / 1e6 AS time_ms,
    requested_bytes / 2 ** 30 AS requested_gib,
    stuck_bytes / 2 ** 30 AS stuck_gib,
    (reserved_bytes - requested_bytes - stuck_bytes) / 2 ** 30 AS idle_gib,
    reserved_bytes / 2 ** 30 AS reserved_gib
FROM allocator
ORDER BY time_ns
