"""Timeline: every byte has a category, and what is freed goes where it came from."""

from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.alive import alive_table
from profiler.traces.attribute import attribute
from profiler.traces.read import read_trace
from profiler.traces.timeline import CATEGORIES, Point, Timeline, build_timeline
from tests.support.traces import SDPA, Row, allocation, attributed, module, op, phase, step

TRAINING = (step(0, 300), phase("forward", 0, 100), phase("backward", 100, 200), phase("optimizer", 200, 300))


def timeline(
    *rows: Row,
    known: Mapping[str, Mapping[int, int]] | None = None,
    gradients: Iterable[int] = (),
    on_gpu: bool = True,
) -> list[Point]:
    return whole(*rows, known=known, gradients=gradients, on_gpu=on_gpu).points


def whole(
    *rows: Row,
    known: Mapping[str, Mapping[int, int]] | None = None,
    gradients: Iterable[int] = (),
    owners: Mapping[int, str] | None = None,
    on_gpu: bool = True,
) -> Timeline:
    found = attributed(*TRAINING, *rows)
    return build_timeline(found, known=known or {}, gradients=gradients, on_gpu=on_gpu, owners=owners)


def _at(found: Timeline, moment: str) -> list[tuple[str, str | None, str | None, int, int]]:
    rows = [row for row in alive_table(found).to_pylist() if row["moment"] == moment]
    return [tuple(row[name] for name in ("category", "module", "block", "bytes", "num_storages")) for row in rows]


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


def test_on_a_cpu_the_release_of_something_unnamed_changes_nothing() -> None:
    points = timeline(allocation(99, -64, 10, device=0), on_gpu=False)
    assert [_alive(p) for p in points] == [{}, {}]


def test_on_a_gpu_what_nobody_named_is_other_until_it_is_released() -> None:
    """130 bytes were given out before the first event, 100 of them are parameters."""
    first, second = allocation(7, 10, 20, total=140), allocation(99, -20, 30, total=120)
    points = timeline(first, second, known={"parameters": {1: 100}})
    weights = {"parameters": 100}
    assert [_alive(p) for p in points] == [
        weights | {"other": 30},
        weights | {"other": 30, "activations": 10},
        weights | {"other": 10, "activations": 10},
    ]


def test_the_release_of_a_known_storage_takes_it_away() -> None:
    points = timeline(allocation(1, -64, 10), known={"other": {1: 60, 2: 5}})
    assert [_alive(p) for p in points] == [{"other": 65}, {"other": 5}]


def test_what_recomputation_asks_for_is_an_activation() -> None:
    points = timeline(phase("recompute", 110, 130), allocation(1, 64, 120), allocation(2, 32, 140))
    assert _alive(points[-1]) == {"activations": 64, "other": 32}


CONV, NORM = "down_blocks.0.resnets.1.conv1", "mid_block.attentions.0.norm"


def test_the_peak_is_told_by_category_and_module() -> None:
    found = whole(
        *(module(CONV, 10, 40), op("aten::convolution", 11, 30), allocation(10, 64, 12), allocation(11, 8, 13)),
        *(allocation(11, -8, 14), module(NORM, 50, 60), allocation(12, 32, 55), allocation(13, 16, 120)),
        *(allocation(13, -16, 130), allocation(20, 128, 140), allocation(10, -64, 150)),
        known={"parameters": {1: 100, 2: 50}},
        gradients={20},
        owners={1: CONV, 2: CONV, 20: NORM},
    )
    assert found.points[found.peak].time_ns == 140
    assert _at(found, "peak") == [
        ("parameters", CONV, "down.0", 150, 2),
        ("gradients", NORM, "mid", 128, 1),
        ("activations", CONV, "down.0", 64, 1),
        ("activations", NORM, "mid", 32, 1),
    ]
    assert _at(found, "forward_end") == [
        ("parameters", CONV, "down.0", 150, 2),
        ("activations", CONV, "down.0", 64, 1),
        ("activations", NORM, "mid", 32, 1),
    ]
    assert found.activations == 96


def test_a_step_without_a_backward_has_no_end_of_forward() -> None:
    found = attributed(step(0, 100), phase("forward", 0, 100), allocation(1, 64, 10), allocation(1, -64, 50))
    line = build_timeline(found, known={}, gradients=(), on_gpu=True)
    assert (line.forward_end, line.activations) == (None, 64)
    assert _at(line, "peak") == [("activations", None, None, 64, 1)]


def test_a_step_that_asks_for_nothing_has_its_standing_memory() -> None:
    line = whole(known={"parameters": {1: 8}}, on_gpu=False)
    assert _at(line, "peak") == [("parameters", None, None, 8, 1)]


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
    line = whole(*events)
    assert [p.total for p in line.points] == totals
    assert sum(row[3] for row in _at(line, "peak")) == max(totals) == line.peak_bytes
    assert sum(row[3] for row in _at(line, "forward_end")) == line.points[line.forward_end or 0].total


def test_a_recorded_step_ends_with_what_it_returns() -> None:
    """SD1.5 at batch 2 in bf16: beside the weights the forward leaves its output, and its peak is far below 1 GiB."""
    found = attribute(read_trace(SDPA))
    line = build_timeline(found, known={}, gradients=(), on_gpu=True)
    before, points = line.points[0].total, line.points
    assert 0 < line.peak_bytes - before < 2**28
    assert points[-1].total - before < 2**20
    assert all(p.reserved for p in points)
    events = found.trace.allocations.take(found.trace.allocations.device_type == 1)
    assert [p.total for p in points[1:]] == events.total_allocated[: len(points) - 1].tolist()
