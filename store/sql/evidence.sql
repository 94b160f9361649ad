-- One row per optimisation family that run $run_id applied: what was done, and what the trace says of it.
SELECT family, choice, confirmed, facts, must_appear, must_not_appear, observed, finding
FROM evidence
WHERE run_id = $run_id
ORDER BY rowid
