"""Critical path: the chain of kernels and host work that a step had to wait for, from its end back to its start.

Walking back from the end: a kernel was held up by the one that it waits for (waits.py) where it was launched in time,
else by the host's launch; the host ran freely back to the last wait for the GPU, which a kernel held up.
The segments fill the step's wall time. A host that never waits is the whole path, however busy the GPU was.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.breakdown import step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.tables import words
from profiler.traces.waits import find_waits

KINDS = ("kernel", "host", "launch", "gap", "sync")


@dataclass(frozen=True)
class _Rows:
    """Waits as plain lists, which a loop reads faster."""

    start: list[int]
    end: list[int]
    launch: list[int]
    before: list[int]
    row: list[int]
    wait_start: list[int]
    wait_end: list[int]
    waited_for: list[int]


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


def _rows(found: Attribution) -> _Rows:
    work, waits = found.work, find_waits(found)
    kernels = (work.start_ns[waits.order], work.end_ns[waits.order], waits.launch_ns, waits.before, waits.order)
    return _Rows(*(column.tolist() for column in (*kernels, waits.start_ns, waits.end_ns, waits.waited_for)))


def _walk(rows: _Rows, start: int, end: int) -> list[tuple[int, int, int, int]]:
    """Segments (from, to, kind, work row) from the end to the start."""
    found: list[tuple[int, int, int, int]] = []
    now, on_host, kernel, wait = end, True, -1, len(rows.wait_end)

    def reach(moment: int, kind: str, row: int = -1) -> None:
        nonlocal now
        moment = max(moment, start)
        if moment < now:
            found.append((moment, now, KINDS.index(kind), row))
            now = moment

    while now > start:
        if on_host:
            wait = min(bisect_right(rows.wait_end, now), wait) - 1  # each once, so that even zero-length rows end
            if wait < 0 or rows.wait_end[wait] <= start:
                reach(start, "host")
                break
            kernel = rows.waited_for[wait]
            if kernel < 0 or rows.end[kernel] <= rows.wait_start[wait]:  # it had nothing to wait for
                reach(rows.wait_start[wait], "host")
                continue
            reach(rows.wait_end[wait], "host")
            reach(rows.end[kernel], "sync")
            on_host = False
        if kernel < 0 or rows.end[kernel] <= start:
            reach(start, "host")
            break
        reach(rows.end[kernel], "gap")
        reach(rows.start[kernel], "kernel", rows.row[kernel])
        launched, kernel = rows.launch[kernel], rows.before[kernel]
        if launched > (rows.end[kernel] if kernel >= 0 else start):
            reach(launched, "launch")
            on_host = True
    return found
