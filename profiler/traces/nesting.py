"""Nesting: which range of a thread lies in which, on whole arrays.

Ranges of one thread may overlap by a little without nesting (rounding, Python's own rows): what begins while another is
open counts as its child, and as no more of it than lies inside.
"""

from dataclasses import dataclass

import numpy as np

from profiler.traces.columns import Bools, Ints


@dataclass(frozen=True)
class Nesting:
    """Ranges by thread, then start, then the longest first; rows are numbers of the arrays given to `nest`."""

    parent: Ints  # row of the innermost range that is open at the start, -1 at the top
    depth: Ints
    self_ns: Ints  # without the children
    _order: Ints
    _thread: Ints  # threads and starts in _order
    _start: Ints
    _end: Ints  # of rows as they were given

    def innermost(self, thread: Ints, moments: Ints, *, ends_after: bool = False) -> Ints:
        """Row of the innermost range that is open on a thread at a moment, -1 where there is none.

        A range is open at the moment of its end, too, unless ends_after.
        """
        row = np.full(len(moments), -1)
        if not len(self._order):
            return row
        for one in np.unique(thread).tolist():
            first, last = np.searchsorted(self._thread, [one, one + 1])
            asked = np.flatnonzero(thread == one)
            index = np.searchsorted(self._start[first:last], moments[asked], side="right") - 1
            row[asked[index >= 0]] = self._order[first + index[index >= 0]]
        past = moments + 1 if ends_after else moments
        while len(over := np.flatnonzero((row >= 0) & (self._end[row] < past))):
            row[over] = self.parent[row[over]]
        return row

    def sum_up(self, values: Ints) -> Ints:
        """Each row's value with those of all that it contains."""
        totals = values.copy()
        for depth in range(int(self.depth.max(initial=0)), 0, -1):
            rows = np.flatnonzero(self.depth == depth)
            np.add.at(totals, self.parent[rows], totals[rows])
        return totals

    def nearest(self, is_wanted: Bools) -> Ints:
        """Row of the innermost wanted range that holds each row, itself included; -1 where there is none."""
        found = np.where(is_wanted, np.arange(len(is_wanted)), -1)
        for depth in range(1, int(self.depth.max(initial=0)) + 1):
            rows = np.flatnonzero((self.depth == depth) & (found < 0))
            found[rows] = found[self.parent[rows]]
        return found

    def outermost(self, is_wanted: Bools) -> Ints:
        """Row of the outermost wanted range that holds each row, itself included; -1 where there is none."""
        found = np.where(is_wanted, np.arange(len(is_wanted)), -1)
        for depth in range(1, int(self.depth.max(initial=0)) + 1):
            rows = np.flatnonzero(self.depth == depth)
            above = found[self.parent[rows]]
            found[rows] = np.where(above >= 0, above, found[rows])
        return found


def nest(thread: Ints, start: Ints, duration: Ints) -> Nesting:
    """Nest ranges. In a tie of start and duration, the first given is the outer one."""
    order = np.lexsort((-duration, start, thread))
    end = start + duration
    parent_at = _parents(thread[order], start[order], end[order])
    parent = np.full(len(start), -1)
    parent[order] = np.where(parent_at >= 0, order[parent_at], -1)
    self_ns, inner = duration.copy(), np.flatnonzero(parent >= 0)
    inside = np.minimum(end[inner], end[parent[inner]]) - start[inner]
    np.subtract.at(self_ns, parent[inner], np.maximum(inside, 0))
    return Nesting(
        parent=parent,
        depth=_depths(parent),
        self_ns=np.maximum(self_ns, 0),
        _order=order,
        _thread=thread[order],
        _start=start[order],
        _end=end,
    )


def _parents(thread: Ints, start: Ints, end: Ints) -> Ints:
    """For each row, the last row before it on its thread that ends after its start.

    All rows jump at once: over a row that has ended, one may jump to where that row itself has got to, because whatever
    lies between had ended even earlier. A stack would walk row by row.
    """
    found = np.arange(len(start)) - 1
    found[: 1 if len(found) else 0] = -1
    found[1:][thread[1:] != thread[:-1]] = -1
    active = np.flatnonzero(found >= 0)
    while len(active := active[found[active] >= 0]):
        active = active[end[found[active]] <= start[active]]
        found[active] = found[found[active]]
    return found


def _depths(parent: Ints) -> Ints:
    depth = np.zeros(len(parent), np.int64)
    above = parent.copy()
    while len(rows := np.flatnonzero(above >= 0)):
        depth[rows] += 1
        above[rows] = parent[above[rows]]
    return depth
