"""Modules of a trace, by qualified name: a.b.c lies in a.b and a; where stacks gave the names, a/b/c in a/b and a."""

import pandas as pd


def with_those_around(rows: pd.DataFrame) -> pd.DataFrame:
    """rows of trace_modules.sql, and the modules that run no operator themselves; num_ops with those inside."""
    counts: dict[tuple[int, str], int] = {}
    for step, module, num_ops in rows.itertuples(index=False):
        for around in _around(module):
            counts[step, around] = counts.get((step, around), 0) + num_ops
    frame = pd.DataFrame([(*key, num_ops) for key, num_ops in counts.items()], columns=list(rows.columns))
    return frame.astype(rows.dtypes.to_dict())


def _around(module: str) -> list[str]:
    separator = "/" if "/" in module else "."
    parts = module.split(separator)
    return [separator.join(parts[:length]) for length in range(1, len(parts) + 1)]
