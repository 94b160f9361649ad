"""Windows: disjoint ranges in time (steps, phases), and the one that a moment lies in."""

from dataclasses import dataclass

import numpy as np

from profiler.traces.columns import Bools, Ints, Ranges, Trace
from profiler.traces.words import STEP

_PROFILER_STEP = "ProfilerStep#"


@dataclass(frozen=True)
class Windows:
    """Ranges by start; name indexes `Trace.names`."""

    start_ns: Ints
    end_ns: Ints
    name: Ints

    def __len__(self) -> int:
        return len(self.start_ns)

    def at(self, moments: Ints) -> Ints:
        """Number of the window that holds each moment, -1 where none does."""
        if not len(self):
            return np.full(len(moments), -1)
        index = np.searchsorted(self.start_ns, moments, side="right") - 1
        return np.where((index >= 0) & (moments <= self.end_ns[index]), index, -1)


def windows_of(ranges: Ranges, is_wanted: Bools) -> Windows:
    found = ranges.take(is_wanted)
    return Windows(found.start_ns, found.end_ns, found.name)


def named(trace: Trace, ranges: Ranges, prefix: str) -> Bools:
    """Which ranges' names begin so."""
    begins = np.array([name.startswith(prefix) for name in trace.names], dtype=bool)
    return begins[ranges.name] if len(ranges) else np.zeros(0, dtype=bool)


def find_steps(trace: Trace) -> Windows:
    """Our own steps; else the profiler's; else the whole trace as one."""
    ranges = trace.ranges
    for prefix in (STEP, _PROFILER_STEP):
        is_step = named(trace, ranges, prefix)
        if is_step.any():
            return windows_of(ranges, is_step)
    tables = [table for table in (trace.ops, trace.launches, trace.device) if len(table)]
    if not tables:
        return Windows(*(np.empty(0, np.int64),) * 3)
    start, end = min(table.start_ns[0] for table in tables), max(table.end_ns.max() for table in tables)
    return Windows(np.array([start]), np.array([end]), np.array([-1]))
