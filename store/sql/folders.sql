-- One row per indexed run: its run folder.
SELECT run_id, folder FROM run
