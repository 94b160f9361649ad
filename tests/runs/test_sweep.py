"""Sweeps as data: what each holds, in which order, and what is left out or rejected."""

from dataclasses import replace

import pytest

from profiler.combo import BASELINE, Combo
from profiler.machine import Machine
from profiler.workload import Workload
from runs.estimate import Estimate, estimate, estimate_job
from runs.job import Job, measure_job
from runs.sweep import SWEEPS, Options, Sweep, expand
from tests.runs.fake_worker import machine

CPU = machine()
GPU = replace(
    CPU,
    gpu_name="NVIDIA H200",
    gpu_uuid="GPU-1",
    compute_capability=(9, 0),
    packages={"triton": "3", "xformers": "1", "flash-attn": "2.8.3"},
)
INFERENCE = Workload(model="sd15", mode="inference", batch=8, device="cuda")
TRAIN = replace(INFERENCE, mode="train")


def labels(sweep: Sweep) -> list[str]:
    return [job.combo.label for job in runs(sweep)]


def runs(sweep: Sweep) -> list[Job]:
    return [job for job in sweep.jobs if job.kind == "measure"]


@pytest.mark.parametrize(
    ("name", "workload"), [("quick", None), ("ladder_inference", INFERENCE), ("ladder_train", TRAIN)]
)
def test_each_workload_has_its_baseline_first_and_again_last(name: str, workload: Workload | None) -> None:
    sweep = expand(name, workload, GPU)
    for one in dict.fromkeys(job.workload for job in runs(sweep)):
        mine = [job for job in runs(sweep) if job.workload == one]
        assert [job.sweep.role for job in mine if job.sweep] == [
            "baseline", *["candidate"] * (len(mine) - 2), "baseline_repeat",
        ]  # fmt: skip
        assert mine[0].combo == mine[-1].combo == BASELINE
    assert [job.sweep.position for job in runs(sweep) if job.sweep] == list(range(sweep.num_runs))
    assert not sweep.rejected


def test_a_reference_comes_before_the_first_run_that_needs_it_unless_it_is_there() -> None:
    sweep = expand("quick", None, CPU)
    references = [job for job in sweep.jobs if job.kind == "reference"]
    assert len(references) == 2
    for reference in references:
        key = reference.workload.reference_key
        same = [job.kind for job in sweep.jobs if job.workload.reference_key == key]
        assert same[0] == "reference"
        assert "reference" not in same[1:]
    known = {reference.workload.reference_key for reference in references}
    assert not [job for job in expand("quick", None, CPU, known_references=known).jobs if job.kind == "reference"]


@pytest.mark.parametrize(("there", "device"), [(CPU, "cpu"), (GPU, "cuda"), (None, "cpu")])
def test_quick_is_small_and_takes_the_gpu_where_there_is_one(there: Machine | None, device: str) -> None:
    sweep = expand("quick", None, there)
    assert {job.workload.device for job in sweep.jobs} == {device}
    assert {job.workload.model for job in sweep.jobs} == {"tiny"}
    assert len({(job.combo, job.workload.mode) for job in runs(sweep)}) >= 8
    compiled = [job.workload.mode for job in runs(sweep) if job.combo.compilation != "eager"]
    assert compiled == ["inference", "train"][: 2 if device == "cuda" else 1]
    assert sweep.estimate.likely_s < (500 if device == "cpu" else 400)
    assert sweep.estimate.is_rough


def test_the_inference_ladder_climbs_from_fp32_to_cuda_graphs() -> None:
    assert labels(expand("ladder_inference", INFERENCE, GPU)) == [
        "baseline", "tf32", "bf16", "xformers · bf16", "flash_attn_2 · bf16", "sdpa · bf16",
        "sdpa · bf16 · channels_last", "sdpa · bf16 · channels_last · compile default",
        "sdpa · bf16 · channels_last · compile reduce_overhead", "baseline",
    ]  # fmt: skip
    more = labels(expand("ladder_inference", INFERENCE, GPU, options=Options(max_autotune=True, sdpa_kernels=True)))
    assert {"sdpa_cudnn · bf16", "sdpa_flash · bf16", "sdpa_efficient · bf16"} < set(more)
    assert more[-2].endswith("max_autotune")


def test_the_training_ladder_has_a_memory_branch_and_an_fp16_rung() -> None:
    found = labels(expand("ladder_train", TRAIN, GPU))
    assert found[:3] == ["baseline", "tf32", "bf16_amp"]
    assert "sdpa · bf16_amp · channels_last · checkpointing full · adamw_fused" in found
    assert "sdpa · fp16_amp · channels_last · adamw_fused" in found
    assert found[-2] == "sdpa · bf16_amp · channels_last · adamw_fused · compile default"


@pytest.mark.parametrize(("name", "workload"), [("ladder_inference", INFERENCE), ("ladder_train", TRAIN)])
def test_on_a_cpu_a_ladder_has_only_rungs_that_can_work(name: str, workload: Workload) -> None:
    sweep = expand(name, replace(workload, model="tiny", resolution=0, device="cpu"), CPU)
    assert not sweep.rejected
    assert sweep.num_runs > 5


def test_a_missing_package_is_a_rejected_run_that_stays_in_the_sweep() -> None:
    sweep = expand("ladder_inference", INFERENCE, replace(GPU, packages={"triton": "3"}))
    assert [job.combo.attention for job, _ in sweep.rejected] == ["xformers", "flash_attn_2"]
    assert all("pip install" in reason for _, reason in sweep.rejected)
    assert {job.job_id for job, _ in sweep.rejected} < {job.job_id for job in sweep.jobs}
    assert sweep.num_runs == len(runs(sweep)) - 2
    whole = expand("ladder_inference", INFERENCE, GPU)
    assert sweep.estimate.high_s < whole.estimate.high_s


