"""Attribution: each kernel to the operator, phase, step and module that launched it."""

from dataclasses import replace
from pathlib import Path

import pytest

from profiler.traces.attribute import attribute
from profiler.traces.classify import CATEGORIES
from profiler.traces.intervals import Union
from profiler.traces.modules import block_of
from profiler.traces.objects import Found, Kernel, Op
from profiler.traces.phases import find_phases
from profiler.traces.read import read_trace
from profiler.traces.windows import named
from tests.support.traces import (
    CHANNELS_LAST,
    EAGER,
    RECORDED,
    SDPA,
    TRAIN,
    Row,
    attributed,
    event,
    kernel,
    launch,
    module,
    op,
    phase,
    step,
)


def _kernels(*rows: Row) -> tuple[Kernel, ...]:
    return Found(attributed(*rows)).kernels


def _ops(*rows: Row) -> dict[str, Op]:
    return {op.event.name: op for op in Found(attributed(*rows)).ops}


def test_a_kernel_belongs_to_the_operator_named_by_its_external_id() -> None:
    (found,) = _kernels(
        step(0, 100),
        op("aten::linear", 10, 30, external=1),
        op("aten::addmm", 12, 20, external=2),
        launch(5, 14),
        kernel("gemm", 60, 70, correlation=5, external=1),
    )
    assert (found.op, found.start_ns, found.duration_ns, found.stream) == ("aten::linear", 60, 10, 7)


@pytest.mark.parametrize("call", ["cudaLaunchKernel", "cuLaunchKernelEx", "hipLaunchKernel"])
def test_without_an_id_the_innermost_open_operator_of_the_launching_thread_counts(call: str) -> None:
    rows = (
        step(0, 100),
        op("aten::linear", 10, 30),
        op("aten::addmm", 12, 20),
        op("aten::other_thread", 13, 19, thread=2),
        launch(5, 14, name=call),
        launch(6, 25, name=call),
        launch(8, 16, thread=2, name=call),
        kernel("gemm", 60, 70, correlation=5),
        kernel("bias", 70, 75, correlation=6),
        kernel("third", 75, 76, correlation=8),
    )
    assert {k.name: k.op for k in _kernels(*rows)} == {
        "gemm": "aten::addmm",
        "bias": "aten::linear",
        "third": "aten::other_thread",
    }
    device_ns = {name: one.device_self_ns for name, one in _ops(*rows).items()}
    assert device_ns == {"aten::linear": 5, "aten::addmm": 10, "aten::other_thread": 1}


def test_what_nobody_launched_is_unattributed_and_stays() -> None:
    found = _kernels(step(0, 100), op("aten::mm", 0, 50), kernel("lost", 20, 30, correlation=3))
    assert [(k.name, k.op, k.step) for k in found] == [("lost", None, 0)]


def test_a_replayed_graph_has_no_operator_to_name_its_kernels_by() -> None:
    found = _kernels(
        step(0, 100),
        op("aten::convolution", 0, 50),
        launch(3, 10, name="cudaGraphLaunch"),
        kernel("sm90_gemm", 20, 30, correlation=3),
        kernel("flash_fwd", 30, 40, correlation=3),
    )
    assert [(k.name, k.category) for k in found] == [("sm90_gemm", "gemm"), ("flash_fwd", "attention")]


def test_the_phase_is_that_of_the_launch_not_of_the_run() -> None:
    (found,) = _kernels(
        *(step(0, 100), phase("forward", 0, 20), phase("backward", 21, 90)),
        *(launch(1, 10), kernel("late", 50, 60, correlation=1)),
    )
    assert (found.phase, found.step) == ("forward", 0)


def test_times_start_with_the_first_step_and_outsiders_are_left_out() -> None:
    rows = (
        *(step(100, 200), step(300, 400), launch(1, 110), launch(2, 310), launch(3, 250)),
        op("aten::outside", 240, 260),
        kernel("first", 150, 160, correlation=1),
        kernel("second", 350, 360, correlation=2),
        kernel("between", 255, 260, correlation=3),
        kernel("copy", 380, 381, kind="gpu_memcpy"),
    )
    found = Found(attributed(*rows))
    assert [(k.name, k.step, k.start_ns) for k in found.kernels] == [
        ("first", 0, 50),
        ("second", 1, 250),
        ("copy", 1, 280),
    ]
    assert found.ops == ()
    assert found.launches == ("cudaLaunchKernel",) * 2


def test_a_trace_without_steps_is_one_step() -> None:
    found = attributed(op("aten::mm", 5, 9), launch(1, 6), kernel("gemm", 20, 30, correlation=1))
    assert (found.num_steps, found.steps.start_ns[0], found.steps.end_ns[0]) == (1, 5, 30)
    assert attributed(step(0, 9, "ProfilerStep#3"), step(9, 20, "ProfilerStep#4")).num_steps == 2
    assert attributed().num_steps == 0


def test_an_operators_own_time_is_without_its_children() -> None:
    found = _ops(step(0, 100), op("outer", 0, 50), op("a", 5, 15), op("b", 15, 30), op("deep", 16, 20))
    assert {name: one.self_ns for name, one in found.items()} == {"outer": 25, "a": 10, "b": 11, "deep": 4}
    assert found["deep"].parent is found["b"]


def test_on_a_cpu_self_times_stand_for_kernels_and_add_up() -> None:
    linear, product = op("aten::linear", 105, 130), op("aten::addmm", 106, 130)
    rows = (step(100, 200), phase("forward", 100, 190), linear, product, op("aten::t", 105, 106))
    found = _kernels(*rows)
    assert [(k.name, k.start_ns, k.duration_ns, k.category, k.op, k.phase, k.stream) for k in found] == [
        ("aten::t", 5, 1, "gemm", "aten::linear", "forward", None),
        ("aten::addmm", 6, 24, "gemm", "aten::linear", "forward", None),
    ]
    assert sum(k.duration_ns for k in found) == 25
    assert _ops(*rows)["aten::t"].device_self_ns is None


