-- One row per part of a run's peak: what was alive at the fullest moment of the traced step (the table memory is the
-- run's memory.parquet), and what the unprofiled peak of $peak_gib has beyond it. Temporary is what backward and optimizer
-- had asked for since the step began and free before it ends; other was there before: inputs, and what nobody named.
WITH moment AS (
    SELECT
        *,
        parameters_bytes + gradients_bytes + optimizer_state_bytes + activations_bytes + workspace_bytes
            + other_bytes AS total_bytes
    FROM memory
),
peak AS (
    SELECT unnest(first(moment ORDER BY total_bytes DESC, time_ns)), arg_min(other_bytes, time_ns) AS before_bytes
    FROM moment
    HAVING count(*) > 0
)
SELECT part.name AS part, part.bytes / 2 ** 30 AS gib, time_ns / 1e6 AS time_ms
FROM (
    SELECT time_ns, unnest([
        {'name': 'parameters', 'bytes': parameters_bytes},
        {'name': 'gradients', 'bytes': gradients_bytes},
        {'name': 'optimizer_state', 'bytes': optimizer_state_bytes},
        {'name': 'activations', 'bytes': activations_bytes},
        {'name': 'workspace', 'bytes': workspace_bytes},
        {'name': 'temporary', 'bytes': greatest(0, other_bytes - before_bytes)},
        {'name': 'other', 'bytes': least(other_bytes, before_bytes)},
        {'name': 'untraced', 'bytes': greatest(0, ($peak_gib::DOUBLE * 2 ** 30)::BIGINT - total_bytes)}
    ]) AS part
    FROM peak
)
