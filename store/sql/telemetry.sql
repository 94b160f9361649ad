-- One row per sample of the GPU's state (the table telemetry is a run's telemetry.parquet).
SELECT time_ns / 1e9 AS time_s, power_w, sm_clock_mhz, memory_clock_mhz, temperature_c, utilisation
FROM telemetry
ORDER BY time_ns
