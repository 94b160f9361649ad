"""What Overview's cards need, made before a browser asks for them: its imports, the index, and the answers to their
queries. app.py calls it in a thread of its own when the server starts."""

from pages.charts import kernels, ladder, tradeoff  # noqa: F401
from pages.widgets import data, first_run, run_table, studies, study_views, traces, winners  # noqa: F401
from store import frames
from store.db import StoreError


def warm_up() -> None:
    """Fill the cache that pages read from. What the store cannot do is said by the page, which asks the same again."""
    try:
        data.answer(frames.runs)
        sweeps = studies.best_first(data.answer(frames.sweeps))
        for study in sweeps["sweep_id"].head(1):
            winners.answered(data.answer(frames.ladder, study), data.answer)
    except (StoreError, OSError):
        return
