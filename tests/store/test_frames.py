import inspect
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler import dropout
from profiler.combo import BASELINE, FAMILIES, Combo
from profiler.record import Metrics, SweepPlace
from profiler.workload import Workload
from runs import history
from runs.sweep import SWEEPS
from store import fits, frames, labels, run_files
from store.db import StoreError
from store.ingest import sync
from tests.support.run_folders import (
    CPU_WORKLOAD,
    FIRST_START,
    FIXTURE_CPU,
    FIXTURE_GPU,
    GPU_WORKLOAD,
    TRAINING,
    step_samples,
    write_ladder,
    write_run,
    write_study,
    write_training,
)

METRICS = [metric.name for metric in fields(Metrics)]
CHANGES = [
    *("builds_on", "change_speedup", "change_speedup_low", "change_speedup_high", "change_verdict"),
    "change_memory_ratio",
]
LADDER_COLUMNS = [
    *("run_id", "sweep_position", "sweep_role", "combo_label", "step_label", "status", "cause", "step_ms"),
    *("step_iqr_ms", "num_samples", "samples_per_s", "speedup", "speedup_low", "speedup_high", "verdict"),
    *CHANGES,
    *("peak_allocated_gib", "memory_ratio"),
    *("output_error", "gradient_error", "output_error_ratio", "gradient_error_ratio"),
    *("compile_s", "break_even_steps", "mfu"),
    *("launch_verdict", "gpu_busy_share", "attention_observed", "baseline_run_id", "drift", "why_not_comparable"),
]
COLUMNS = {
    "runs": [
        *("run_id", "root", "folder", "status", "cause", "contaminated", "started_at", "duration_s"),
        *("sweep_id", "sweep_name", "sweep_position", "sweep_role", "num_jobs", *FAMILIES, "combo_label", "combo_key"),
        *("model", "model_label", "mode", "batch", "resolution", "device", "world_size", "workload_label"),
        *("num_inference_steps", "guidance_scale", "dataset_size", "seed"),
        *("machine_label", "gpu_name", "gpu_uuid", "boot_id", "torch", "cuda", *METRICS),
        *("launch_verdict", "attention_observed", "trace_file", "of_whole_trace", "schema_version"),
    ],
    "sweeps": [
        *("sweep_id", "sweep_name", "workload_label", "machine_label", "is_recorded"),
        *("num_jobs", "num_runs", "num_done", "started_at", "ended_at"),
    ],
    "ladder": LADDER_COLUMNS,
    "interactions": [
        *("first", "second", "speedup_first", "speedup_second", "speedup_both"),
        *("interaction", "interaction_low", "interaction_high", "verdict", "why_unknown", "run_id"),
        "why_doubtful",
    ],
    "contributions": [
        *("run_id", "question", "family", "choice", "label", "gain", "gain_low", "gain_high", "verdict"),
        *("memory_gain", "step_ms", "drift", "status", "cause"),
    ],
    "scaling": [
        *("run_id", "series", "combo_label", "axis", "x", "x_label", "samples_per_s", "samples_low", "samples_high"),
        *("peak_allocated_gib", "speedup", "speedup_low", "speedup_high", "verdict", "status", "cause"),
        *("step_ms", "step_iqr_ms", "launch_verdict"),
    ],
    "covering": ["family", "choice", "other_family", "other_choice", "num_runs", "outcome", "run_id", "cause"],
    "comparison": [*(name for name in LADDER_COLUMNS if name not in ("step_label", *CHANGES)), "comparable"],
    "metric_ratios": [
        *("run_id", "label", "metric", "unit", "better"),
        *("value", "baseline_value", "ratio", "ratio_low", "ratio_high"),
        *("divisor", "baseline_divisor", "why_not_judged", "is_timed"),
    ],
    "kernel_categories": ["run_id", "combo_label", "category", "step_total_ms", "share", "idle_ms", "of_whole_trace"],
    "kernels": ["name", "category", "op", "phase", "num_calls", "total_ms", "mean_us", "share"],
    "memory_timeline": ["time_ms", "category", "gib"],
    "peak_parts": ["run_id", "combo_label", "part", "gib", "time_ms", "peak_gib"],
    "alive": ["moment", "time_ms", "category", "module", "block", "gib", "num_storages"],
    "allocator": ["time_ms", "requested_gib", "stuck_gib", "idle_gib", "reserved_gib"],
    "recompute_ledger": [
        *("unit", "block", "recompute_ms", "kept_gib", "plain_gib", "saved_gib", "ms_per_gib"),
    ],
    "largest_batch": [
        *("anchor_run_id", "run_id", "combo_label", "batch", "status", "cause", "peak_gib", "predicted_gib", "error"),
        *("per_sample_gib", "fixed_gib", "capacity_gib", "basis", "line_batch", "largest_batch", "verdict", "refutes"),
        *("earlier_basis", "earlier_batch"),
    ],
    "telemetry": ["time_s", "power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "utilisation"],
    "curves": ["name", "x", "y"],
    "departures": [
        *("run_id", "combo_label", "num_peers", "num_steps", "num_beyond"),
        *("floor", "step", "loss", "peers_loss", "end_change"),
    ],
    "samples": ["run_id", "metric", "index", "value"],
    "evidence": [
        *("family", "choice", "confirmed", "facts", "must_appear", "must_not_appear", "observed", "finding"),
    ],
    "trace_modules": ["step", "module", "num_ops"],
    "durations": ["model", "mode", "compilation", "device", "batch", "resolution", "duration_s"],
}
FIFTH = SweepPlace(sweep_id="training", name="ladder_train", position=4, num_jobs=5, role="candidate")
# Arguments that give rows, and arguments that give none, in a store with the ladder and the run 'oom'.
RUN, OOM = "fixture-ladder-02", "fixture-ladder-07"
ARGUMENTS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "ladder": (("fixture-ladder",), ("no such sweep",)),
    "interactions": (("pairs",), ("no such sweep",)),
    "contributions": (("pairs",), ("no such sweep",)),
    "scaling": (("scaling_batch",), ("no such sweep",)),
    "covering": (("fixture-ladder",), ("no such sweep",)),
    "comparison": (("fixture-ladder-00", (RUN,)), ()),
    "metric_ratios": (("fixture-ladder-00", (RUN,)), ("fixture-ladder-00", ())),
    "kernel_categories": (((RUN,),), ((OOM,),)),
    "kernels": ((RUN,), (OOM,)),
    "memory_timeline": ((RUN,), (OOM,)),
    "alive": ((RUN,), (OOM,)),
    "peak_parts": (((RUN,),), ((OOM,),)),
    "allocator": ((RUN,), (OOM,)),
    "recompute_ledger": (("checkpointed",), (RUN,)),
    "largest_batch": ((("trained",),), ((),)),
    "telemetry": ((RUN,), (OOM,)),
    "curves": (("trained",), (RUN,)),
    "departures": ((("training-3",),), ((RUN, "trained", "training-2"),)),
    "samples": (((RUN,),), ((OOM,),)),
    "evidence": ((RUN,), ("fixture-ladder-00",)),
    "trace_modules": ((RUN,), (OOM,)),
}


