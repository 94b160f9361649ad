-- One row per ResNet or transformer block of a training step, in the order of the names, and one for all that is in
-- none (unit is null): ms that run again, and GiB kept from forward for backward with checkpointing and without. The
-- tables kernels and alive are the run's files, plain is the alive.parquet of the run without (no rows: unknown).
WITH again AS (
    SELECT regexp_extract(module, $unit, 1) AS unit, sum(duration_ns) / 1e6 AS total_ms
    FROM (SELECT module, sum(duration_ns) AS duration_ns FROM kernels WHERE phase = 'recompute' GROUP BY module)
    GROUP BY unit -- by module first: of a million kernels the pattern takes longest
),
num AS (SELECT count(DISTINCT step) AS steps FROM kernels),
kept AS (
    SELECT
        coalesce(regexp_extract(module, $unit, 1), '') AS unit,
        any_value(block) AS block,
        sum(bytes) / 2 ** 30 AS gib
    FROM alive
    WHERE moment = 'forward_end' AND category = 'activations'
    GROUP BY unit
),
kept_plain AS (
    SELECT
        coalesce(regexp_extract(module, $unit, 1), '') AS unit,
        any_value(block) AS block,
        sum(bytes) / 2 ** 30 AS gib
    FROM plain
    WHERE moment = 'forward_end' AND category = 'activations'
    GROUP BY unit
),
joined AS (
    SELECT
        unit,
        coalesce(kept.block, kept_plain.block) AS block,
        coalesce(again.total_ms / num.steps, 0) AS recompute_ms,
        coalesce(kept.gib, 0) AS kept_gib,
        CASE WHEN EXISTS (FROM plain) THEN coalesce(kept_plain.gib, 0) END AS plain_gib
    FROM (SELECT unit FROM again UNION SELECT unit FROM kept UNION SELECT unit FROM kept_plain) AS every
    LEFT JOIN again USING (unit)
    LEFT JOIN kept USING (unit)
    LEFT JOIN kept_plain USING (unit)
    CROSS JOIN num
)
SELECT
    nullif(unit, '') AS unit,
    CASE WHEN unit <> '' THEN block END AS block,
    recompute_ms,
    kept_gib,
    plain_gib,
    plain_gib - kept_gib AS saved_gib,
    CASE WHEN plain_gib > kept_gib AND recompute_ms > 0 THEN recompute_ms / (plain_gib - kept_gib) END AS ms_per_gib
FROM joined
ORDER BY unit = '', block, joined.unit
