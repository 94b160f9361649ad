"""Fragments: an allocator's history replayed, by hand count and against its invariants."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.fragments import MOST_ROWS, Moment, allocator_table, replay


def _segment(address: int, size: int, *blocks: tuple[int, int, int]) -> dict[str, Any]:
    """Blocks: address, size, bytes asked for (0: free)."""
    states = [
        {"address": at, "size": held, "requested_size": asked, "state": "active_allocated" if asked else "inactive"}
        for at, held, asked in blocks
    ]
    return {"address": address, "total_size": size, "blocks": states}


def _event(action: str, address: int, size: int, at_us: int) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "time_us": at_us}


# One segment of 2048 bytes: 500 of them asked for in a block of 512, the rest free.
BEFORE = [_segment(10_000, 2048, (10_000, 512, 500), (10_512, 1536, 0))]


def test_what_is_free_in_a_segment_in_use_is_stuck() -> None:
    assert replay(BEFORE, [], 0) == [Moment(0, requested=500, reserved=2048, stuck=1548)]


def test_a_step_is_replayed_event_by_event() -> None:
    events = [
        _event("alloc", 10_512, 1000, 101),
        _event("free_requested", 10_000, 500, 102),  # another stream may still use it
        _event("free_completed", 10_000, 500, 103),
        _event("segment_alloc", 50_000, 4096, 104),
        _event("alloc", 50_000, 4096, 105),
        _event("free_completed", 10_512, 1000, 106),
        _event("segment_free", 10_000, 2048, 107),
        _event("snapshot", 0, 0, 108),
    ]
    found = replay(BEFORE, events, start_us=100)
    assert [(one.time_ns, one.requested, one.reserved, one.stuck) for one in found] == [
        (0, 500, 2048, 1548),
        (1000, 1500, 2048, 548),
        (3000, 1000, 2048, 1048),
        (4000, 1000, 6144, 1048),  # a segment that nobody uses yet can go back whole
        (5000, 5096, 6144, 1048),
        (6000, 4096, 6144, 0),
        (7000, 4096, 4096, 0),
    ]


def test_pages_that_can_go_back_are_never_called_stuck() -> None:
    found = replay(BEFORE, [_event("segment_map", 90_000, 2048, 1), _event("alloc", 90_000, 100, 2)], 0)
    assert [(one.requested, one.reserved, one.stuck) for one in found] == [
        (500, 2048, None),
        (500, 4096, None),
        (600, 4096, None),
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 512)), max_size=60))
def test_requested_and_stuck_never_exceed_what_is_reserved(requests: list[tuple[int, int]]) -> None:
    """Four slots of 512 bytes in two segments; a slot in use is given back, a free one is asked for."""
    segments, in_use = [_segment(0, 1024), _segment(5000, 1024)], dict[int, int]()
    events = []
    for slot, size in requests:
        address = 5000 * (slot // 2) + 512 * (slot % 2)
        action = "free_completed" if slot in in_use else "alloc"
        in_use.pop(slot) if slot in in_use else in_use.update({slot: size})
        events.append(_event(action, address, size, len(events)))
    found = replay(segments, events, 0)
    assert found[-1].requested == sum(in_use.values())
    assert found[-1].stuck == 1024 * len({slot // 2 for slot in in_use}) - sum(in_use.values())
    assert all(one.requested + (one.stuck or 0) <= one.reserved == 2048 for one in found)


def test_the_table_keeps_the_peak_and_the_worst_fragmentation() -> None:
    moments = [Moment(at, requested=at % 997, reserved=2000, stuck=at % 991) for at in range(5000)]
    table = allocator_table(moments).to_pydict()
    assert len(table["time_ns"]) <= MOST_ROWS + 1
    assert (max(table["requested_bytes"]), max(table["stuck_bytes"])) == (996, 990)
    assert table["time_ns"] == sorted(table["time_ns"])
    assert allocator_table(moments[:3]).num_rows == 3
    assert allocator_table([]).num_rows == 0
