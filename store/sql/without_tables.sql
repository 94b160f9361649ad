-- One row per run of $run_ids that was traced, but whose folder keeps no kernels: it was packed without its tables.
SELECT run_id
FROM run
WHERE
    list_contains($run_ids::VARCHAR[], run_id)
    AND num_kernels > 0
    AND NOT EXISTS (FROM kernel WHERE kernel.run_id = run.run_id)
ORDER BY list_position($run_ids::VARCHAR[], run_id)
