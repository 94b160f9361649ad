"""Attribution: each kernel to the operator, phase and step that launched it."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.attribute import Kernel, attribute, busy_ns, gaps_ns
from profiler.traces.parse import read_events
from tests.support.traces import CHANNELS_LAST, SDPA, event, in_order, kernel, launch, op, phase, step

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12)


@given(INTERVALS)
def test_busy_time_is_the_union_of_intervals(intervals: list[tuple[int, int]]) -> None:
    covered = {moment for start, duration in intervals for moment in range(start, start + duration)}
    assert busy_ns(intervals) == len(covered)


@given(INTERVALS, st.integers(-1000, 1000), st.randoms(use_true_random=False))
def test_busy_time_depends_on_no_order_or_origin(intervals: list[tuple[int, int]], shift: int, random: object) -> None:
    moved = [(start + shift, duration) for start, duration in intervals]
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert busy_ns(moved) == busy_ns(intervals)


def test_a_kernel_belongs_to_the_operator_named_by_its_external_id() -> None:
    found = attribute(
        in_order(
            step(0, 100),
            op("aten::linear", 10, 30, external=1),
            op("aten::addmm", 12, 20, external=2),
            launch(5, 14),
            kernel("gemm", 60, 70, correlation=5, external=1),
        )
    )
    assert [(k.op, k.start_ns, k.duration_ns, k.stream) for k in found.kernels] == [("aten::linear", 60, 10, 7)]


def test_without_an_id_the_innermost_open_operator_of_the_launching_thread_counts() -> None:
    found = attribute(
        in_order(
            step(0, 100),
            op("aten::linear", 10, 30),
            op("aten::addmm", 12, 20),
            op("aten::other_thread", 13, 19, thread=2),
            launch(5, 14),
            launch(6, 25),
            launch(8, 16, thread=2),
            kernel("gemm", 60, 70, correlation=5),
            kernel("bias", 70, 75, correlation=6),
            kernel("third", 75, 76, correlation=8),
        )
    )
    assert {k.name: k.op for k in found.kernels} == {
        "gemm": "aten::addmm",
        "bias": "aten::linear",
        "third": "aten::other_thread",
    }
    assert {o.event.name: o.device_self_ns for o in found.ops} == {
        "aten::linear": 5,
        "aten::addmm": 10,
        "aten::other_thread": 1,
    }


def test_the_phase_is_that_of_the_launch_not_of_the_run() -> None:
    found = attribute(
        in_order(
            step(0, 100),
            phase("forward", 0, 20),
            phase("backward", 20, 90),
            launch(1, 10),
            kernel("late", 50, 60, correlation=1),
        )
    )
    assert [(k.phase, k.step) for k in found.kernels] == [("forward", 0)]


def test_times_start_with_the_first_step_and_outsiders_are_left_out() -> None:
    found = attribute(
        in_order(
            step(100, 200),
            step(300, 400),
            launch(1, 110),
            launch(2, 310),
            launch(3, 250),
            op("aten::outside", 240, 260),
            kernel("first", 150, 160, correlation=1),
            kernel("second", 350, 360, correlation=2),
            kernel("between", 255, 260, correlation=3),
            kernel("copy", 380, 381, kind="gpu_memcpy"),
        )
    )
    assert found.origin_ns == 100
    assert [(k.name, k.step, k.start_ns) for k in found.kernels] == [
        ("first", 0, 50),
        ("second", 1, 250),
        ("copy", 1, 280),
    ]
    assert found.ops == ()
    assert found.launches == ("cudaLaunchKernel",) * 2


def test_an_operators_own_time_is_without_its_children() -> None:
    found = attribute(in_order(step(0, 100), op("outer", 0, 50), op("a", 5, 15), op("b", 15, 30), op("deep", 16, 20)))
    assert {o.event.name: o.self_ns for o in found.ops} == {"outer": 25, "a": 10, "b": 11, "deep": 4}


def test_on_a_cpu_self_times_stand_for_kernels_and_add_up() -> None:
    linear, product = op("aten::linear", 105, 130), op("aten::addmm", 106, 130)
    found = attribute(in_order(step(100, 200), phase("forward", 100, 190), linear, product, op("aten::t", 105, 106)))
    assert [(k.name, k.start_ns, k.duration_ns, k.category, k.op, k.phase, k.stream) for k in found.kernels] == [
        ("aten::t", 5, 1, "gemm", "aten::linear", "forward", None),
        ("aten::addmm", 6, 24, "gemm", "aten::linear", "forward", None),
    ]
    assert sum(k.duration_ns for k in found.kernels) == linear.duration_ns
    assert found.ops[0].device_self_ns is None


def test_a_foreign_trace_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no steplens.step range"):
        attribute([event("user_annotation", "ProfilerStep#1", 0, 10)])


# Measured by the run that recorded each trace: kernels per step, and the union of their times in ms.
@pytest.mark.parametrize(("trace", "num_kernels", "busy_ms"), [(SDPA, 1176, 12.069), (CHANNELS_LAST, 1143, 10.005)])
class TestRecordedTrace:
    def test_every_kernel_is_attributed(self, trace: Path, num_kernels: int, busy_ms: float) -> None:
        kernels = attribute(read_events(trace)).kernels
        assert len(kernels) == num_kernels
        assert [k.name for k in kernels if k.op is None or k.phase != "forward"] == []

    def test_the_busy_time_is_the_recorded_one(self, trace: Path, num_kernels: int, busy_ms: float) -> None:
        kernels = attribute(read_events(trace)).kernels
        assert busy_ns((k.start_ns, k.duration_ns) for k in kernels) / 1e6 == pytest.approx(busy_ms, abs=5e-4)

    def test_operators_and_kernels_sum_to_the_same(self, trace: Path, num_kernels: int, busy_ms: float) -> None:
        found = attribute(read_events(trace))
        assert sum(o.device_self_ns or 0 for o in found.ops) == sum(k.duration_ns for k in found.kernels)
        assert all(o.self_ns >= -2 for o in found.ops)  # a double holds today's microseconds to one nanosecond

    def test_nearly_nothing_is_of_category_other(self, trace: Path, num_kernels: int, busy_ms: float) -> None:
        times: Counter[str] = Counter()
        for k in attribute(read_events(trace)).kernels:
            times[k.category] += k.duration_ns
        assert times["other"] <= 0.02 * times.total()
        assert all(times[name] > 0.05 * times.total() for name in ("attention", "conv", "gemm", "norm", "elementwise"))

    def test_all_32_attention_layers_run_the_fused_kernel(self, trace: Path, num_kernels: int, busy_ms: float) -> None:
        kernels = attribute(read_events(trace)).kernels
        assert sum(k.category == "attention" and "native_sdpa" in k.name for k in kernels) == 32


def _kernel(start: int, duration: int, phase: str | None, step: int = 0, stream: int | None = 7) -> Kernel:
    return Kernel(step, start, duration, "k", "other", stream, None, None, phase)


def test_gaps_are_idle_time_between_two_forwards() -> None:
    loop = [
        *(_kernel(0, 10, "forward"), _kernel(15, 5, "forward")),  # a gap inside a forward is another matter
        *(_kernel(30, 4, None), _kernel(32, 4, None)),  # the sampler works for 6 of 30
        *(_kernel(50, 10, "forward"), _kernel(61, 1, None), _kernel(70, 5, "forward")),
        *(_kernel(200, 1, "forward", step=1),),  # another image
    ]
    assert gaps_ns(loop, "forward") == [30 - 6, 10 - 1]
    assert gaps_ns([_kernel(0, 1, "forward", stream=None)], "forward") == []
