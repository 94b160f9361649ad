"""Comparison: parts sum exactly to the difference in wall time, whatever the kernels are called."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.traces.attribute import attribute
from profiler.traces.compare import Profile, matrix, profile_of, shorten, waterfall_by_class, waterfall_by_place
from profiler.traces.read import read_trace
from tests.support.traces import (
    CHANNELS_LAST,
    COMPILED,
    EAGER,
    RECORDED,
    SDPA,
    TRAIN,
    Row,
    attributed,
    kernel,
    launch,
    module,
    op,
    phase,
    step,
)

PROFILES = {file: profile_of(attribute(read_trace(file))) for file in RECORDED}


@pytest.mark.parametrize(("before", "after"), [(EAGER, SDPA), (EAGER, COMPILED), (SDPA, CHANNELS_LAST), (TRAIN, EAGER)])
def test_recorded_traces_differ_by_the_sum_of_their_parts(before: Path, after: Path) -> None:
    first, second = PROFILES[before], PROFILES[after]
    for fall in (waterfall_by_class(first, second), waterfall_by_place(first, second)):
        assert fall.before_ns + sum(fall.changes.values()) == fall.after_ns == second.wall_ns
        assert 0 not in fall.changes.values()


def test_from_math_to_compiled_the_products_win_most() -> None:
    changes = waterfall_by_class(PROFILES[EAGER], PROFILES[COMPILED]).changes
    assert list(changes)[:3] == ["conv", "gemm", "attention"]


def test_without_modules_a_comparison_falls_to_classes_and_says_so() -> None:
    fall = waterfall_by_place(PROFILES[EAGER], PROFILES[COMPILED])
    assert fall.note == "no module names in the first and the second trace: cut by class and phase"
    assert "conv, forward" in fall.changes


def test_a_matrix_of_runs_has_columns_that_sum_to_each_wall_time() -> None:
    table = matrix({file.name: profile for file, profile in PROFILES.items()})
    for file, profile in PROFILES.items():
        assert sum(table[file.name].to_pylist()) == profile.wall_ns


def _step(kernels: list[tuple[str, int]]) -> Profile:
    """Kernels named by the module that launches each, back to back."""
    rows: list[Row] = [step(0, 2000), phase("forward", 0, 990)]
    at = 1000
    for number, (path, duration) in enumerate(kernels, 1):
        begin = number * 20
        rows += [module(path, begin, begin + 10), op("aten::mm", begin + 1, begin + 9), launch(number, begin + 2)]
        rows += [kernel(f"nvjet_{number}_{duration}", at, at + duration, correlation=number)]
        at += duration
    return profile_of(attributed(*rows))


PATHS = st.sampled_from(["down_blocks.0.attentions.1", "down_blocks.0.resnets.0", "mid_block.resnets.0", "conv_in"])
KERNELS = st.lists(st.tuples(PATHS, st.integers(1, 50)), min_size=1, max_size=8)


@settings(max_examples=30)
@given(KERNELS, KERNELS)
def test_a_waterfall_by_module_sums_exactly(left: list[tuple[str, int]], right: list[tuple[str, int]]) -> None:
    before, after = _step(left), _step(right)
    fall = waterfall_by_place(before, after)
    assert fall.note == ""
    assert fall.before_ns + sum(fall.changes.values()) == fall.after_ns
    expected = sum(ns for path, ns in right if path.startswith("down")) - sum(
        ns for path, ns in left if path.startswith("down")
    )
    assert fall.changes.get("down_blocks.0, forward", 0) == expected


def test_of_several_steps_the_median_one_is_compared() -> None:
    rows = [step(0, 10), step(20, 50), step(60, 75), op("aten::mm", 1, 2)]
    assert profile_of(attributed(*rows)).wall_ns == 15


def test_a_trace_without_steps_has_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no step to compare"):
        profile_of(attributed())


def test_names_are_shortened_by_their_own_separator() -> None:
    assert [shorten(path, 2) for path in ("a.b.c", "A_0/B_1/C_2", "conv_in")] == ["a.b", "A_0/B_1", "conv_in"]
