"""Critical path: the chain of kernels and host work that a step had to wait for, from its end back to its start.

Walking back from the end: a kernel was held up by the kernel before it where it was launched in time, else by the
host's launch; the host ran freely back to the last wait for the GPU, which was held up by the last kernel before it.
The segments fill the step's wall time. A host that never waits is the whole path, however busy the GPU was.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution, Work
from profiler.traces.breakdown import step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.idle import waits_for_gpu
from profiler.traces.tables import words

KINDS = ("kernel", "host", "launch", "gap", "sync")


@dataclass(frozen=True)
class _Rows:
    """Plain lists, by end of the kernel and by end of the wait."""

    start: list[int]
    end: list[int]
    launch: list[int]  # when the launching call began, -1 where nobody knows
    row: list[int]
    wait_start: list[int]
    wait_end: list[int]


def critical_path(found: Attribution) -> pa.Table:
    """One row per segment, in order of time: step, start_ns, duration_ns, kind, and the kernel's name and class.

    kernel: the GPU works; gap: it starts the next kernel, which was queued; launch: from a launching call to its
    kernel; host: before a launching call; sync: a wait returns. Empty without a GPU.
    """
    rows = _rows(found) if found.on_gpu else None
    segments: list[tuple[int, int, int, int, int]] = []
    for step, (start, end) in enumerate(zip(*(limit.tolist() for limit in step_windows(found)), strict=True)):
        if rows is not None:
            segments += reversed([(step, *segment) for segment in _walk(rows, start, end)])
    table = np.array(segments, np.int64).reshape(-1, 5)
    number, begin, finish, kind, row = table.T
    work = found.work
    name, category = (
        np.where(row >= 0, column[row], -1) if len(work) else row for column in (work.name, work.category)
    )
    return pa.table(
        {
            "step": pa.array(number),
            "start_ns": pa.array(begin - found.origin_ns),
            "duration_ns": pa.array(finish - begin),
            "kind": words(KINDS, kind),
            "name": words(found.trace.names, name),
            "category": words(CATEGORIES, category),
        }
    )


def _named(work: Work) -> tuple[Ints, Ints]:
    return work.name, work.category


def _rows(found: Attribution) -> _Rows:
    work, launches = found.work, found.trace.launches
    order = np.argsort(work.end_ns, kind="stable")
    launch = np.where(work.launch >= 0, launches.start_ns[work.launch], -1) if len(launches) else work.launch
    waits = launches.take(waits_for_gpu(found.trace)[launches.name]) if len(launches) else launches
    by_end = np.argsort(waits.end_ns, kind="stable")
    columns = (work.start_ns[order], work.end_ns[order], launch[order], order)
    return _Rows(*(c.tolist() for c in (*columns, waits.start_ns[by_end], waits.end_ns[by_end])))


def _walk(rows: _Rows, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Segments (from, to, kind, work row) from the end to the start."""
    found: list[tuple[int, int, int, int]] = []
    now, on_host = end, True

    def reach(moment: int, kind: str, row: int = -1) -> None:
        nonlocal now
        moment = max(moment, start)
        if moment < now:
            found.append((moment, now, KINDS.index(kind), row))
            now = moment

    while now > start:
        if on_host:
            wait = bisect_right(rows.wait_end, now) - 1
            wait_from = rows.wait_start[wait] if wait >= 0 else start
            index = bisect_right(rows.end, rows.wait_end[wait]) - 1 if wait >= 0 else -1
            if wait < 0 or rows.wait_end[wait] <= start:
                reach(start, "host")
            elif index < 0 or rows.end[index] <= wait_from:  # it had nothing to wait for
                reach(wait_from, "host")
            else:
                reach(rows.wait_end[wait], "host")
                reach(rows.end[index], "sync")
                on_host = False
            continue
        index = bisect_right(rows.end, now) - 1
        if index < 0 or rows.end[index] <= start:
            reach(start, "host")
            continue
        reach(rows.end[index], "gap")
        reach(rows.start[index], "kernel", rows.row[index])
        before = bisect_right(rows.end, now) - 1
        before_end = rows.end[before] if before >= 0 else start
        launched = rows.launch[index]
        if launched > before_end:
            reach(launched, "launch")
            on_host = True
    return found
