-- One row per run of $run_ids and part of its peak, in that order and the largest first: what was alive at the fullest
-- moment of the traced step (the table memory holds each run's memory.parquet), and what the unprofiled peak (the table
-- run has it) has beyond it. Temporary is what backward and optimizer asked for since the step began; other was there
-- before: inputs, and what nobody named.
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
    GROUP BY run_id
)
SELECT
    run_id,
    combo_label,
    part.name AS part,
    part.bytes / 2 ** 30 AS gib,
    time_ns / 1e6 AS time_ms,
    peak_allocated_gib AS peak_gib
FROM (
    SELECT *, unnest([
        {'name': 'parameters', 'bytes': parameters_bytes},
        {'name': 'gradients', 'bytes': gradients_bytes},
        {'name': 'optimizer_state', 'bytes': optimizer_state_bytes},
        {'name': 'activations', 'bytes': activations_bytes},
        {'name': 'workspace', 'bytes': workspace_bytes},
        {'name': 'temporary', 'bytes': greatest(0, other_bytes - before_bytes)},
        {'name': 'other', 'bytes': least(other_bytes, before_bytes)},
        {'name': 'untraced', 'bytes': greatest(0, (peak_allocated_gib * 2 ** 30)::BIGINT - total_bytes)}
    ]) AS part
    FROM peak
    JOIN run USING (run_id)
)
ORDER BY list_position($run_ids::VARCHAR[], run_id), gib DESC, part
