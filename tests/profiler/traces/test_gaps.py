"""Gaps between two forwards of a sampling loop."""

from profiler.traces.gaps import phase_gaps_ns
from tests.support.traces import Row, attributed, kernel, launch, op, phase, step


def _launched(name: str, start: int, end: int, at: int) -> tuple[Row, Row]:
    return launch(start + 1, at), kernel(name, start, end, correlation=start + 1)


def test_gaps_are_idle_time_between_two_forwards() -> None:
    found = attributed(
        *(step(0, 180), step(190, 300), phase("forward", 1, 4), phase("forward", 10, 14), phase("forward", 20, 24)),
        *(phase("forward", 195, 199), *_launched("a", 2, 12, 2), *_launched("b", 17, 22, 3)),  # in a forward: no gap
        *(*_launched("s", 30, 34, 6), *_launched("s", 32, 36, 7)),  # the sampler works for 6 of 28
        *(*_launched("a", 50, 60, 11), *_launched("s", 61, 62, 16), *_launched("a", 70, 75, 21)),
        *_launched("a", 200, 201, 196),  # another image
    )
    assert phase_gaps_ns(found.traced, 0).tolist() == [28 - 6, 10 - 1]


def test_a_cpu_has_no_gaps() -> None:
    assert phase_gaps_ns(attributed(step(0, 9), phase("forward", 0, 9), op("aten::mm", 1, 5)).traced, 0).tolist() == []
