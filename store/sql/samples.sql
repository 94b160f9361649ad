-- One row per sample behind a metric of $run_ids, in the order measured.
SELECT run_id, metric, index, value
FROM sample
WHERE list_contains($run_ids::VARCHAR[], run_id)
ORDER BY list_position($run_ids::VARCHAR[], run_id), metric, index
