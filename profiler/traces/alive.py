"""Alive: what fills the memory at two instants of a step, by category and module.

`peak` is where most is alive. `forward_end` is what a training step keeps from forward for backward: what checkpointing
is to spare. The bytes of an instant sum to the timeline's point.
"""

from collections import Counter

import pyarrow as pa

from profiler.traces.modules import block_of
from profiler.traces.timeline import Timeline


def alive_table(timeline: Timeline) -> pa.Table:
    """One row per moment (peak, forward_end), category and module, the largest first; module is null where unknown."""
    moments = {"peak": timeline.peak} if timeline.points else {}
    if timeline.forward_end is not None:
        moments["forward_end"] = timeline.forward_end
    rows = [(name, *row) for name, point in moments.items() for row in _rows(timeline, point)]
    return pa.table(
        {
            "moment": pa.array([row[0] for row in rows], pa.string()),
            "time_ns": pa.array([timeline.points[moments[row[0]]].time_ns for row in rows], pa.int64()),
            "category": pa.array([row[1] for row in rows], pa.string()),
            "module": pa.array([row[2] for row in rows], pa.string()),
            "block": pa.array([block_of(row[2]) or None if row[2] else None for row in rows], pa.string()),
            "bytes": pa.array([row[3] for row in rows], pa.int64()),
            "num_storages": pa.array([row[4] for row in rows], pa.int64()),
        }
    )


def _rows(timeline: Timeline, point: int) -> list[tuple[str, str | None, int, int]]:
    """Category, module, bytes and number of storages."""
    sums: Counter[tuple[str, str | None]] = Counter()
    counts: Counter[tuple[str, str | None]] = Counter()
    for storage in timeline.storages:
        if storage.is_alive(point):
            sums[storage.category, storage.module] += storage.num_bytes
            counts[storage.category, storage.module] += 1
    return [(*key, num_bytes, counts[key]) for key, num_bytes in sums.most_common()]
