"""Cut: what of a trace belongs to one step, or to one module's calls in a step.

Device work belongs where its operator does, whenever it runs. On the host a slice is a set of intervals per thread;
what lies inside of them belongs to it, and of the ranges around them (steps, phases, modules) those of the same step.
"""

from dataclasses import dataclass, field

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Bools, Ints
from profiler.traces.health import why_no_modules
from profiler.traces.intervals import Union
from profiler.traces.modules import ROOT

Thread = tuple[int | str, int | str]  # (pid, tid)


@dataclass(frozen=True)
class Cut:
    """The parts of a trace that a slice keeps; times count from Trace.origin_us."""

    step: tuple[int, int]  # on the host
    device: tuple[int, int]  # from the first to the last kernel of the slice
    of_all_threads: bool  # a whole step: its time on every thread
    intervals: dict[Thread, Union]
    kernels: frozenset[tuple[int, int]]  # (start, correlation)
    correlations: frozenset[int]
    host_threads: frozenset[Thread] = field(default_factory=frozenset)

    @property
    def window(self) -> tuple[int, int]:
        """All of the slice lies in it."""
        return min(self.step[0], self.device[0]), max(self.step[1], self.device[1])

    def is_inside(self, thread: Thread, start: int, end: int) -> bool:
        """Whether [start, end] of a thread lies in the slice."""
        if not (self.step[0] <= start and end <= self.step[1]):
            return False
        if self.of_all_threads:
            return True
        union = self.intervals.get(thread)
        if union is None:
            return False
        index = int(np.searchsorted(union.start, start, side="right")) - 1
        return index >= 0 and end <= int(union.end[index])

    def is_around(self, thread: Thread, start: int, end: int) -> bool:
        """Whether [start, end] of a thread holds an interval of the slice, and lies in its step."""
        union = self.intervals.get(thread)
        if union is None or not (self.step[0] <= start and end <= self.step[1]):
            return False
        index = int(np.searchsorted(union.start, start, side="left"))
        return index < len(union.start) and int(union.end[index]) <= end


def cut_out(found: Attribution, step: int, module: str | None = None) -> Cut:
    """The cut of a step (0 is the trace's first), or of a module and those in it in that step.

    Raises ValueError for what is not there.
    """
    if not 0 <= step < found.num_steps:
        raise ValueError(f"there is no step {step}: the trace has {found.num_steps}, the first is 0")
    work = found.work.take(found.work.step == step)
    wanted = None if module is None else _wanted(found, module)
    if wanted is not None:
        work = work.take(wanted[work.module])
    intervals = {} if wanted is None else _intervals(found, step, wanted)
    if wanted is not None and not intervals:
        raise ValueError(f"module {module} does not run in step {step}: choose another step")
    trace, on_host = found.trace, (int(found.steps.start_ns[step]), int(found.steps.end_ns[step]))
    on_device = found.on_gpu and len(work) > 0
    return Cut(
        step=on_host,
        device=(int(work.start_ns.min()), int(work.end_ns.max())) if on_device else on_host,
        of_all_threads=wanted is None,
        intervals=intervals,
        kernels=frozenset(_pairs(work.start_ns, work.correlation)) if found.on_gpu else frozenset(),
        correlations=frozenset(work.correlation[work.correlation > 0].tolist()),
        host_threads=frozenset(
            trace.threads[code]
            for table in (trace.ops, trace.ranges, trace.launches, trace.modules, trace.allocations)
            for code in np.unique(table.thread).tolist()
        ),
    )


def _wanted(found: Attribution, module: str) -> Bools:
    """Which path numbers the module and those inside of it have; the last entry, False, is number -1."""
    paths = found.modules.paths
    if not paths:
        raise ValueError(f"the trace has no module names: {why_no_modules(found)}")
    below = (f"{module}.", f"{module}/")
    wanted = np.array([module == ROOT or path == module or path.startswith(below) for path in paths] + [False])
    if not wanted.any():
        raise ValueError(f"there is no module {module}: the trace has {', '.join(sorted(paths)[:3])}, ...")
    return wanted


def _intervals(found: Attribution, step: int, wanted: Bools) -> dict[Thread, Union]:
    """Where a module's calls and operators are open, by thread."""
    ops, calls = found.trace.ops, found.modules.ranges
    is_op = (found.op_step == step) & wanted[found.modules.of_ops]
    is_call = (found.steps.at(calls.start_ns) == step) & wanted[found.modules.path_of_range]
    thread = np.concatenate((ops.thread[is_op], calls.thread[is_call]))
    start = np.concatenate((ops.start_ns[is_op], calls.start_ns[is_call]))
    end = np.concatenate((ops.end_ns[is_op], calls.end_ns[is_call]))
    return {
        found.trace.threads[code]: Union.of(start[thread == code], end[thread == code])
        for code in np.unique(thread).tolist()
    }


def _pairs(first: Ints, second: Ints) -> list[tuple[int, int]]:
    return list(zip(first.tolist(), second.tolist(), strict=True))