@pytest.fixture
def run_ids(root: Path, database: Path) -> list[str]:
    found = write_ladder(root)
    write_training(root)
    train = Workload(model="tiny", mode="train", device="cpu")
    write_run(root, run_id="trained", workload=train)
    write_run(root, run_id="checkpointed", workload=train, combo=Combo(checkpointing="full"))
    stack = {"attention": ["sdpa"], "precision": ["bf16"]}
    write_study(root, "pairs", CPU_WORKLOAD, lambda combo: 1.0, families=stack)
    write_study(root, "scaling_batch", CPU_WORKLOAD, lambda combo: 1.0, families=stack, max_batch=1)
    sync()
    return found


def query(name: str) -> Callable[..., pd.DataFrame]:
    found: Callable[..., pd.DataFrame] = getattr(frames, name)
    return found


def test_every_frame_is_in_the_tests_below() -> None:
    public = {
        name
        for module in (frames, run_files)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    others = {"record", "disturbed_runs", "without_tables", "losses"}
    assert public - others == set(COLUMNS), "all but those four answer with a table"
    assert public - {"losses"} == set(frames.__all__)


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_and_their_types_are_the_same_with_and_without_rows(name: str, run_ids: list[str]) -> None:
    some, none = ARGUMENTS.get(name, ((), ()))
    full = query(name)(*some)
    assert len(full) > 0
    extra = ["attention", "precision"] if name == "comparison" else []
    assert list(full.columns) == COLUMNS[name] + extra
    if name in ("runs", "sweeps", "durations", "comparison"):
        return
    empty = query(name)(*none)
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()


@pytest.mark.parametrize("name", ["runs", "sweeps", "durations"])
def test_an_empty_store_gives_empty_frames(name: str, root: Path, database: Path) -> None:
    sync()
    empty = query(name)()
    write_ladder(root)
    sync()
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == query(name)().dtypes.to_dict()


def test_durations_are_those_of_this_home_and_not_of_a_recorded_study(
    root: Path, tmp_path: Path, database: Path
) -> None:
    write_run(tmp_path / "recorded", run_id="fast-gpu", duration_s=1.0)
    sync()
    assert frames.durations().empty
    write_run(root, run_id="own", duration_s=50.0)
    write_run(root, run_id="again", duration_s=40.0)
    sync()
    assert frames.durations()["duration_s"].tolist() == [40.0, 50.0]


def test_without_an_index_there_is_one_clear_line(database: Path) -> None:
    with pytest.raises(StoreError, match="python -m store sync"):
        frames.runs()


def test_ladder_golden(run_ids: list[str]) -> None:
    ladder = frames.ladder("fixture-ladder")
    assert ladder["run_id"].tolist() == run_ids
    assert ladder["step_label"].tolist() == [
        *("baseline", "+ sdpa", "+ bf16", "+ xformers for sdpa", "+ channels_last", "+ compile default"),
        *("+ compile reduce_overhead for default", "+ compile max_autotune for reduce_overhead"),
        *("+ fp16 for bf16", "baseline again"),
    ]
    speedups = [1, 1 / 0.9, 2.5, None, 1 / 0.38, 4, 5, None, 1 / 0.395, 1 / 1.01]
    expected = pd.Series(speedups, dtype=float, name="speedup")
    pd.testing.assert_series_equal(ladder["speedup"], expected)
    verdicts = ["same", "faster", "faster", "unknown", "faster", "faster", "faster", "unknown", "unknown", "same"]
    assert ladder["verdict"].tolist() == verdicts
    timed = ladder[ladder["speedup"].notna()]
    assert (timed["speedup_low"] < timed["speedup"]).all()
    assert (timed["speedup"] < timed["speedup_high"]).all()
    assert ((timed["speedup_high"] - timed["speedup_low"]) / timed["speedup"]).max() < 0.03
    assert ladder["drift"].unique().tolist() == pytest.approx([0.01])
    # compile_s * 1000 / (eager step - step): 39 s against 38 - 25 ms, and 60 s against 38 - 20 ms
    assert ladder["break_even_steps"].dropna().tolist() == pytest.approx([3000.0, 60_000 / 18])
    assert ladder["memory_ratio"].iloc[2] == pytest.approx(2.1 / 6.2)


def test_runs_that_changed_alike_get_their_whole_label() -> None:
    one, two, three = {"attention": "sdpa"}, {"precision": "bf16"}, {"memory_format": "channels_last"}
    combos = [Combo(**changes) for changes in ({}, one, two, three, one | three, two | three)]
    place = {"workload_key": "w", "sweep_role": "candidate", "sweep_name": "ladder_inference", "status": "done"}
    rows = [asdict(c) | place | {"sweep_position": i, "combo_label": c.label} for i, c in enumerate(combos)]
    shown = labels.steps(pd.DataFrame(rows))
    assert len(set(shown)) == len(shown)
    assert shown[4] == "sdpa · channels_last"


def test_of_rungs_as_near_one_is_added_to_rather_than_taken_from() -> None:
    """Where the rung failed that both a branch and the next rung were built on."""
    one = Combo(attention="sdpa")
    lost = replace(one, memory_format="channels_last")
    combos = [one, lost, replace(lost, checkpointing="full"), replace(lost, compilation="default")]
    place = {"workload_key": "w", "sweep_role": "candidate", "sweep_name": "ladder_train"}
    rows = [asdict(c) | place | {"sweep_position": i, "combo_label": c.label} for i, c in enumerate(combos)]
    shown = labels.steps(pd.DataFrame(rows).assign(status=["done", "failed", "done", "done"]))
    assert shown[3] == "+ channels_last + compile default"


def test_rows_that_do_not_build_on_one_another_do_not_look_so(root: Path, database: Path) -> None:
    stack = {"attention": ["sdpa"], "precision": ["bf16"]}
    for name, families in (("around", stack), ("leave_one_out", stack), ("pairs", stack), ("one_at_a_time", {})):
        write_study(root, name, GPU_WORKLOAD, lambda combo: 1.0, families=families)
    sync()
    shown = {name: frames.ladder(name)["step_label"].tolist() for name in ("around", "leave_one_out", "pairs")}
    assert shown["leave_one_out"] == ["baseline", "stack", "stack - sdpa", "stack - bf16", "baseline again"]
    assert shown["pairs"] == ["baseline", "sdpa", "bf16", "sdpa · bf16", "baseline again"]
    assert {"stack", "stack - sdpa", "stack + flex", "stack + fp8"} < set(shown["around"])
    alone = frames.ladder("one_at_a_time")
    assert alone["step_label"].iloc[1:-1].tolist() == alone["combo_label"].iloc[1:-1].tolist()


def test_a_rung_is_judged_against_what_its_label_builds_on(root: Path, database: Path) -> None:
    """Twice as fast as the baseline, and yet slower than without its own change."""
    bf16 = Combo(precision="bf16")
    slower, even = replace(bf16, memory_format="channels_last"), replace(bf16, attention="sdpa")
    for position, (combo, step_ms) in enumerate([(BASELINE, 10), (bf16, 3), (slower, 3.6), (even, 3), (BASELINE, 10)]):
        role: Any = {0: "baseline", 4: "baseline_repeat"}.get(position, "candidate")
        place = SweepPlace(sweep_id="s", name="ladder_inference", position=position, num_jobs=5, role=role)
        samples = step_samples(step_ms, seed=position)
        write_run(root, run_id=f"s-{position}", combo=combo, step_ms=samples, sweep=place)
    sync()
    found = frames.ladder("s").set_index("run_id")
    assert found.loc["s-2", ["step_label", "verdict"]].tolist() == ["+ channels_last", "faster"]
    assert found.loc["s-2", ["builds_on", "change_verdict"]].tolist() == ["s-1", "slower"]
    low, ratio, high = found.loc["s-2", ["change_speedup_low", "change_speedup", "change_speedup_high"]]
    assert ratio == pytest.approx(3 / 3.6)
    assert low < ratio < high < 1
    assert found.loc["s-3", ["builds_on", "change_verdict"]].tolist() == ["s-1", "same"], "not on the slower branch"
    assert found.loc["s-1", ["builds_on", "change_speedup"]].tolist() == ["s-0", found.loc["s-1", "speedup"]]
    assert found.loc[["s-0", "s-4"], ["builds_on", "change_speedup"]].isna().all(axis=None)


def test_a_rung_builds_on_one_that_is_done(root: Path, database: Path) -> None:
    """Of as many different choices the failed run before it would be the nearest, and no ratio could be formed."""
    default, overhead, autotune = (Combo(compilation=c) for c in ("default", "reduce_overhead", "max_autotune"))
    for position, combo in enumerate([BASELINE, default, overhead, autotune]):
        role: Any = "candidate" if position else "baseline"
        place = SweepPlace(sweep_id="s", name="ladder_inference", position=position, num_jobs=4, role=role)
        ended: Any = {"status": "failed", "step_ms": None} if combo == overhead else {"step_ms": step_samples(5)}
        write_run(root, run_id=f"s-{position}", combo=combo, sweep=place, **ended)
    sync()
    found = frames.ladder("s").set_index("run_id")
    assert found["step_label"].tolist()[2:] == [
        f"+ compile {c} for default" for c in ("reduce_overhead", "max_autotune")
    ]
    assert found.loc["s-3", ["builds_on", "change_speedup"]].tolist() == ["s-1", 1.0]


def test_around_a_stack_every_change_is_judged_against_the_stack(root: Path, database: Path) -> None:
    slow = {"sdpa_flash": 0.55, "sdpa": 0.5, "math": 1.0}
    families = {"attention": ["sdpa"], "precision": ["bf16"]}
    write_study(root, "around", GPU_WORKLOAD, lambda combo: slow.get(combo.attention, 0.5), families=families)
    write_study(root, "pairs", GPU_WORKLOAD, lambda combo: 1.0, families=families)
    sync()
    found = frames.ladder("around").set_index("step_label")
    flash = found.loc["stack + sdpa_flash"]
    assert (flash["verdict"], flash["change_verdict"]) == ("faster", "slower")
    assert flash["change_speedup"] == pytest.approx(0.5 / 0.55)
    assert flash["builds_on"] == found.loc["stack", "run_id"]
    assert pd.isna(found.loc["stack", "builds_on"])
    assert found.loc["stack - sdpa", "change_memory_ratio"] == pytest.approx(2.0)
    assert frames.ladder("pairs")["builds_on"].isna().all(), "these build on the baseline: speedup says it"


def test_runs_of_no_sweep_are_a_study_against_the_nearest_baseline(root: Path, database: Path) -> None:
    fast = Combo(attention="sdpa")
    write_run(root, run_id="baseline", workload=GPU_WORKLOAD, step_ms=step_samples(20), sweep=_place("baseline"))
    day = timedelta(days=1)
    elsewhere: dict[str, Any] = {
        "yesterday": {"started_at": FIRST_START - day},
        "rebooted": {"machine": replace(FIXTURE_GPU, boot_id="fixture-boot-2")},
        "wrong": {"status": "wrong"},
    }
    for run_id, other in elsewhere.items():
        place = replace(_place("baseline"), sweep_id=run_id)
        write_run(root, run_id=run_id, workload=GPU_WORKLOAD, step_ms=step_samples(40), sweep=place, **other)
    for run_id, started_at in (("fast", FIRST_START + 0.1 * day), ("fast-then", FIRST_START - 0.9 * day)):
        write_run(
            root, run_id=run_id, combo=fast, workload=GPU_WORKLOAD, step_ms=step_samples(10), started_at=started_at
        )
    write_run(root, run_id="alone", combo=fast, step_ms=step_samples(10))
    upgraded = replace(FIXTURE_GPU, torch="99.0")
    write_run(root, run_id="later", combo=fast, workload=GPU_WORKLOAD, step_ms=step_samples(5), machine=upgraded)
    sync()
    found = frames.ladder(labels.SINGLE_RUNS).set_index("run_id")
    own = {"fast", "fast-then", "alone", "later"}
    assert set(found.index) == own | {"baseline", "yesterday"}, "baselines of sweeps stand among them"
    assert found.loc["fast-then", ["baseline_run_id", "speedup"]].tolist() == ["yesterday", pytest.approx(4.0)]
    assert found.loc["fast", ["step_label", "sweep_role", "baseline_run_id"]].tolist() == [
        "sdpa",
        "candidate",
        "baseline",
    ]
    assert found.loc["fast", "speedup"] == pytest.approx(2.0)
    assert found.loc["baseline", ["step_label", "sweep_role"]].tolist() == ["baseline", "baseline"]
    assert found.loc[["alone", "later"], "speedup"].isna().all(), "of another device, and of another torch"
    assert found.loc["later", "why_not_comparable"].startswith("no baseline of its workload and torch is done")
    sweeps = frames.sweeps()
    assert sweeps["sweep_id"].tolist()[-1] == labels.SINGLE_RUNS
    assert sweeps["num_runs"].tolist()[-1] == len(own)


def test_of_every_sweep_it_is_known_what_its_rows_build_on() -> None:
    ladders = {"quick", "ladder_inference", "ladder_train"}
    assert {*labels.AGAINST_BASELINE, *labels.AGAINST_STACK, *ladders} == {*SWEEPS, labels.SINGLE_RUNS}


def test_runs_without_a_time_keep_their_row_and_have_no_numbers(run_ids: list[str]) -> None:
    ladder = frames.ladder("fixture-ladder").set_index("run_id")
    for run_id, status in ((run_ids[3], "rejected"), (run_ids[7], "oom")):
        row = ladder.loc[run_id]
        assert row["status"] == status
        assert row["cause"]
        assert row["why_not_comparable"] == f"nothing was timed: the run is {status}"
        assert row[["step_ms", "speedup", "peak_allocated_gib", "mfu", "break_even_steps"]].isna().all()


def test_what_a_run_cut_short_had_measured_is_in_runs_alone(root: Path, database: Path) -> None:
    metrics = {"step_ms": 5.0, "weights_gib": 1.5}
    write_run(root, run_id="a", status="timeout", metrics=metrics, sweep=_place("baseline"))
    sync()
    assert frames.runs()["weights_gib"].tolist() == [1.5]
    assert frames.ladder("s")[["step_ms", "speedup"]].isna().all(axis=None)


@pytest.mark.parametrize("status", ["wrong", "ineffective"])
def test_a_run_that_is_not_what_was_asked_keeps_its_numbers_without_a_verdict(
    status: Any, root: Path, database: Path
) -> None:
    write_run(root, run_id="b", sweep=_place("baseline"))
    write_run(root, run_id="c", sweep=_place("candidate", 1), status=status, step_ms=step_samples(5.0))
    sync()
    row = frames.ladder("s").iloc[1]
    assert (row["step_ms"], row["speedup"], row["verdict"]) == (5.0, 2.0, "unknown")


def test_a_difference_inside_the_drift_is_none(root: Path, database: Path) -> None:
    for position, (role, median) in enumerate(
        [("baseline", 10.0), ("candidate", 9.6), ("candidate", 9.0), ("baseline_repeat", 9.5)]
    ):
        samples = step_samples(median, noise=0.001, seed=position)
        write_run(root, run_id=f"r{position}", sweep=_place(role, position), step_ms=samples)
    sync()
    ladder = frames.ladder("s")
    assert ladder["drift"].tolist() == pytest.approx([10 / 9.5 - 1] * 4)
    assert ladder["verdict"].tolist() == ["same", "same", "faster", "same"]
    assert ladder["speedup_low"].iloc[1] > 1, "the interval alone would have called it faster"


def test_each_run_pairs_with_the_baseline_of_its_own_device_and_boot(root: Path, database: Path) -> None:
    other = replace(FIXTURE_GPU, gpu_uuid="GPU-fixture-2")
    rebooted = replace(FIXTURE_GPU, boot_id="fixture-boot-2")
    plan = [("first", "baseline", 0, FIXTURE_GPU, 100.0), ("a", "candidate", 1, FIXTURE_GPU, 50.0)]
    plan += [("second", "baseline", 0, other, 80.0), ("b", "candidate", 2, other, 20.0)]
    plan += [("c", "candidate", 3, rebooted, 20.0)]
    for index, (run_id, role, position, machine, median) in enumerate(plan):
        write_run(
            root,
            run_id=run_id,
            workload=GPU_WORKLOAD,
            machine=machine,
            sweep=_place(role, position),
            step_ms=step_samples(median, seed=index),
            started_at=FIRST_START + timedelta(minutes=index),
        )
    sync()
    ladder = frames.ladder("s").set_index("run_id")
    assert ladder["baseline_run_id"].dropna().to_dict() == {
        "first": "first",
        "a": "first",
        "second": "second",
        "b": "second",
    }
    assert ladder.loc[["a", "b"], "speedup"].tolist() == pytest.approx([2.0, 4.0])
    assert pd.isna(ladder.loc["c", "speedup"])
    assert "has no baseline that is done on this device since its last boot" in ladder.loc["c", "why_not_comparable"]


def test_why_not_comparable_in_words(root: Path, database: Path) -> None:
    workload = replace(GPU_WORKLOAD, mode="sample")
    write_run(root, run_id="baseline", workload=workload)
    others: dict[str, dict[str, Any]] = {
        "another Fixture GPU than the baseline's": {"machine": replace(FIXTURE_GPU, gpu_uuid="GPU-fixture-2")},
        "another device than the baseline's Fixture GPU": {
            "machine": replace(FIXTURE_GPU, gpu_name="Other GPU", gpu_uuid="GPU-fixture-3")
        },
        "the machine was restarted since the baseline": {"machine": replace(FIXTURE_GPU, boot_id="fixture-boot-2")},
        "another workload than the baseline's sd15 sample b2 512 px cuda": {"workload": replace(workload, batch=8)},
        "another workload than the baseline's sd15 sample": {"workload": replace(workload, num_inference_steps=50)},
        "nothing was timed: the run is failed": {"status": "failed"},
    }
    for index, arguments in enumerate(others.values()):
        write_run(root, run_id=f"r{index}", **{"workload": workload} | arguments)
    write_run(root, run_id="alike", workload=replace(workload, dataset_size=7, min_samples=5))
    sync()
    run_ids = [f"r{index}" for index in range(len(others))]
    comparison = frames.comparison("baseline", [*run_ids, "alike"])
    assert comparison["comparable"].tolist() == [True, *[False] * len(others), True]
    for why, reason in zip(others, comparison["why_not_comparable"].iloc[1:-1], strict=True):
        assert reason.startswith(why)
    assert comparison["speedup"].notna().tolist() == comparison["comparable"].tolist()
    assert frames.comparison(run_ids[-1], ["baseline"])["why_not_comparable"].iloc[1] == "the baseline is failed"


def test_a_cpu_run_pairs_by_the_cpu_even_where_there_is_a_gpu(root: Path, database: Path) -> None:
    write_run(root, run_id="a", machine=FIXTURE_CPU)
    write_run(root, run_id="b", machine=FIXTURE_GPU)
    sync()
    assert frames.comparison("a", ["b"])["comparable"].tolist() == [True, True]
    assert frames.runs()["machine_label"].tolist() == ["Fixture CPU"] * 2


def test_comparison_shows_only_the_families_that_differ(run_ids: list[str]) -> None:
    comparison = frames.comparison(run_ids[1], [run_ids[2], run_ids[4], run_ids[1]])
    assert comparison["run_id"].tolist() == [run_ids[1], run_ids[2], run_ids[4]]
    assert list(comparison.columns)[-2:] == ["precision", "memory_format"]
    assert comparison["speedup"].tolist() == pytest.approx([1.0, 90 / 40, 90 / 38])


def test_break_even_takes_the_eager_partner_and_is_null_without_gain(root: Path, database: Path) -> None:
    compiled = {"metrics": {"compile_s": 10.0}, "combo": Combo(compilation="default")}
    write_run(root, run_id="eager", step_ms=[10.0] * 5, sweep=_place("baseline"))
    write_run(root, run_id="fast", step_ms=[5.0] * 5, sweep=_place("candidate", 1), **compiled)
    write_run(root, run_id="slow", step_ms=[11.0] * 5, sweep=_place("candidate", 2), **compiled)
    alone = Combo(compilation="default", attention="sdpa")
    write_run(root, run_id="alone", step_ms=[1.0] * 5, sweep=_place("candidate", 3), **compiled | {"combo": alone})
    # A nearer relative in another sweep must not be taken.
    write_run(root, run_id="other", step_ms=[100.0] * 5)
    sync()
    found = frames.ladder("s").set_index("run_id")["break_even_steps"]
    assert found["fast"] == pytest.approx(2000.0)
    assert found[["eager", "slow", "alone"]].isna().all()


def test_metric_ratios(run_ids: list[str]) -> None:
    found = frames.metric_ratios(run_ids[0], [run_ids[2], run_ids[7]])
    assert found["run_id"].unique().tolist() == [run_ids[2], run_ids[7]]
    by_metric = found[found["run_id"] == run_ids[2]].set_index("metric")
    step = by_metric.loc["step_ms"]
    assert (step["value"], step["baseline_value"], step["unit"], step["better"]) == (40.0, 100.0, "ms", "lower")
    assert step["ratio"] == pytest.approx(0.4)
    assert step["ratio_low"] < 0.4 < step["ratio_high"]
    assert by_metric.loc["samples_per_s", "ratio"] == pytest.approx(2.5)
    assert pd.isna(by_metric.loc["samples_per_s", "ratio_low"])
    assert "gradient_error" not in by_metric.index, "neither run has it"
    assert found.loc[found["run_id"] == run_ids[7], "ratio"].isna().all()


def test_metric_ratios_of_an_unknown_baseline_is_an_error(run_ids: list[str]) -> None:
    with pytest.raises(StoreError, match="no run nobody in the index"):
        frames.metric_ratios("nobody", run_ids)


def test_kernels_are_per_step(run_ids: list[str]) -> None:
    kernels = frames.kernels(run_ids[0])
    assert kernels["name"].iloc[0] == "fixture_implicit_gemm_conv"
    assert kernels["num_calls"].tolist() == [6, 8, 4, 4, 10, 4]
    assert kernels["total_ms"].sum() == pytest.approx(95.0, rel=1e-3)
    assert kernels["share"].sum() == pytest.approx(1.0)
    assert kernels["mean_us"].iloc[0] == pytest.approx(38_000 / 6, rel=1e-3)
    categories = frames.kernel_categories([run_ids[2], run_ids[0]])
    assert categories["run_id"].unique().tolist() == [run_ids[2], run_ids[0]]
    assert categories.groupby("run_id")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    of_baseline = categories[categories["run_id"] == run_ids[0]]
    assert of_baseline["step_total_ms"].sum() == pytest.approx(95.0, rel=1e-3)
    assert of_baseline["step_total_ms"].sum() + of_baseline["idle_ms"].iloc[0] == pytest.approx(
        frames.runs().set_index("run_id").at[run_ids[0], "step_ms"]
    )


def test_the_parts_of_a_peak_add_up_to_it_in_every_recorded_run(database: Path) -> None:
    sync([history.RECORDED])
    runs = frames.runs()
    runs = runs[~runs["run_id"].isin(frames.without_tables(runs["run_id"].tolist()))]
    parts = frames.peak_parts(runs["run_id"].tolist())
    peaks = runs.set_index("run_id")["peak_allocated_gib"].dropna()
    sums = parts.groupby("run_id", sort=False)["gib"].sum()
    assert sums.index.tolist() == peaks.index.tolist()
    assert sums.to_numpy() == pytest.approx(peaks.to_numpy(), rel=1e-6)
    strict = runs.query("model == 'sd15' and mode == 'train' and batch == 16 and combo_label == 'baseline'")
    strict = strict["run_id"].iloc[0]
    own = parts[parts["run_id"] == strict].set_index("part")["gib"]
    assert own["temporary"] == pytest.approx(3 * 8, abs=0.5)  # math attention: three tensors of 16 x 8 x 4096^2 scores
    assert own["untraced"] < 0.1


def test_a_run_packed_without_its_tables_is_told_from_one_that_was_never_traced(root: Path, database: Path) -> None:
    for name in ("whole", "packed"):
        write_run(root, run_id=name)
    for table in ("kernels", "memory", "ops"):
        (root / "packed" / f"{table}.parquet").unlink()
    write_run(root, run_id="too-large", status="oom", cause="CUDA out of memory")
    sync()
    assert frames.without_tables(["whole", "packed", "too-large"]) == ("packed",)
    assert frames.kernel_categories(["whole", "packed"])["run_id"].unique().tolist() == ["whole"]
    assert frames.peak_parts(["whole", "packed"])["run_id"].unique().tolist() == ["whole"]
    assert frames.runs().set_index("run_id").at["packed", "step_ms"] > 0


def test_a_short_memory_timeline_keeps_the_peak(run_ids: list[str]) -> None:
    full, short = frames.memory_timeline(run_ids[0]), frames.memory_timeline(run_ids[0], max_points=7)
    assert (full["time_ms"].nunique(), short["time_ms"].nunique()) == (100, 7)
    assert full["category"].unique().tolist() == list(run_files.MEMORY_CATEGORIES)
    totals = [frame.groupby("time_ms")["gib"].sum().max() for frame in (full, short)]
    assert totals[0] == pytest.approx(totals[1])


def test_evidence_in_words(run_ids: list[str]) -> None:
    row = frames.evidence(run_ids[1]).iloc[0]
    assert row.to_dict() == {
        "family": "attention",
        "choice": "sdpa",
        "confirmed": True,
        "facts": "modules: 32",
        "must_appear": "a kernel of the fixture: fixture_.*",
        "must_not_appear": "",
        "observed": "fixture attention fwd: 32",
        "finding": "",
    }


def test_sweeps(run_ids: list[str]) -> None:
    (sweep,) = [row for row in frames.sweeps().to_dict("records") if row["sweep_id"] == "fixture-ladder"]
    assert sweep["workload_label"] == "sd15 inference b2 512 px cuda"
    assert (sweep["num_jobs"], sweep["num_runs"], sweep["num_done"], sweep["is_recorded"]) == (10, 10, 7, False)
    assert (str(sweep["started_at"]), str(sweep["ended_at"])) == ("2026-11-01 00:00:00", "2026-11-01 00:09:30")


def test_record_of_an_unknown_run_or_a_gone_folder_is_an_error(run_ids: list[str], root: Path) -> None:
    assert frames.record(run_ids[0])["run_id"] == run_ids[0]
    (root / run_ids[0] / "record.json").unlink()
    for run_id in (run_ids[0], "nobody"):
        with pytest.raises(StoreError, match="python -m store"):
            frames.record(run_id)


def _place(role: Any, position: int = 0) -> SweepPlace:
    return SweepPlace(sweep_id="s", name="grid", position=position, num_jobs=4, role=role)


def test_the_ledger_sets_what_runs_again_against_what_is_spared(root: Path, database: Path, run_ids: list[str]) -> None:
    ledger = frames.recompute_ledger("checkpointed")
    assert ledger["unit"].fillna("").tolist() == [
        *("down_blocks.0.resnets.0", "down_blocks.1.attentions.0.transformer_blocks.0", "mid_block.resnets.0"),
        *("up_blocks.2.attentions.0.transformer_blocks.0", "up_blocks.3.resnets.1", ""),
    ]
    assert ledger["block"].fillna("").tolist() == ["down.0", "down.1", "mid", "up.2", "up.3", ""]
    kernels = frames.kernels("checkpointed")
    again = kernels.loc[kernels["phase"] == "recompute", "total_ms"].sum()
    assert ledger["recompute_ms"].tolist() == pytest.approx([again, 0, 0, 0, 0, 0])  # the fixture's one module
    assert (ledger["saved_gib"] == ledger["plain_gib"] - ledger["kept_gib"]).all()
    assert ledger["kept_gib"].sum() == pytest.approx(ledger["plain_gib"].sum() / 4)
    first = ledger.iloc[0]
    assert first["ms_per_gib"] == pytest.approx(first["recompute_ms"] / first["saved_gib"])
    assert ledger["ms_per_gib"].iloc[1:].isna().all()  # nothing of them runs again


def test_without_a_run_that_differs_in_checkpointing_alone_what_is_spared_is_unknown(
    root: Path, database: Path
) -> None:
    train = Workload(model="tiny", mode="train", device="cpu")
    write_run(root, run_id="one", workload=train, combo=Combo(checkpointing="full"))
    write_run(root, run_id="other", workload=train, combo=Combo(attention="sdpa"))
    write_run(root, run_id="larger", workload=replace(train, batch=8))
    sync()
    ledger = frames.recompute_ledger("one")
    assert ledger["kept_gib"].sum() > 0
    assert ledger[["plain_gib", "saved_gib", "ms_per_gib"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("other", "is_judged"),
    [
        pytest.param({}, True, id="one of them"),
        pytest.param({"workload": replace(TRAINING, seed=1)}, False, id="another seed: other weights"),
        pytest.param({"machine": replace(FIXTURE_CPU, cpu_name="another")}, False, id="another device draws otherwise"),
        pytest.param({"machine": replace(FIXTURE_CPU, torch="3.0")}, False, id="so may another torch"),
        pytest.param({"workload": replace(TRAINING, world_size=2)}, False, id="one process's share of the batch"),
        pytest.param({"metrics": {"num_skipped_steps": 1}}, False, id="a step behind: loss scaling skipped one"),
    ],
)
def test_a_loss_is_judged_among_its_like_alone(
    other: dict[str, Any], is_judged: bool, root: Path, database: Path
) -> None:
    write_training(root)
    how = {"combo": Combo(precision="fp16_amp"), "workload": TRAINING, "sweep": FIFTH} | other
    write_run(root, run_id="other", losses=[1.2] * 9, **how)
    sync()
    found = frames.departures(["training-3", "other"])["run_id"].tolist()
    assert found == (["other"] if is_judged else ["training-3"]), "as one of the others it widens their spread"


def test_where_dropout_draws_no_loss_is_judged(root: Path, database: Path) -> None:
    run_ids = write_training(root, notes=(dropout.NOTE,))
    sync()
    assert frames.departures(run_ids).empty


def test_a_loss_that_is_no_number_is_no_point_of_its_curve(root: Path, database: Path) -> None:
    """Such a run is wrong already, and its record says at which step."""
    write_training(root)
    write_run(root, run_id="gone", workload=TRAINING, sweep=FIFTH, status="wrong", losses=[1.116, 1.955, *[None] * 7])
    sync()
    assert list(run_files.losses("gone")) == [1, 2]
    assert frames.departures(["training-3", "gone"])["run_id"].tolist() == ["training-3"]


def _batches(root: Path, peaks: dict[int, float | None], **combo: Any) -> pd.DataFrame:
    """Runs of one combo on a GPU of 80 GiB, of which 3.2 + 0.6 GiB lie outside of the allocator; None is oom."""
    for batch, peak in peaks.items():
        how: dict[str, Any] = {"status": "oom", "cause": "no memory"}
        if peak is not None:
            how = {"metrics": {"peak_allocated_gib": peak, "peak_reserved_gib": peak, "peak_device_gib": peak + 3.8}}
        write_run(root, run_id=f"b{batch}", workload=replace(GPU_WORKLOAD, batch=batch), combo=Combo(**combo), **how)
    sync()
    return frames.largest_batch((f"b{min(peaks)}",))


def test_the_largest_batch_is_where_the_line_meets_the_devices_memory(root: Path, database: Path) -> None:
    rows = _batches(root, {2: 8.0, 4: 14.0, 8: 26.0, 32: None})
    assert rows["run_id"].tolist() == ["b2", "b4", "b8", "b32"]
    assert rows["per_sample_gib"].unique().tolist() == [3.0]
    assert rows["fixed_gib"].unique().tolist() == [2.0]
    assert rows["capacity_gib"].unique().tolist() == pytest.approx([76.2])
    assert rows["largest_batch"].unique().tolist() == [24]  # 2 + 24 * 3 = 74, 25 would be 77
    assert rows["predicted_gib"].tolist()[2:] == [26.0, 98.0]
    assert rows["error"].iloc[2] == 0
    assert rows["basis"].unique().tolist() == ["4 and 8"]
    assert rows["verdict"].unique().tolist() == ["unchecked"]  # that 32 does not fit says nothing of 25
    assert fits.to_try(rows) == [24, 25]


def test_what_was_measured_to_fit_and_the_next_one_not_is_the_largest(root: Path, database: Path) -> None:
    rows = _batches(root, {2: 8.0, 4: 14.0, 24: 73.0})
    assert rows["basis"].unique().tolist() == ["4 and 24"], "the largest that fit predict"
    assert rows[["earlier_basis", "earlier_batch"]].drop_duplicates().to_numpy().tolist() == [["2 and 4", 24]]
    assert fits.to_try(rows) == [25, 26]
    write_run(root, run_id="b25", workload=replace(GPU_WORKLOAD, batch=25), status="oom")
    sync()
    rows = frames.largest_batch(("b2",))
    assert rows["line_batch"].unique().tolist() == [25]
    assert rows["largest_batch"].unique().tolist() == [24]
    assert rows["verdict"].unique().tolist() == ["measured"]
    assert fits.to_try(rows) == []


def test_one_batch_that_fits_below_one_that_does_not_needs_no_line(root: Path, database: Path) -> None:
    rows = _batches(root, {1: 8.0, 2: None})
    assert (rows["largest_batch"].unique().tolist(), rows["verdict"].unique().tolist()) == ([1], ["measured"])
    assert fits.why_unknown(rows) == ""


def test_a_prediction_that_doubling_went_past_is_history(root: Path, database: Path) -> None:
    """SD1.5's training in strict fp32 with math attention on an H200: cuDNN's workspace leaps at batch 8."""
    for batch, peak in {1: 31.3, 2: 21.4, 4: 33.1, 8: 77.0, 16: 103.1, 32: None}.items():
        how: dict[str, Any] = {"status": "oom", "cause": "no memory"}
        if peak is not None:
            how = {"metrics": {"peak_allocated_gib": peak, "peak_reserved_gib": peak, "peak_device_gib": peak + 0.75}}
        on_h200 = replace(FIXTURE_GPU, gpu_memory_gib=139.8)
        write_run(root, run_id=f"b{batch}", workload=replace(GPU_WORKLOAD, batch=batch), machine=on_h200, **how)
    sync()
    rows = frames.largest_batch(("b2",))
    assert rows["basis"].unique().tolist() == ["8 and 16"]
    assert rows["largest_batch"].unique().tolist() == [27]
    assert rows[["earlier_basis", "earlier_batch"]].drop_duplicates().to_numpy().tolist() == [["4 and 8", 13]]
    assert rows["verdict"].unique().tolist() == ["unchecked"]


@pytest.mark.parametrize(
    ("peaks", "second"),
    [({4: 8.0}, 8), ({4: 8.0, 16: None}, 8), ({4: 8.0, 8: None}, 2), ({1: 8.0, 2: None}, None), ({4: None}, None)],
)
def test_the_second_batch_is_one_that_may_fit(
    root: Path, database: Path, peaks: dict[int, float | None], second: int | None
) -> None:
    assert fits.to_measure(_batches(root, peaks)) == second


@pytest.mark.parametrize("checks", [{30: 60.0}, {25: 73.0}, {24: 70.0, 25: 73.0}])
def test_a_prediction_is_never_below_what_fits(root: Path, database: Path, checks: dict[int, float | None]) -> None:
    rows = _batches(root, {2: 8.0, 4: 14.0} | checks)
    assert rows["earlier_batch"].unique().tolist() == [24]
    assert rows["largest_batch"].iloc[0] >= max(checks)
    assert rows["verdict"].unique().tolist() == ["unchecked"]
    assert fits.to_try(rows)[-1] > max(checks)


def test_a_batch_above_the_devices_memory_is_not_predicted_below_what_fits(root: Path, database: Path) -> None:
    """Where a run's overhead leaves less than another run's peak took, the peak was there all the same."""
    rows = _batches(root, {2: 8.0, 4: 78.0})
    assert (rows["line_batch"].iloc[0], rows["largest_batch"].iloc[0]) == (3, 4)


def test_a_batch_that_should_have_fitted_refutes_the_line_and_bounds_it(root: Path, database: Path) -> None:
    rows = _batches(root, {2: 8.0, 4: 10.0, 8: 20.0, 16: None})
    assert rows["line_batch"].iloc[0] == 30
    assert rows["largest_batch"].iloc[0] == 15
    assert rows["verdict"].unique().tolist() == ["refuted"]
    assert rows["refutes"].tolist() == [False, False, False, True]
    assert rows["error"].iloc[2] == pytest.approx(14 / 20 - 1)
    assert fits.to_try(rows) == [12], "halfway between what fits and what does not"
    assert fits.to_try(_batches(root, {10: 25.0, 14: None})) == [12]
    assert fits.to_try(_batches(root, {11: 27.0, 13: None})) == [12]


def test_one_batch_or_a_flat_line_predicts_nothing(root: Path, database: Path) -> None:
    rows = _batches(root, {2: 8.0})
    assert rows["largest_batch"].isna().all()
    assert rows["verdict"].tolist() == ["unknown"]
    assert fits.to_measure(rows) == 4
    assert fits.why_unknown(rows).endswith("and here is 1")
    write_run(root, run_id="flat", workload=replace(GPU_WORKLOAD, batch=4), metrics={"peak_allocated_gib": 8.0})
    sync()
    flat = frames.largest_batch(("flat",))
    assert flat["per_sample_gib"].tolist() == [0.0, 0.0]
    assert flat["largest_batch"].isna().all()
    assert fits.to_measure(flat) is None
    assert fits.why_unknown(flat) == "the peaks of batches 2 and 4 do not grow"


def test_other_combos_models_and_devices_are_no_siblings(root: Path, database: Path) -> None:
    write_run(root, run_id="sdpa", workload=replace(GPU_WORKLOAD, batch=16), combo=Combo(attention="sdpa"))
    write_run(root, run_id="sdxl", workload=replace(GPU_WORKLOAD, batch=16, model="sdxl"))
    small = replace(FIXTURE_GPU, gpu_name="Small GPU", gpu_uuid="GPU-2")
    write_run(root, run_id="small", workload=replace(GPU_WORKLOAD, batch=16), machine=small)
    assert _batches(root, {2: 8.0, 4: 14.0})["run_id"].tolist() == ["b2", "b4"]


def test_a_cpu_has_a_line_but_no_largest_batch(root: Path, database: Path) -> None:
    for batch in (1, 2, 4):
        work, peak = replace(CPU_WORKLOAD, batch=batch), {"peak_allocated_gib": 1.0 + batch}
        write_run(root, run_id=f"c{batch}", workload=work, metrics=peak)
    sync()
    rows = frames.largest_batch(("c1",))
    assert rows["predicted_gib"].tolist()[2] == 5.0
    assert rows[["capacity_gib", "largest_batch"]].isna().all(axis=None)
    assert "how much memory the device has" in fits.why_unknown(rows)
    assert rows["verdict"].unique().tolist() == ["unknown"]


def test_a_run_that_moved_is_found_where_the_index_has_it_now(
    root: Path, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(root, run_id="moves", status="failed", cause="here")
    sync()
    assert frames.record("moves")["cause"] == "here"
    shutil.rmtree(root / "moves")
    monkeypatch.setenv("STEPLENS_ROOTS", str(tmp_path / "there"))
    write_run(tmp_path / "there", run_id="moves", status="failed", cause="there")
    sync()
    assert frames.record("moves")["cause"] == "there"
