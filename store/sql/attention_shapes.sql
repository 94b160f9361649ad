-- One row per attention shape and phase, per step, the longest first.
SELECT
    resolution,
    CASE WHEN query_tokens IS NULL THEN NULL WHEN query_tokens = key_tokens THEN 'self' ELSE 'cross' END AS kind,
    query_tokens,
    key_tokens,
    num_heads,
    head_dim,
    phase,
    num_calls / $num_steps::BIGINT AS num_calls,
    duration_ns / $num_steps::BIGINT / 1e6 AS step_ms,
    duration_ns / nullif(sum(duration_ns) OVER (), 0) AS share
FROM attention
ORDER BY duration_ns DESC, query_tokens, key_tokens, phase
