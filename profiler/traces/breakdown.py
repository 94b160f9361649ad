"""Breakdown: where each nanosecond of a step went. The parts of a step add up to its wall time, exactly.

Busy time counts once: compute first, then communication and copies only where no kernel computes beside them. Where two
kernels of one kind overlap, the time is the one's that began first. What is left is idle, with its reason (idle.py).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution, Work
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.groups import Groups
from profiler.traces.idle import REASONS, idle_parts
from profiler.traces.intervals import Union, cut_up, first_covers
from profiler.traces.nesting import Nesting

PARTS = (*CATEGORIES, *(f"idle: {reason}" for reason in REASONS))
_LAST = [CATEGORIES.index(name) for name in ("communication", "memcpy")]  # only what no compute hides


@dataclass(frozen=True)
class Exposed:
    """Every moment in which a step does something, once: pieces of work rows. A row may have several, or none."""

    start_ns: Ints
    end_ns: Ints
    row: Ints  # of Attribution.work
    step: Ints

    @property
    def duration_ns(self) -> Ints:
        return self.end_ns - self.start_ns


def step_windows(found: Attribution) -> tuple[Ints, Ints]:
    """Start and end of each step: to the end of the last kernel that it launched, where that is later than the host's.

    A step begins when the one before it is over.
    """
    start, end = found.steps.start_ns.copy(), found.steps.end_ns.copy()
    work = found.work
    if found.on_gpu:
        owned = work.step >= 0
        np.maximum.at(end, work.step[owned], work.end_ns[owned])
    start[1:] = np.maximum(start[1:], np.maximum.accumulate(end)[:-1])
    return start, np.maximum(start, end)


def exposed(found: Attribution) -> Exposed:
    """All work, each moment once, cut at the limits of steps."""
    pieces = _device_pieces(found.work) if found.on_gpu else _host_pieces(found)
    return _cut(found, *pieces)


def breakdown(found: Attribution) -> pa.Table:
    """One row per step and part of its time: step, part (one of PARTS), duration_ns."""
    start, end = step_windows(found)
    pieces = exposed(found)
    idle_step, idle_reason, idle_ns = idle_parts(found, start, end, Union.of(pieces.start_ns, pieces.end_ns))
    step = np.concatenate((pieces.step, idle_step))
    part = np.concatenate((found.work.category[pieces.row], idle_reason + len(CATEGORIES)))
    groups = Groups.by(step, part)
    return pa.table(
        {
            "step": step[groups.first],
            "part": [PARTS[code] for code in part[groups.first].tolist()],
            "duration_ns": groups.sum(np.concatenate((pieces.duration_ns, idle_ns))),
        }
    )


def _device_pieces(work: Work) -> tuple[Ints, Ints, Ints]:
    """Start, end and row of what each kernel covers first."""
    is_last = np.isin(work.category, _LAST)
    covered = Union.of(work.start_ns[~is_last], work.end_ns[~is_last])
    starts, ends, rows = [], [], []
    for chosen in (~is_last, *(work.category == last for last in _LAST)):
        row = np.flatnonzero(chosen)
        start, end, which = first_covers(work.start_ns[row], work.end_ns[row])
        if not (chosen == ~is_last).all():
            start, end, which = _outside(start, end, which, covered)
            covered = Union.of(np.concatenate((covered.start, start)), np.concatenate((covered.end, end)))
        starts.append(start)
        ends.append(end)
        rows.append(row[which])
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(rows)


def _outside(start: Ints, end: Ints, row: Ints, covered: Union) -> tuple[Ints, Ints, Ints]:
    """What of disjoint intervals lies outside of a union, piece by piece."""
    if not len(start):
        return start, end, row
    order = np.argsort(start)
    free = covered.gaps(int(start.min()), int(end.max()))
    return cut_up(start[order], end[order], row[order], free.start, free.end)


def _host_pieces(found: Attribution) -> tuple[Ints, Ints, Ints]:
    """On a CPU: between two boundaries of operators, the innermost that is open; of two threads, the first."""
    ops, work = found.trace.ops, found.work
    rows = np.full(len(ops), -1)
    rows[work.row] = np.arange(len(work))
    starts, ends, which = [], [], []
    for thread in np.unique(ops.thread).tolist():
        mine = ops.thread == thread
        moments = np.unique(np.concatenate((ops.start_ns[mine], ops.end_ns[mine])))
        inner = _open_at(found.nesting, thread, moments[:-1])
        kept = inner >= 0
        starts.append(moments[:-1][kept])
        ends.append(moments[1:][kept])
        which.append(rows[inner[kept]])
    if not starts:
        return (np.empty(0, np.int64),) * 3
    start, end, row = np.concatenate(starts), np.concatenate(ends), np.concatenate(which)
    start, end, number = first_covers(start, end)
    return start, end, row[number]


def _open_at(nesting: Nesting, thread: int, moments: Ints) -> Ints:
    return nesting.innermost(np.full(len(moments), thread), moments, ends_after=True)


def _cut(found: Attribution, start: Ints, end: Ints, row: Ints) -> Exposed:
    """Pieces within steps, each in the step in whose time it lies."""
    order = np.argsort(start, kind="stable")
    from_ns, to_ns = step_windows(found)
    number = np.arange(len(order))
    start, end, number = cut_up(start[order], end[order], number, from_ns, to_ns)
    step = np.searchsorted(from_ns, start, side="right") - 1
    return Exposed(start, end, row[order[number]], step)
