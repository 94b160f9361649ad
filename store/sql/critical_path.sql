-- One row per kind of segment and kernel of the path that one step had to wait for, the longest first.
SELECT
    kind,
    category,
    name,
    duration_ns / 1e6 AS step_ms,
    duration_ns / nullif(sum(duration_ns) OVER (), 0) AS share,
    num_segments
FROM critical_path
ORDER BY duration_ns DESC, kind, name
