"""Alignment: what ran with what Inductor said it made, by name and order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.traces.alignment import Call, align, call_name, common

CALLS: list[Call] = [("triton_0", [0, 1]), ("convolution", [0]), ("triton_1", [1]), ("mm", [2]), ("mm", [3])]


@pytest.mark.parametrize(
    ("inductors", "traces"),
    [
        ("extern_kernels.mm", "aten::mm"),
        ("extern_kernels.bias_addmm", "aten::addmm"),
        ("torch.ops.aten.convolution_backward.default", "aten::convolution_backward"),
        ("torch.ops.xformers_flash.flash_fwd.default", "xformers_flash::flash_fwd"),
        ("triton_poi_fused_add_3", "triton_poi_fused_add_3"),
        ("cpp_fused_add_3", "graph_12_cpp_fused_add_3"),
    ],
)
def test_inductor_and_the_trace_call_one_thing_by_one_word(inductors: str, traces: str) -> None:
    assert call_name(inductors) == call_name(traces)


def test_a_fused_kernel_belongs_to_what_contains_all_its_modules() -> None:
    assert common(["a.b.conv", "a.b.norm"]) == "a.b"
    assert common(["a.b.conv", "a.b"]) == "a.b"
    assert common(["a.b", "a.bc"]) == "a"
    assert common(["a", "b"]) == ""
    assert common(["a.b", ""]) == ""


def test_the_kth_call_of_a_name_is_the_kth_that_inductor_made() -> None:
    names = ["triton_0", "convolution", "empty", "triton_1", "mm", "mm"]
    assert align(names, CALLS) == [{0, 1}, {0}, {0, 1}, {1}, {2}, {3}]


def test_kernels_between_two_certain_ones_belong_to_the_calls_between_them() -> None:
    """A replayed graph shows the kernels of library calls, not the calls."""
    assert align(["triton_0", "cudnn", "triton_1", "gemm_a", "gemm_b"], CALLS) == [{0, 1}, {0}, {1}, {2}, {3}]
    assert align(["triton_0", "nchwToNhwc", "cudnn", "triton_1", "gemm"], CALLS)[1:] == [{0}, {0}, {1}, {2, 3}]


def test_what_inductor_is_silent_about_belongs_to_the_calls_around_it() -> None:
    calls = CALLS[1:4]  # convolution, triton_1, mm
    ran = ["copy", "convolution", "triton_silent", "sum", "triton_1", "triton_silent", "mm", "copy"]
    assert align(ran, calls) == [set(), {0}, {0, 1}, {0, 1}, {1}, {1, 2}, {2}, set()]
    assert align(["triton_0", "triton_silent", "cudnn", "triton_1"], CALLS[:3]) == [{0, 1}, {0, 1}, {0}, {1}]


def test_another_order_or_other_code_is_nobodys() -> None:
    assert align(["triton_1", "convolution", "triton_0"], CALLS) == [set()] * 3
    assert align(["aten::copy_"], CALLS) == [set()]


def test_a_triton_kernel_of_which_a_call_was_lost_belongs_to_its_own_calls() -> None:
    calls: list[Call] = [("mm", [0]), ("triton_0", [1]), ("triton_0", [2]), ("triton_1", [3])]
    assert align(["mm", "triton_0", "triton_1"], calls) == [{0}, {1, 2}, {3}]


@given(st.lists(st.sampled_from(["triton_0", "triton_1", "mm", "conv"]), min_size=1), st.data())
def test_a_call_never_gets_a_module_of_another_one(made: list[str], data: st.DataObject) -> None:
    """Whatever of the calls a trace lost: what remains gets its own module, or it among others, or none."""
    calls: list[Call] = [(name, [number]) for number, name in enumerate(made)]
    lost = data.draw(st.sets(st.sampled_from(range(len(made)))))
    kept = [number for number in range(len(made)) if number not in lost]
    for number, served in zip(kept, align([made[number] for number in kept], calls), strict=True):
        assert not served or number in served
    assert align(made, calls) == [{number} for number in range(len(made))]
