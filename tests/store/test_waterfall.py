"""Waterfall: parts sum exactly to the difference in wall time, whatever the kernels are called."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.traces.attribute import Attribution
from store import db, views
from tests.support.trace_views import recorded
from tests.support.traces import (
    CHANNELS_LAST,
    COMPILED,
    EAGER,
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
from tests.support.waterfalls import changes, wall_of, waterfall

CUTS = ("class", "place", "phase")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("before", "after"), [(EAGER, SDPA), (EAGER, COMPILED), (SDPA, CHANNELS_LAST), (TRAIN, EAGER)])
def test_recorded_traces_differ_by_the_sum_of_their_parts(cut: str, before: Path, after: Path) -> None:
    first, second = recorded(before), recorded(after)
    rows = waterfall(first, second, cut)
    assert rows["change_ns"].sum() == wall_of(second) - wall_of(first)
    assert (rows["after_ms"].sum(), rows["before_ms"].sum()) == pytest.approx(
        (wall_of(second) / 1e6, wall_of(first) / 1e6)
    )


def test_from_math_to_compiled_the_products_win_most() -> None:
    assert list(changes(waterfall(recorded(EAGER), recorded(COMPILED), "class")))[:3] == ["conv", "gemm", "attention"]


def test_a_cut_by_class_and_phase_needs_no_modules() -> None:
    assert "conv, forward" in changes(waterfall(recorded(EAGER), recorded(COMPILED), "phase"))


def _step(kernels: list[tuple[str, int]]) -> Attribution:
    """Kernels named by the module that launches each, back to back."""
    rows: list[Row] = [step(0, 2000), phase("forward", 0, 990)]
    at = 1000
    for number, (path, duration) in enumerate(kernels, 1):
        begin = number * 20
        rows += [module(path, begin, begin + 10), op("aten::mm", begin + 1, begin + 9), launch(number, begin + 2)]
        rows += [kernel(f"nvjet_{number}_{duration}", at, at + duration, correlation=number)]
        at += duration
    return attributed(*rows)


PATHS = st.sampled_from(["down_blocks.0.attentions.1", "down_blocks.0.resnets.0", "mid_block.resnets.0", "conv_in"])
KERNELS = st.lists(st.tuples(PATHS, st.integers(1, 50)), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(KERNELS, KERNELS, st.sampled_from(CUTS))
def test_a_waterfall_sums_exactly(left: list[tuple[str, int]], right: list[tuple[str, int]], cut: str) -> None:
    before, after = _step(left), _step(right)
    assert sum(changes(waterfall(before, after, cut)).values()) == wall_of(after) - wall_of(before)
    expected = sum(ns for path, ns in right if path.startswith("down")) - sum(
        ns for path, ns in left if path.startswith("down")
    )
    assert changes(waterfall(before, after, "place")).get("down_blocks.0, forward", 0) == expected


def test_of_several_steps_the_median_one_is_compared() -> None:
    found = attributed(step(0, 10), step(20, 50), step(60, 75), op("aten::mm", 1, 2))
    assert wall_of(found) == 15
    assert sum(changes(waterfall(attributed(step(0, 4), op("aten::mm", 1, 2)), found, "class")).values()) == 11


def test_modules_are_shortened_by_their_own_separator() -> None:
    row = {"phase": "forward", "block": None, "num_pieces": 1, "part": "conv", "duration_ns": 5}
    rows = [row | {"module": path} for path in ("a.b.c", "A_0/B_1.0/C_2", "conv_in", None)]
    schema = pa.schema(views.SCHEMAS["ledger"])
    tables = {"before": schema.empty_table(), "after": pa.Table.from_pylist(rows, schema)}
    with db.scratch() as connection:
        names = set(db.query(connection, "waterfall", tables, cut="place")["name"])
    assert names == {"a.b, forward", "A_0/B_1.0, forward", "conv_in, forward", "no module, forward"}
