-- One row per family and choice of the done runs, other than run $run_id, of the same workload, number of processes and
-- kind of device: in which combos does not matter.
WITH alike AS (
    SELECT other.*
    FROM run AS own
    JOIN run AS other USING (workload_key, world_size, machine_label)
    WHERE own.run_id = $run_id AND other.run_id <> own.run_id AND other.status = 'done'
)
SELECT DISTINCT family, choice
FROM (
    UNPIVOT alike ON
        attention, precision, memory_format, fusion, checkpointing, optimizer, parallelism, compilation, cuda_graphs,
        quantization
    INTO NAME family VALUE choice
)
ORDER BY family, choice
