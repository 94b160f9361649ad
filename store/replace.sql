-- What one sync changes, in one transaction, from the registered tables gone, new_run, new_sample, new_evidence,
-- new_kernel, new_set_aside and new_meta.
BEGIN;
DELETE FROM run WHERE run_id IN (SELECT run_id FROM gone);
DELETE FROM sample WHERE run_id IN (SELECT run_id FROM gone);
DELETE FROM evidence WHERE run_id IN (SELECT run_id FROM gone);
DELETE FROM kernel WHERE run_id IN (SELECT run_id FROM gone);
DELETE FROM set_aside;
DELETE FROM meta;
INSERT INTO run BY NAME SELECT * FROM new_run;
INSERT INTO sample BY NAME SELECT * FROM new_sample;
INSERT INTO evidence BY NAME SELECT * FROM new_evidence;
INSERT INTO kernel BY NAME
SELECT new_run.run_id, new_kernel.* EXCLUDE (filename)
FROM new_kernel
JOIN new_run ON new_kernel.filename = new_run.folder || '/kernels.parquet';
INSERT INTO set_aside BY NAME SELECT * FROM new_set_aside;
INSERT INTO meta BY NAME SELECT * FROM new_meta;
COMMIT;
