-- One row per model, mode, compilation and device: how long a whole measured run of this home took, for estimates.
SELECT model, mode, compilation, device, median(duration_s) AS duration_s
FROM measured
WHERE duration_s IS NOT NULL AND root = $root  -- a recorded study's machine is not this one
GROUP BY ALL
ORDER BY ALL
