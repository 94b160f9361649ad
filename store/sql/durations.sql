-- One row per measured run of this home, those of a kind together: of which it is and how long it took as a whole.
SELECT model, mode, compilation, device, batch, resolution, duration_s
FROM measured
WHERE duration_s IS NOT NULL AND root = $root  -- a recorded study's machine is not this one
ORDER BY ALL
