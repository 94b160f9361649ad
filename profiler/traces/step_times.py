"""Step times: how long the traced work keeps its device busy, and how much of it runs again; per step."""

import statistics

from profiler.traces.attribute import Attribution
from profiler.traces.intervals import Union
from profiler.traces.words import RECOMPUTE


def busy_ms(found: Attribution) -> float:
    """Union of all device work of a step, the median over the steps."""
    work = found.traced
    rows = [work.take(work.step == step) for step in range(found.num_steps)]
    return statistics.median(Union.of(one.start_ns, one.end_ns).total_ns for one in rows) / 1e6


def recompute_ms(found: Attribution) -> float | None:
    """Kernel time of checkpointing's second forward, the mean over the steps; None where nothing is marked so."""
    work = found.traced
    again = work.duration_ns[work.phase == found.phases.names.index(RECOMPUTE)]
    return int(again.sum()) / found.num_steps / 1e6 if len(again) else None
