"""Intervals: unions, differences and overlaps of [start, end) in nanoseconds, on whole arrays.

Streams overlap, and so do kernels of one stream (programmatic dependent launch): busy time is a union, not a sum.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from profiler.traces.columns import Ints


@dataclass(frozen=True)
class Union:
    """Disjoint, non-empty intervals in order of time."""

    start: Ints
    end: Ints

    @classmethod
    def of(cls, start: Ints, end: Ints) -> Self:
        """The union of any intervals."""
        filled = end > start
        start, end = start[filled], end[filled]
        if not len(start):
            return cls(start, end)
        order = np.argsort(start, kind="stable")
        start, end = start[order], np.maximum.accumulate(end[order])
        is_first = np.concatenate(([True], start[1:] > end[:-1]))
        is_last = np.concatenate((is_first[1:], [True]))
        return cls(start[is_first], end[is_last])

    @property
    def total_ns(self) -> int:
        return int((self.end - self.start).sum())

    def before(self, moments: Ints) -> Ints:
        """Covered nanoseconds before each moment."""
        if not len(self.start):
            return np.zeros_like(moments)
        summed = np.concatenate(([0], np.cumsum(self.end - self.start)))
        index = np.searchsorted(self.start, moments, side="right")
        reached = np.minimum(moments, self.end[np.maximum(index - 1, 0)])
        last = np.maximum(index - 1, 0)
        return np.where(index > 0, summed[last] + reached - self.start[last], 0)

    def within(self, start: Ints, end: Ints) -> Ints:
        """Covered nanoseconds within each of some intervals."""
        return self.before(end) - self.before(start)

    def clip(self, start: int, end: int) -> Self:
        return type(self).of(np.maximum(self.start, start), np.minimum(self.end, end))

    def gaps(self, start: int, end: int) -> "Union":
        """What of [start, end) is not covered."""
        inside = self.clip(start, end)
        return Union.of(np.concatenate(([start], inside.end)), np.concatenate((inside.start, [end])))

    def minus(self, other: "Union") -> "Union":
        if not len(self.start):
            return self
        outside = other.gaps(int(self.start[0]), int(self.end[-1]))
        return self.overlap(outside)

    def overlap(self, other: "Union") -> "Union":
        """What both cover."""
        first = np.searchsorted(other.end, self.start, side="right")
        counts = np.maximum(np.searchsorted(other.start, self.end, side="left") - first, 0)
        mine = np.repeat(np.arange(len(self.start)), counts)
        theirs = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        return Union.of(
            np.maximum(self.start[mine], other.start[theirs]), np.minimum(self.end[mine], other.end[theirs])
        )


def first_covers(start: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """The part of each interval that none before it covers: at most one piece each. Start, end and number."""
    order = np.lexsort((-end, start))
    begun, ended = start[order], end[order]
    reached = np.concatenate((begun[:1], np.maximum.accumulate(ended)[:-1]))
    begun = np.maximum(begun, reached)
    kept = ended > begun
    return begun[kept], ended[kept], order[kept]


def cut_up(start: Ints, end: Ints, row: Ints, from_ns: Ints, to_ns: Ints) -> tuple[Ints, Ints, Ints]:
    """Overlaps of ordered disjoint intervals with ordered disjoint windows."""
    first = np.searchsorted(to_ns, start, side="right")
    counts = np.maximum(np.searchsorted(from_ns, end, side="left") - first, 0)
    mine = np.repeat(np.arange(len(start)), counts)
    theirs = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    return np.maximum(start[mine], from_ns[theirs]), np.minimum(end[mine], to_ns[theirs]), row[mine]
