-- One row: the run folder of $run_id (none for an unknown run).
SELECT folder FROM run WHERE run_id = $run_id
