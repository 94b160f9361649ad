"""Tables: how tall they stand on a page."""

import pandas as pd

ROW_PX = 35


def fit(rows: pd.DataFrame, most: int = 14) -> int | str:
    """All rows where there are few, else as many as `most` with a scroll bar."""
    return "content" if len(rows) <= most else ROW_PX * (most + 1)