def test_what_cannot_run_here_takes_no_time_its_reference_included() -> None:
    sweep = expand("ladder_inference", INFERENCE, CPU)
    assert len(sweep.rejected) == len(runs(sweep)) > 0
    assert (sweep.num_runs, sweep.estimate) == (0, Estimate())
    assert sweep.estimate.words == "no time"


def test_a_grid_is_the_product_with_its_baseline_and_without_families_that_cannot_matter() -> None:
    families = {"attention": ["math", "sdpa"], "precision": ["fp32", "bf16"], "optimizer": ["adamw"]}
    grid = expand("grid", INFERENCE, GPU, options=Options(families=families))
    assert labels(grid) == ["baseline", "bf16", "sdpa", "sdpa · bf16", "baseline"]
    families["optimizer"].append("adamw_fused")
    assert len(labels(expand("grid", TRAIN, GPU, options=Options(families=families)))) == 9
    assert labels(expand("grid", TRAIN, GPU, options=Options(families={"attention": ["sdpa"]})))[0] == "baseline"


@pytest.mark.parametrize(
    ("name", "workload", "families", "says"),
    [
        ("ladder", INFERENCE, {}, "choose one of quick, ladder_inference"),
        ("ladder_train", INFERENCE, {}, "mode=train, not inference"),
        ("grid", INFERENCE, {"speed": ["fast"]}, "the families are attention"),
        ("grid", INFERENCE, {"attention": ["sdp"]}, "unknown attention sdp: choose from math"),
        ("grid", INFERENCE, {"optimizer": ["adamw", "adamw_fused"]}, "optimizer makes no difference with mode=infer"),
    ],
)
def test_what_is_unknown_is_named_with_the_choices(
    name: str, workload: Workload, families: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        expand(name, workload, GPU, options=Options(families=families))


def test_every_job_has_a_reason_and_an_id_of_its_own() -> None:
    for name, kind in SWEEPS.items():
        sweep = expand(name, TRAIN if kind.mode == "train" else INFERENCE, GPU)
        assert len({job.job_id for job in sweep.jobs}) == len(sweep.jobs)
        assert all(sweep.reasons[job.job_id] for job in sweep.jobs)
        assert sweep.description.endswith(".")


def test_an_estimate_is_a_range_round_earlier_durations_where_there_are_any() -> None:
    job = measure_job(Combo(compilation="default"), INFERENCE)
    rough = estimate_job(job)
    assert rough.is_rough
    assert rough.high_s == 2 * rough.likely_s == 4 * rough.low_s
    assert rough.likely_s > estimate_job(measure_job(Combo(), INFERENCE)).likely_s
    known = {("sd15", "inference", "default", "cuda", 8, 512): (94.0, 500.0, 110.0)}
    twice = estimate([job, job], known)
    assert not twice.is_rough
    assert (twice.low_s, twice.likely_s, twice.high_s) == pytest.approx((160.0, 232.0, 1265.0))
    once_disturbed = dict.fromkeys(known, (94.0, 900.0, 110.0, 102.0))
    assert estimate_job(job, once_disturbed).high_s == pytest.approx(1.25 * 116)
    slow = measure_job(Combo(compilation="max_autotune"), replace(INFERENCE, model="sdxl", resolution=0, device="cpu"))
    assert estimate_job(slow).high_s == slow.timeout_s


def test_runs_of_another_batch_are_a_wider_guess_and_of_another_mode_none() -> None:
    job = measure_job(Combo(), INFERENCE)
    found = estimate_job(job, {("sd15", "inference", "eager", "cuda", 2, 512): (34.0,)})
    assert (found.low_s, found.likely_s, found.high_s, found.is_rough) == (20.0, 40.0, 80.0, True)
    assert estimate_job(job, {("sd15", "train", "eager", "cuda", 8, 512): (34.0,)}) == estimate_job(job)


def test_measuring_narrows_the_range_of_a_plan_and_hardly_moves_it() -> None:
    """By what the runs took on two busy cores."""
    took = {
        ("inference", "eager"): (14.5, 7.0, 9.3, 22.5),
        ("inference", "default"): (175.6,),
        ("train", "eager"): (20.5, 8.5, 34.3, 10.5),
    }
    known = {("tiny", mode, compilation, "cpu", 2, 128): seconds for (mode, compilation), seconds in took.items()}
    first, ranges = expand("quick", None, CPU).estimate, []
    for count in range(1, len(known) + 1):
        ranges.append(expand("quick", None, CPU, durations=dict(list(known.items())[:count])).estimate)
    assert all(first.low_s <= one.low_s <= one.high_s <= 1.15 * first.high_s for one in ranges)
    assert ranges[-1].high_s / ranges[-1].low_s < first.high_s / first.low_s


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (12.0, 44.0, "10 to 40 s"),
        (41.0, 44.0, "about 40 s"),
        (2.0, 3.0, "about 10 s"),
        (150.0, 400.0, "2 to 7 min"),
        (30.0, 110.0, "1 to 2 min"),
        (4000.0, 11000.0, "1 to 3 h"),
    ],
)
def test_an_estimate_is_told_no_finer_than_it_is_known(low: float, high: float, words: str) -> None:
    assert Estimate(low_s=low, likely_s=low, high_s=high).words == words
