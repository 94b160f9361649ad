"""Timeline: every byte has a category, and what is freed goes where it came from."""

from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.attribute import attribute
from profiler.traces.read import read_trace
from profiler.traces.timeline import CATEGORIES, Point, build_timeline
from tests.support.traces import SDPA, Row, allocation, attributed, op, phase, step

TRAINING = (step(0, 300), phase("forward", 0, 100), phase("backward", 100, 200), phase("optimizer", 200, 300))


def timeline(
    *rows: Row,
    known: Mapping[str, Mapping[int, int]] | None = None,
    gradients: Iterable[int] = (),
    on_gpu: bool = True,
) -> list[Point]:
    found = attributed(*TRAINING, *rows)
    return build_timeline(found, known=known or {}, gradients=gradients, on_gpu=on_gpu)


def _alive(point: Point) -> dict[str, int]:
    return {name: size for name, size in point.alive.items() if size}


def test_what_was_there_before_the_step_is_its_first_point() -> None:
    points = timeline(known={"parameters": {1: 100, 2: 50}, "other": {3: 7}})
    assert [(p.time_ns, _alive(p), p.total) for p in points] == [(0, {"parameters": 150, "other": 7}, 157)]
    assert set(points[0].alive) == set(CATEGORIES)


def test_forward_keeps_activations_and_the_backward_frees_them() -> None:
    points = timeline(allocation(1, 64, 10), allocation(1, -64, 150))
    assert [_alive(p) for p in points] == [{}, {"activations": 64}, {}]


def test_gradients_are_told_by_their_address_at_the_end_of_backward() -> None:
    points = timeline(allocation(1, 64, 110), allocation(2, 32, 120), gradients={1})
    assert _alive(points[-1]) == {"gradients": 64, "other": 32}


def test_a_temporary_that_had_a_gradients_address_before_is_other() -> None:
    points = timeline(allocation(1, 8, 110), allocation(1, -8, 120), allocation(1, 64, 130), gradients={1})
    assert [_alive(p) for p in points] == [{}, {"other": 8}, {}, {"gradients": 64}]


def test_what_an_operator_frees_itself_is_workspace() -> None:
    convolution = op("aten::convolution", 10, 40)
    points = timeline(convolution, op("aten::empty", 11, 13), allocation(1, 64, 12), allocation(1, -64, 30))
    assert [_alive(p) for p in points] == [{}, {"workspace": 64}, {}]


def test_what_the_optimizer_asks_for_is_other() -> None:
    assert _alive(timeline(allocation(1, 64, 210))[-1]) == {"other": 64}


def test_the_release_of_something_unnamed_changes_nothing() -> None:
    assert len(timeline(allocation(99, -64, 10))) == 1


def test_other_devices_and_times_outside_the_step_do_not_count() -> None:
    points = timeline(allocation(1, 64, 10, device=0), allocation(2, 64, 999), allocation(3, 5, 20, reserved=77))
    assert [(p.time_ns, p.total, p.reserved) for p in points] == [(0, 0, 77), (20, 5, 77)]


def test_a_cpu_has_no_reserve() -> None:
    points = timeline(allocation(1, 64, 10, device=0), on_gpu=False)
    assert [(p.total, p.reserved) for p in points] == [(0, None), (64, None)]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 100), st.integers(1, 299)), max_size=15))
def test_the_total_is_what_is_alive_by_hand(requests: list[tuple[int, int, int]]) -> None:
    """Blocks are asked for and, where the address is in use, first given back, in order of time."""
    open_blocks: dict[int, int] = {}
    events, totals = [], [0]
    for address, size, moment in sorted(requests, key=lambda request: request[2]):
        if address in open_blocks:
            size = -open_blocks.pop(address)
        else:
            open_blocks[address] = size
        events.append(allocation(address, size, moment))
        totals.append(sum(open_blocks.values()))
    assert [p.total for p in timeline(*events)] == totals


def test_a_recorded_step_ends_with_what_it_returns() -> None:
    """SD1.5 at batch 2 in bf16: beside the weights the forward leaves its output, and its peak is far below 1 GiB."""
    points = build_timeline(attribute(read_trace(SDPA)), known={}, gradients=(), on_gpu=True)
    assert 0 < max(p.total for p in points) < 2**28
    assert points[-1].total < 2**20
    assert all(p.reserved for p in points)
