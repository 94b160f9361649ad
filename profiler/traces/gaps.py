"""Gaps: how long the GPU does nothing between one run of a phase and the next, as between a sampler's forwards."""

import numpy as np

from profiler.traces.attribute import Work
from profiler.traces.columns import Ints
from profiler.traces.intervals import Union


def phase_gaps_ns(work: Work, phase: int) -> Ints:
    """Idle time between two runs of a phase in the same step, where other work lies between them.

    What ran in between (a sampler's own arithmetic) is no idle time. Empty where there are no kernels of a GPU.
    """
    work = work.take(work.stream >= 0)
    work = work.take(np.argsort(work.start_ns, kind="stable"))
    rows = np.flatnonzero(work.phase == phase)
    if not len(rows):
        return rows
    reached = np.maximum.accumulate(work.end_ns[rows])
    apart = (np.diff(rows) > 1) & (np.diff(work.step[rows]) == 0)
    start, end = reached[:-1][apart], work.start_ns[rows[1:]][apart]
    others = work.take(work.phase != phase)
    busy = Union.of(others.start_ns, others.end_ns).within(start, np.maximum(start, end))
    idle: Ints = np.maximum(end - start - busy, 0)
    return idle
