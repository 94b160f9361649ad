-- One row per run of $run_ids, in that order, with every scalar.
SELECT run.* FROM run
WHERE list_contains($run_ids::VARCHAR[], run_id)
ORDER BY list_position($run_ids::VARCHAR[], run_id)
