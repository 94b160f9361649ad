-- One row per part of either of the tables before and after (ledgers), the largest change first.
-- $cut: class; place (the first two names of a module, and the phase); phase (class and phase).
WITH row_of AS (
    SELECT part, phase, module, -duration_ns AS ns, duration_ns AS before_ns, 0 AS after_ns FROM before
    UNION ALL
    SELECT part, phase, module, duration_ns, 0, duration_ns FROM after
),
named AS (
    SELECT
        *,
        CASE
            WHEN part LIKE 'idle:%' OR $cut = 'class' THEN part
            WHEN $cut = 'phase' THEN concat_ws(', ', part, phase)
            ELSE concat_ws(
                ', ',
                CASE
                    WHEN contains(module, '/') THEN array_to_string(string_split(module, '/')[1:2], '/')
                    ELSE coalesce(array_to_string(string_split(module, '.')[1:2], '.'), 'no module')
                END,
                phase
            )
        END AS name
    FROM row_of
)
SELECT
    name,
    CASE WHEN $cut = 'place' AND any_value(part) NOT LIKE 'idle:%' THEN NULL ELSE any_value(part) END AS part,
    sum(before_ns) / 1e6 AS before_ms,
    sum(after_ns) / 1e6 AS after_ms,
    sum(ns) / 1e6 AS change_ms,
    sum(ns)::BIGINT AS change_ns
FROM named
GROUP BY name
ORDER BY abs(sum(ns)) DESC, name
