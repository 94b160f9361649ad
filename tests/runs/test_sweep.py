"""Sweeps as data: what each holds, in which order, and what is left out or rejected."""

from dataclasses import replace

import pytest

from profiler.combo import BASELINE, Combo
from profiler.machine import Machine
from profiler.workload import Workload
from runs.estimate import estimate_job_s, estimate_s
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
    for mode in ("inference", "train"):
        compiled = [j for j in runs(sweep) if j.workload.mode == mode and j.combo.compilation != "eager"]
        assert len(compiled) == 1
    assert sweep.estimate_s < (300 if device == "cpu" else 400)
    assert sweep.is_estimate_rough


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
    assert sweep.estimate_s < expand("ladder_inference", INFERENCE, GPU).estimate_s


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


def test_an_estimate_takes_earlier_durations_where_there_are_any() -> None:
    job = measure_job(Combo(compilation="default"), INFERENCE)
    rough = estimate_job_s(job)
    assert rough > estimate_job_s(measure_job(Combo(), INFERENCE))
    known = {("sd15", "inference", "default", "cuda"): 500.0}
    assert estimate_s([job, job], known) == pytest.approx(2 * (500 + 6))
    slow = measure_job(Combo(compilation="max_autotune"), replace(INFERENCE, model="sdxl", resolution=0, device="cpu"))
    assert estimate_job_s(slow) <= slow.timeout_s
