"""Nesting of whole arrays against a stack that walks row by row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.nesting import nest

ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 15)), max_size=30)
Rows = list[tuple[int, int, int]]


def _columns(rows: Rows) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
    return tuple(np.array(rows, np.int64).reshape(-1, 3).T)


def _parents(rows: Rows) -> list[int]:
    parents, stacks = [-1] * len(rows), {thread: [] for thread, _, _ in rows}  # type: ignore[var-annotated]
    for row in sorted(range(len(rows)), key=lambda row: (rows[row][1], -rows[row][2], row)):
        thread, start, duration = rows[row]
        stack = stacks[thread]
        while stack and stack[-1][0] <= start:
            stack.pop()
        parents[row] = stack[-1][1] if stack else -1
        stack.append((start + duration, row))
    return parents


@given(ROWS)
def test_parents_are_those_of_a_stack(rows: Rows) -> None:
    nesting = nest(*_columns(rows))
    assert nesting.parent.tolist() == _parents(rows)
    chain = [_chain(row, nesting.parent) for row in range(len(rows))]
    assert nesting.depth.tolist() == [len(above) for above in chain]


def _chain(row: int, parent: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    above = []
    while (row := int(parent[row])) >= 0:
        above.append(row)
    return above


@given(ROWS, st.integers(0, 2), st.integers(0, 60))
def test_the_innermost_open_row_is_found(rows: Rows, thread: int, moment: int) -> None:
    nesting = nest(*_columns(rows))
    found = int(nesting.innermost(np.array([thread]), np.array([moment]))[0])
    is_open = [t == thread and start <= moment <= start + d for t, start, d in rows]
    assert (found >= 0) <= any(is_open)
    if found >= 0:
        assert is_open[found]


@given(ROWS)
def test_sums_and_ancestors_follow_the_tree(rows: Rows) -> None:
    nesting = nest(*_columns(rows))
    ones = nesting.sum_up(np.ones(len(rows), np.int64))
    chains = [[row, *_chain(row, nesting.parent)] for row in range(len(rows))]
    assert ones.tolist() == [sum(row in chain for chain in chains) for row in range(len(rows))]
    wanted = np.arange(len(rows)) % 3 == 0
    assert nesting.nearest(wanted).tolist() == [next((r for r in chain if wanted[r]), -1) for chain in chains]
    outermost = [next((r for r in reversed(chain) if wanted[r]), -1) for chain in chains]
    assert nesting.outermost(wanted).tolist() == outermost


def test_what_overlaps_without_nesting_takes_no_more_than_lies_inside() -> None:
    nesting = nest(*_columns([(0, 0, 10), (0, 5, 10)]))
    assert nesting.parent.tolist() == [-1, 0]
    assert nesting.self_ns.tolist() == [5, 10]
