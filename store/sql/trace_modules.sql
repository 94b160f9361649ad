-- One row per step and module of a trace that runs operators, or holds one that does, in the order they first run (the
-- table ops is a run's ops.parquet). a.b.c lies in a.b and a; where stacks gave the names, a/b/c in a/b and a.
WITH own AS (
    SELECT
        step,
        module,
        contains(module, '/') AS by_stack,
        string_split(module, CASE WHEN by_stack THEN '/' ELSE '.' END) AS names,
        count(*) AS num_ops,
        min(start_ns) AS first_ns
    FROM ops
    WHERE module IS NOT NULL
    GROUP BY step, module
),
with_those_around AS (
    SELECT step, num_ops, first_ns, by_stack, unnest([names[1:depth] FOR depth IN range(1, len(names) + 1)]) AS names
    FROM own
)
SELECT
    step,
    CASE WHEN by_stack THEN array_to_string(names, '/') ELSE array_to_string(names, '.') END AS module,
    sum(num_ops)::BIGINT AS num_ops
FROM with_those_around
GROUP BY step, by_stack, names
ORDER BY step, min(first_ns), len(names), module
