"""What to fix first: ranked by what could be won, not by size, and by what was measured where it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler.combo import Combo, choices
from profiler.record import Record
from profiler.traces.imported import import_trace
from store import fixes, views
from store.ingest import sync
from store.remedies import Seen
from tests.support.run_folders import CPU_WORKLOAD, GPU_WORKLOAD, step_samples, write_run
from tests.support.trace_views import in_unet, on_cpu, recorded, write_traced_run
from tests.support.traces import COMPILED, EAGER, SDPA, TRAIN

EAGER_MS = 75.6
TRAIN_WORKLOAD = replace(GPU_WORKLOAD, mode="train", batch=16)
ON_CPU_MS = 0.1  # the traced step of on_cpu
FAST = Combo(precision="bf16", attention="sdpa", memory_format="channels_last")


def ranked(tmp_path: Path, *others: tuple[Combo, float], **how: Any) -> pd.DataFrame:
    """The list for one run with views, beside done runs of other combos."""
    root = tmp_path / "runs"
    write_traced_run(root, "own", how.pop("found"), **how)
    for number, (combo, step_ms) in enumerate(others):
        workload = how.get("workload", GPU_WORKLOAD)
        write_run(root, run_id=f"other-{number}", combo=combo, workload=workload, step_ms=step_samples(step_ms))
    sync([root], tmp_path / "index.duckdb")
    return fixes.fixes("own", database=tmp_path / "index.duckdb").set_index("what")


def test_strict_fp32_on_tensor_cores_comes_first(tmp_path: Path) -> None:
    rows = ranked(tmp_path, found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    assert rows.index[:2].tolist() == ["Products in 32 bits", "Attention writes all scores to memory"]
    first = rows.iloc[0]
    assert (first["remedy"], first["is_measured"]) == ("precision=bf16", False)
    assert 0.5 < first["share"] < 0.9  # of 62 ms of products 8 remain at 990 TFLOP/s
    assert rows["saves_ms"].is_monotonic_decreasing
    assert (rows["share"] >= fixes.LEAST_SHARE).all()


@pytest.mark.parametrize(("precision", "against"), [("fp32", "990 TFLOP/s against 67"), ("tf32", "against 494")])
def test_16_bits_are_set_against_what_runs_now(tmp_path: Path, precision: Any, against: str) -> None:
    combo = Combo(precision=precision)
    rows = ranked(tmp_path, found=recorded(EAGER), combo=combo, step_ms=step_samples(EAGER_MS))
    assert against in rows.loc["Products in 32 bits", "why"]


def test_what_was_measured_takes_the_place_of_the_bound(tmp_path: Path) -> None:
    rows = ranked(tmp_path, (Combo(precision="bf16"), 40.0), found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    half = rows.loc["Products in 32 bits"]
    assert (half["is_measured"], half["run_id"]) == (True, "other-0")
    assert half["saves_ms"] == pytest.approx(EAGER_MS - 40.0)


def test_of_what_helped_the_best_comes_before_what_nobody_tried(tmp_path: Path) -> None:
    beside = [(Combo(precision="bf16_amp"), 45.0), (Combo(precision="fp16_amp"), 50.0)]
    rows = ranked(tmp_path, *beside, found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    half = rows.loc["Products in 32 bits"]
    assert (half["remedy"], half["is_measured"], half["run_id"]) == ("precision=bf16_amp", True, "other-0")


def test_a_remedy_that_did_not_help_gives_way_to_the_next(tmp_path: Path) -> None:
    rows = ranked(tmp_path, (Combo(precision="bf16"), 90.0), found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    assert rows.loc["Products in 32 bits", "remedy"] == "precision=bf16_amp"


def test_a_run_of_more_processes_measures_no_remedy(tmp_path: Path) -> None:
    root, two = tmp_path / "runs", replace(GPU_WORKLOAD, world_size=2)
    write_run(root, run_id="two", combo=Combo(precision="bf16"), workload=two, step_ms=step_samples(20.0))
    rows = ranked(tmp_path, found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    assert not rows["is_measured"].any()


def test_idle_time_counts_as_far_as_the_timed_step_has_it(tmp_path: Path) -> None:
    """Of 200 us the GPU works 52; the profiler made the rest, where the timed step took 60."""
    slow = ranked(tmp_path / "a", found=in_unet(), combo=FAST).loc["The GPU waits for the host"]
    assert slow["saves_ms"] > 0.1
    assert slow["remedy"] == "compilation=reduce_overhead"
    fast = ranked(tmp_path / "b", found=in_unet(), combo=FAST, step_ms=step_samples(0.060))
    assert fast.loc["The GPU waits for the host", "saves_ms"] <= 0.008 + 1e-9


def test_all_times_are_of_the_timed_step(tmp_path: Path) -> None:
    """A trace at lower clocks: each figure shrinks alike, those of products, too."""
    whole = ranked(tmp_path / "a", found=recorded(SDPA), combo=FAST, step_ms=step_samples(20.0))
    half = ranked(tmp_path / "b", found=recorded(SDPA), combo=FAST, step_ms=step_samples(6.0))
    work = [name for name in whole.index if name in half.index and "waits" not in name]
    assert {"Convolutions below their roof", "Copies that only change layout"} <= set(work)
    factors = half.loc[work, "saves_ms"] / whole.loc[work, "saves_ms"]
    assert 0.1 < factors.iloc[0] < 0.9
    assert factors.tolist() == pytest.approx([factors.iloc[0]] * len(work))


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_cpus_times_are_of_the_timed_step_even_where_that_was_the_slower_one(factor: float, tmp_path: Path) -> None:
    how: dict[str, Any] = {"found": on_cpu(), "workload": CPU_WORKLOAD, "combo": Combo(attention="sdpa")}
    alike = ranked(tmp_path / "a", **how).iloc[0]
    timed = ranked(tmp_path / "b", **how, step_ms=step_samples(factor * ON_CPU_MS)).iloc[0]
    assert timed["saves_ms"] == pytest.approx(factor * alike["saves_ms"])
    assert timed["share"] == pytest.approx(alike["share"])


@pytest.mark.parametrize("step_ms", [0.060, 0.150, 0.200, 0.400])
def test_parts_of_a_gpus_step_add_up_to_the_timed_one(step_ms: float, tmp_path: Path) -> None:
    folder = write_traced_run(tmp_path / "runs", "own", in_unet(), combo=FAST, step_ms=step_samples(step_ms))
    summary, parts, roofline = views.parts_and_roofline(views.place_of("own", folder))
    sums = parts.groupby("part")["step_ms"].sum().to_dict()
    seen = Seen(record=Record.read(folder), summary=summary or {}, parts=sums, phases={}, roofline=roofline)
    idle = [name.removeprefix("idle: ") for name in sums if name.startswith("idle:")]
    busy = [name for name in sums if not name.startswith("idle:")]
    assert seen.part(*busy) + seen.idle(*idle) == pytest.approx(seen.step_ms)


def test_what_was_not_tried_is_not_said_to_be_of_no_use(tmp_path: Path) -> None:
    combo = Combo(attention="sdpa", precision="bf16_amp", memory_format="channels_last")
    how: dict[str, Any] = {"combo": combo, "workload": TRAIN_WORKLOAD, "step_ms": step_samples(150.0)}
    how["attention_observed"] = {"math": 32}
    remedy = ranked(tmp_path / "a", found=recorded(TRAIN), **how).loc["Attention below its roof", "remedy"]
    assert "untried here: attention=sdpa_flash, sdpa_efficient, sdpa_cudnn, flex" in remedy
    assert "not possible with this combination on the machine of this run: attention=flash_attn_4" in remedy
    assert "pip install" in remedy
    assert "no choice" not in remedy
    tried = [(replace(combo, attention=name), 160.0) for name in ("sdpa_flash", "sdpa_efficient", "flex")]
    remedy = ranked(tmp_path / "b", *tried, found=recorded(TRAIN), **how).loc["Attention below its roof", "remedy"]
    assert "untried here: attention=sdpa_cudnn; not" in remedy


@pytest.mark.parametrize("now", ["full", "alternate", "selective"])
def test_a_choice_that_takes_more_time_is_no_remedy(now: Any, tmp_path: Path) -> None:
    """Of the forwards that run again: full checkpointing is a step back, and no untried remedy."""
    combo = Combo(precision="bf16_amp", checkpointing=now)
    folder = write_run(tmp_path, run_id="own", combo=combo, workload=TRAIN_WORKLOAD, step_ms=step_samples(100.0))
    _, _, no_products = views.parts_and_roofline(views.place_of("own", folder))
    summary = {"on_gpu": True, "wall_ns": 10**8, "num_steps": 1, "launches": None, "peaks": {}}
    again = {"parts": {"gemm": 100.0}, "phases": {"recompute": 20.0}}
    seen = Seen(record=Record.read(folder), summary=summary, roofline=no_products, **again)
    tried: dict[str, tuple[str | None, float | None]] = {}
    for choice in ("selective", "alternate", "none"):
        tried[replace(combo, checkpointing=choice).key] = ("other", 120.0)
    rows = fixes.rank(seen, fixes.Tried(siblings=tried, choices=frozenset())).set_index("what")
    assert rows.loc["Forwards that run again", "remedy"] == "checkpoint fewer blocks, if memory allows"
    rows = fixes.rank(seen, fixes.Tried(siblings={}, choices=frozenset())).set_index("what")
    first = "alternate" if now == "selective" else "selective"
    assert rows.loc["Forwards that run again", "remedy"] == f"checkpointing={first}"


def test_all_families_know_how_far_each_choice_goes() -> None:
    for family, reach in fixes.REACH.items():
        assert set(reach) == set(choices(family))
    assert not fixes._goes_on("fusion", "all", "qkv")
    assert not fixes._goes_on("precision", "bf16_amp", "tf32")
    assert not fixes._goes_on("checkpointing", "none", "full")
    assert fixes._goes_on("checkpointing", "full", "none")
    assert fixes._goes_on("attention", "sdpa", "flex")
    assert not fixes._goes_on("attention", "sdpa", "math")


def test_a_kernel_that_runs_already_is_not_untried(tmp_path: Path) -> None:
    """PyTorch chose cuDNN for most layers, and the efficient kernel for two."""
    combo = Combo(attention="sdpa", precision="bf16_amp", memory_format="channels_last")
    how: dict[str, Any] = {"combo": combo, "workload": TRAIN_WORKLOAD, "step_ms": step_samples(150.0)}
    how["attention_observed"] = {"cudnn": 30, "efficient": 2}
    remedy = ranked(tmp_path, found=recorded(TRAIN), **how).loc["Attention below its roof", "remedy"]
    already = "its kernel runs already: attention=sdpa_efficient (2 of 32 calls), sdpa_cudnn (30 of 32 calls)"
    assert f"{already}; untried here: attention=sdpa_flash, flex;" in remedy


def test_a_choice_measured_in_another_combination_is_not_untried(tmp_path: Path) -> None:
    combo = Combo(attention="sdpa", precision="bf16_amp", memory_format="channels_last")
    how: dict[str, Any] = {"combo": combo, "workload": TRAIN_WORKLOAD, "step_ms": step_samples(150.0)}
    how["attention_observed"] = {"cudnn": 64}
    other = (Combo(attention="sdpa_flash", precision="bf16_amp"), 160.0)
    remedy = ranked(tmp_path, other, found=recorded(TRAIN), **how).loc["Attention below its roof", "remedy"]
    assert (
        "its kernel runs already: attention=sdpa_cudnn; measured in other combinations only: attention=sdpa_flash; "
        in remedy
    )
    assert "untried here: attention=sdpa_efficient, flex; not possible" in remedy


@pytest.mark.parametrize("status", ["oom", "wrong"])
def test_what_came_to_nothing_was_tried(status: Any, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", run_id="nothing", combo=Combo(precision="bf16"), workload=GPU_WORKLOAD, status=status)
    rows = ranked(tmp_path, found=recorded(EAGER), step_ms=step_samples(EAGER_MS))
    assert rows.loc["Products in 32 bits", "remedy"] == "precision=bf16_amp"


def test_choices_that_are_made_are_not_recommended(tmp_path: Path) -> None:
    combo = Combo(attention="sdpa", precision="bf16_amp", memory_format="channels_last", optimizer="adamw_fused",
                  compilation="default")  # fmt: skip
    rows = ranked(tmp_path, found=recorded(TRAIN), combo=combo, workload=TRAIN_WORKLOAD, step_ms=step_samples(126.0))
    made = {
        f"{family}={getattr(combo, family)}" for family in ("attention", "memory_format", "optimizer", "compilation")
    }
    assert not made & set(rows["remedy"])
    assert not {"optimizer=adamw_foreach", "compilation=regional"} & set(rows["remedy"])  # a step back
    (searched,) = rows.loc[rows["remedy"] == "compilation=max_autotune", "why"]
    assert "The same helps here: convolutions below their roof" in searched
    assert rows["remedy"].is_unique


def test_a_replayed_graph_does_not_wait_for_python(tmp_path: Path) -> None:
    combo = Combo(attention="sdpa", precision="bf16", memory_format="channels_last", compilation="reduce_overhead")
    rows = ranked(tmp_path, found=recorded(COMPILED), combo=combo, step_ms=step_samples(6.43))
    assert rows.index[0] == "Small kernels between the products"
    assert rows.loc["The GPU waits for the host", "share"] < 0.05


def test_on_a_cpu_there_is_no_roof_and_no_launch(tmp_path: Path) -> None:
    rows = ranked(tmp_path, found=on_cpu(), workload=CPU_WORKLOAD, combo=Combo(attention="sdpa"))
    assert rows["remedy"].tolist() == ["compilation=default"]
    assert rows.index[0] == "Python overhead"
    assert "The same helps here: small kernels between the products (0.02 ms)" in rows.iloc[0]["why"]


def test_a_run_without_views_has_nothing_to_say(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", run_id="old")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = fixes.fixes("old", database=tmp_path / "index.duckdb")
    assert rows.empty
    assert list(rows.columns) == list(fixes.COLUMNS)


def test_a_foreign_trace_gets_remedies_though_nobody_knows_its_choices(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "foreign"
    folder.mkdir(parents=True)
    import_trace(SDPA, folder, run_id="foreign", name=SDPA.name, max_bytes=10**9)
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = fixes.fixes("foreign", database=tmp_path / "index.duckdb").set_index("what")
    assert rows.loc["The GPU waits for the host", "remedy"] == "compilation=reduce_overhead"
    assert "the profiler's own slowdown" in rows.loc["The GPU waits for the host", "why"]
    assert not rows["is_measured"].any()
