"""Waterfalls of two attributed traces as the product makes them: the ledger of each, and store/sql/waterfall.sql."""

import pandas as pd

from profiler.traces.attribute import Attribution
from profiler.traces.ledger import ledger, median_step, walls
from store import db


def wall_of(found: Attribution) -> int:
    """Nanoseconds of the step of median length."""
    wall_ns = walls(found)
    return int(wall_ns[median_step(wall_ns)])


def waterfall(before: Attribution, after: Attribution, cut: str) -> pd.DataFrame:
    """One row per part of either step. cut: class, place or phase."""
    tables = {name: ledger(one, median_step(walls(one))) for name, one in (("before", before), ("after", after))}
    with db.scratch() as connection:
        return db.query(connection, "waterfall", tables, cut=cut)


def changes(rows: pd.DataFrame) -> dict[str, int]:
    """Nanoseconds by part, the largest change first."""
    return dict(zip(rows["name"], rows["change_ns"].tolist(), strict=True))
