"""Studies: the answer of each kind, from runs whose truth is known."""

from pathlib import Path

import pandas as pd
import pytest

from profiler.combo import Combo
from profiler.workload import Workload
from store import frames, stats, studies
from store.ingest import sync
from tests.support.run_folders import CPU_WORKLOAD, GPU_WORKLOAD, write_study

STACK = {"attention": ["sdpa"], "precision": ["bf16"], "memory_format": ["channels_last"]}
SPEED = {"sdpa": 1.25, "bf16": 2.0, "channels_last": 1.0}


def factor(combo: Combo) -> float:
    """bf16 and channels_last help each other, sdpa and channels_last buy the same thing twice."""
    held = {combo.attention, combo.precision, combo.memory_format}
    speedup = 1.0
    for choice in held & SPEED.keys():
        speedup *= SPEED[choice]
    speedup *= 1.3 if {"bf16", "channels_last"} <= held else 1.0
    speedup *= 0.8 if {"sdpa", "channels_last"} <= held else 1.0
    return 1 / speedup


def test_pairs_tell_help_from_overlap(root: Path, database: Path) -> None:
    write_study(root, "pairs", GPU_WORKLOAD, factor, families=STACK)
    sync()
    found = frames.interactions("pairs").set_index(["first", "second"])
    assert found["interaction"].tolist() == pytest.approx([1.0, 0.8, 1.3], rel=1e-6)
    assert found["verdict"].tolist() == ["independent", "overlap", "help"]
    helped = found.loc[("bf16", "channels_last")]
    assert helped["interaction_low"] < 1.3 < helped["interaction_high"]
    assert (helped["speedup_first"], helped["speedup_second"], helped["speedup_both"]) == pytest.approx((2, 1, 2.6))


def test_a_pair_without_a_ratio_says_why(root: Path, database: Path) -> None:
    write_study(root, "pairs", GPU_WORKLOAD, factor, families={"precision": ["bf16"], "attention": ["sdpa"]}, max_gib=3)
    sync()
    (row,) = frames.interactions("pairs").to_dict("records")
    assert row["verdict"] == "unknown"
    assert row["why_unknown"].startswith("sdpa is done: the sweep has no baseline")
    assert pd.isna(row["interaction"])


def test_a_product_of_medians_has_the_interval_of_a_ratio_where_it_is_one() -> None:
    above, below = [4.0, 4.1, 4.2, 4.3, 4.4, 4.5], [2.0, 2.05, 2.1, 2.0, 1.95, 2.1]
    assert stats.product_interval([above], [below]) == stats.ratio_interval(above, below)
    assert stats.product_interval([above, below], [below[:4]]) is None, "too few samples"
    of_one = stats.product_interval([], [below])
    assert of_one is not None
    assert of_one.low <= 1 / 2.025 <= of_one.high


def test_what_each_choice_buys_alone(root: Path, database: Path) -> None:
    write_study(root, "one_at_a_time", GPU_WORKLOAD, factor)
    sync()
    found = frames.contributions("one_at_a_time").set_index("choice")
    assert set(found["question"]) == {"alone"}
    assert found.loc["bf16", ["gain", "verdict"]].tolist() == [pytest.approx(2.0), "gains"]
    assert found.loc["channels_last", "verdict"] == "none"
    assert found.loc["sdpa", "memory_gain"] == pytest.approx(2.0)


def test_what_the_stack_loses_without_a_choice(root: Path, database: Path) -> None:
    write_study(root, "leave_one_out", GPU_WORKLOAD, factor, families=STACK)
    sync()
    found = frames.contributions("leave_one_out").set_index("choice")
    assert set(found["question"]) == {"without"}
    # alone worth 2, in the stack 2.6; sdpa in the stack is worth 1.25 times 0.8
    assert found.loc["bf16", "gain"] == pytest.approx(2.6)
    assert found.loc["sdpa", ["gain", "verdict"]].tolist() == [pytest.approx(1.0), "none"]
    assert found.loc["bf16", "gain_low"] < 2.6 < found.loc["bf16", "gain_high"]
    assert found.loc["sdpa", "memory_gain"] == pytest.approx(2.0)