ENGINE = "autograd::engine::evaluate_function: "
BACKWARD = (
    # Two threads count for themselves: number 7 of thread 1 is logical thread 1's, number 7 of thread 2 is another.
    op("aten::linear", 10, 30, sequence=7, forward_thread=0),
    op("aten::addmm", 12, 20, sequence=7, forward_thread=0),
    op("aten::conv2d", 12, 20, sequence=7, forward_thread=0, thread=2),
    op("aten::relu", 31, 40, sequence=8, forward_thread=0),
    op(ENGINE + "ReluBackward0", 50, 60, sequence=8, forward_thread=1, thread=9),
    op(ENGINE + "AddmmBackward0", 60, 80, sequence=7, forward_thread=1, thread=9),
    op("AddmmBackward0", 61, 79, sequence=7, forward_thread=1, thread=9),
    op("aten::mm", 62, 70, thread=9),
)


def test_backward_operators_know_their_forward_one_and_its_module() -> None:
    found = _ops(module("", 0, 45), module("down_blocks.0.proj", 9, 30), *BACKWARD)
    assert {name: one.phase for name, one in found.items() if one.event.thread == 9} == dict.fromkeys(
        [ENGINE + "ReluBackward0", ENGINE + "AddmmBackward0", "AddmmBackward0", "aten::mm"], "backward"
    )
    assert (found["aten::mm"].module, found["aten::addmm"].module) == ("down_blocks.0.proj",) * 2
    assert found[ENGINE + "ReluBackward0"].module == "(root)"
    assert found["aten::linear"].phase == "forward"


def test_forwards_inside_of_a_backward_node_are_recomputed() -> None:
    again = (
        op("aten::addmm", 62, 66, sequence=3, forward_thread=0, thread=9),
        op("aten::view", 66, 67, thread=9),  # makes no node, and lies between two that do
        op("aten::gelu", 67, 70, sequence=4, forward_thread=0, thread=9),
        op("aten::mul", 72, 75, thread=9),
    )
    found = _ops(*BACKWARD[:-1], *again)
    phases = {name: found[name].phase for name in ("aten::addmm", "aten::view", "aten::gelu", "aten::mul")}
    assert phases == {**dict.fromkeys(phases, "recompute"), "aten::mul": "backward"}


def test_stacks_name_modules_by_class_and_number() -> None:
    calls = [
        event("python_function", f"nn.Module: {n}", *t) for n, t in (("UNet_0", (0, 90)), ("DownBlock2D_1", (5, 40)))
    ]
    assert _ops(*calls, op("aten::mm", 10, 20))["aten::mm"].module == "UNet_0/DownBlock2D_1"


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("down_blocks.0.attentions.1.proj_in", "down.0"),
        ("up_blocks.3.resnets.2", "up.3"),
        ("mid_block.resnets.0", "mid"),
        ("conv_in", "conv_in"),
        ("time_embedding.linear_1", "time_embedding"),
        ("UNet2DConditionModel_0/CrossAttnDownBlock2D_2/ResnetBlock2D_0", "down.CrossAttnDownBlock2D_2"),
        ("UNet2DConditionModel_0/UNetMidBlock2DCrossAttn_0", "mid"),
        ("(root)", ""),
    ],
)
def test_a_module_has_its_block(path: str, block: str) -> None:
    assert block_of(path) == block


# Measured by the run that recorded each trace: kernels per step, and the union of their times in ms.
@pytest.mark.parametrize(("trace", "num_kernels", "busy_ms"), [(SDPA, 1176, 12.069), (CHANNELS_LAST, 1143, 10.005)])
def test_a_recorded_trace_has_the_recorded_kernels(trace: Path, num_kernels: int, busy_ms: float) -> None:
    found = attribute(read_trace(trace))
    work = found.traced
    assert len(work) == num_kernels
    assert (work.op >= 0).all()
    assert {found.phases.names[code] for code in work.phase} == {"forward"}
    assert Union.of(work.start_ns, work.end_ns).total_ns / 1e6 == pytest.approx(busy_ms, abs=5e-4)
    assert found.op_device_ns.sum() == work.duration_ns.sum()
    native = [k for k in Found(found).kernels if k.category == "attention" and "native_sdpa" in k.name]
    assert len(native) == 32  # attention layers of the UNet


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.parent.name[-13:])
def test_at_least_98_percent_of_kernel_time_has_an_operator(file: Path) -> None:
    work = attribute(read_trace(file)).traced
    assert work.duration_ns[work.op >= 0].sum() >= 0.98 * work.duration_ns.sum()
    other = work.duration_ns[work.category == CATEGORIES.index("other")].sum()
    assert other <= 0.02 * work.duration_ns.sum()


@pytest.mark.parametrize("file", [TRAIN, EAGER], ids=["train", "eager"])
def test_phases_that_autograd_tells_are_those_that_ranges_name(file: Path) -> None:
    found = attribute(read_trace(file))
    trace = found.trace
    foreign = trace.ranges.take(named(trace, trace.ranges, "Optimizer."))  # all that a stranger's trace has of ranges
    derived = find_phases(replace(trace, ranges=foreign), found.nesting)
    inside = found.op_step >= 0
    assert (derived.of_ops[inside] == found.phases.of_ops[inside]).mean() > 0.998
