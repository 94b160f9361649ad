-- One row per moment of the traced step (peak, forward_end), category and module (the table alive is a run's
-- alive.parquet), the largest first.
SELECT moment, time_ns / 1e6 AS time_ms, category, module, block, bytes / 2 ** 30 AS gib, num_storages
FROM alive
ORDER BY moment DESC, bytes DESC, category, module