def test_scaling_keeps_what_did_not_fit_and_the_order_of_sizes(root: Path, database: Path) -> None:
    write_study(root, "scaling_batch", GPU_WORKLOAD, factor, families=STACK, max_batch=8, max_gib=8)
    sync()
    found = frames.scaling("scaling_batch")
    assert found["x"].tolist() == [1, 1, 2, 2, 4, 4, 8, 8]
    assert found["series"].tolist() == ["baseline", "stack"] * 4, "the repeated baseline is left out"
    gone = found[found["status"] == "oom"]
    assert gone[["series", "x_label"]].values.tolist() == [["baseline", "batch 8"]]
    first = found.iloc[0]
    assert first["samples_low"] < first["samples_per_s"] < first["samples_high"]
    assert first["samples_per_s"] == pytest.approx(100.0)


def test_models_are_placed_by_their_parameters(root: Path, database: Path) -> None:
    write_study(root, "scaling_model", GPU_WORKLOAD, factor, families=STACK, models="variants")
    sync()
    found = frames.scaling("scaling_model")
    assert found["x"].is_monotonic_increasing
    assert found.loc[found["x_label"] == "sd15-w0.5", "x"].tolist() == [219.8, 219.8]


def test_covering_takes_the_best_end_of_a_pair(root: Path, database: Path) -> None:
    work = Workload(model="tiny", device="cpu")
    write_study(
        root, "grid", work, factor, families={"attention": ["math", "sdpa"], "precision": ["fp32", "bf16"]}, max_gib=3
    )
    sync()
    found = frames.covering("grid").set_index(["choice", "other_choice"])
    assert found.loc[("math", "bf16"), ["num_runs", "outcome", "cause"]].tolist() == [1, "oom", "no memory"]
    assert found.loc[("sdpa", "bf16"), "outcome"] == "done"
    assert set(found["family"]) == {"attention"}, "only families that the study varies"


def test_a_pair_in_no_run_is_a_row(root: Path, database: Path) -> None:
    write_study(root, "pairs", CPU_WORKLOAD, factor, families=STACK)
    sync()
    found = frames.covering("pairs")
    assert (found["num_runs"] > 0).all()
    write_study(root, "one_at_a_time", CPU_WORKLOAD, factor)
    sync()
    alone = frames.covering("one_at_a_time").set_index(["choice", "other_choice"])
    assert alone.loc[("sdpa", "bf16"), "outcome"] == "in no run"


def test_a_pair_less_than_a_percent_from_1_is_independent(root: Path, database: Path) -> None:
    def hardly(combo: Combo) -> float:
        held = {combo.attention, combo.precision, combo.memory_format}
        return (1 / 1.008 if {"bf16", "sdpa"} <= held else 1.0) * (
            1 / 1.03 if {"bf16", "channels_last"} <= held else 1.0
        )

    write_study(root, "pairs", GPU_WORKLOAD, hardly, families=STACK)
    sync()
    found = frames.interactions("pairs").set_index(["first", "second"])
    assert found.loc[("sdpa", "bf16"), "interaction"] == pytest.approx(1.008)
    assert found.loc[("sdpa", "bf16"), "verdict"] == "independent"
    assert found.loc[("bf16", "channels_last"), "verdict"] == "help"


def test_a_pair_names_its_runs_that_launches_set(root: Path, database: Path) -> None:
    write_study(root, "pairs", GPU_WORKLOAD, factor, families=STACK)
    sync()
    ladder = frames.ladder("pairs").assign(launch_verdict="gpu-bound")
    rows = frames.runs().set_index("run_id").loc[ladder["run_id"]].reset_index()
    ladder.loc[ladder["combo_label"] == "sdpa · bf16", ["launch_verdict", "gpu_busy_share"]] = ["launch-bound", 0.61]
    found = studies.interactions(ladder, rows, {}).set_index(["first", "second"])["why_doubtful"]
    assert found.to_dict() == {
        ("sdpa", "bf16"): "sdpa · bf16 (launch-bound, the GPU waits 39%)",
        ("sdpa", "channels_last"): "",
        ("bf16", "channels_last"): "",
    }
    ladder.loc[0, ["launch_verdict", "gpu_busy_share"]] = ["partly launch-bound", 0.9 - 1e-9]
    found = studies.interactions(ladder, rows, {}).set_index(["first", "second"])["why_doubtful"]
    assert found["sdpa", "bf16"] == (
        "baseline (partly launch-bound, the GPU waits 10%); sdpa · bf16 (launch-bound, the GPU waits 39%)"
    )
    assert found["bf16", "channels_last"] == "baseline (partly launch-bound, the GPU waits 10%)"
