"""Intervals against sets of moments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.intervals import Union, first_covers

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12)
Spans = list[tuple[int, int]]


def _union(spans: Spans) -> Union:
    start, duration = np.array(spans, np.int64).reshape(-1, 2).T
    return Union.of(start, start + duration)


def _moments(spans: Spans) -> set[int]:
    return {moment for start, duration in spans for moment in range(start, start + duration)}


def _covered(union: Union) -> set[int]:
    return {moment for start, end in zip(union.start, union.end, strict=True) for moment in range(start, end)}


@given(SPANS)
def test_a_union_covers_each_moment_once(spans: Spans) -> None:
    union = _union(spans)
    assert (_covered(union), union.total_ns) == (_moments(spans), len(_moments(spans)))
    assert (union.start[1:] > union.end[:-1]).all()


@given(SPANS, SPANS)
def test_overlap_and_difference(left: Spans, right: Spans) -> None:
    assert _covered(_union(left).overlap(_union(right))) == _moments(left) & _moments(right)
    assert _covered(_union(left).minus(_union(right))) == _moments(left) - _moments(right)


@given(SPANS, st.integers(0, 80), st.integers(0, 80))
def test_gaps_and_covered_time_fill_a_window(spans: Spans, start: int, length: int) -> None:
    union, window = _union(spans), set(range(start, start + length))
    assert _covered(union.gaps(start, start + length)) == window - _moments(spans)
    assert union.within(np.array([start]), np.array([start + length]))[0] == len(window & _moments(spans))
    assert _covered(union.clip(start, start + length)) == window & _moments(spans)


@given(SPANS, st.integers(-1000, 1000))
def test_busy_time_depends_on_no_origin(spans: Spans, shift: int) -> None:
    assert _union([(start + shift, duration) for start, duration in spans]).total_ns == _union(spans).total_ns


@given(SPANS)
def test_first_covers_cut_intervals_into_their_union(spans: Spans) -> None:
    start, duration = np.array(spans, np.int64).reshape(-1, 2).T
    begun, ended, number = first_covers(start, start + duration)
    assert _covered(Union(begun, ended)) == _moments(spans)
    assert (ended - begun).sum() == len(_moments(spans))
    assert (begun >= start[number]).all()
    assert (ended <= (start + duration)[number]).all()
