"""Studies: what each holds, that pairs are covered, and that nothing larger is tried once something did not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.combo import BASELINE, FAMILIES, Combo, applies, choices
from profiler.machine import Machine
from profiler.record import Record
from profiler.why_not import why_not
from profiler.workload import ZOO, Workload
from runs import studies
from runs.fit import why_too_large
from runs.job import Job, run_folder
from runs.job_queue import submit
from runs.rungs import Options
from runs.sweep import expand
from tests.runs.fake_worker import machine

CPU = machine()
GPU = replace(
    CPU,
    gpu_name="NVIDIA H200",
    gpu_uuid="GPU-1",
    compute_capability=(9, 0),
    packages={"triton": "3", "xformers": "1", "flash-attn": "2.8.3", "torchao": "0.18"},
)
INFERENCE = Workload(model="sd15", mode="inference", batch=8, device="cuda")
TRAIN = replace(INFERENCE, mode="train")


def runs(name: str, workload: Workload, **options: Any) -> list[Job]:
    made = expand(name, workload, GPU, options=Options(**options))
    return [job for job in made.jobs if job.kind == "measure"]


@pytest.mark.parametrize("workload", [INFERENCE, TRAIN])
def test_one_at_a_time_holds_every_choice_that_matters_once(workload: Workload) -> None:
    found = [job.combo for job in runs("one_at_a_time", workload)]
    alone = [
        Combo.from_dict({family: choice})
        for family in FAMILIES
        if applies(family, workload.mode)
        for choice in choices(family)[1:]
    ]
    assert found == [BASELINE, *alone, BASELINE]


def test_leave_one_out_takes_one_choice_after_another_away() -> None:
    base, whole, *without, again = [job.combo for job in runs("leave_one_out", TRAIN)]
    assert base == again == BASELINE
    assert [one.difference(whole) for one in without] == [
        {family: choices(family)[0]} for family in whole.difference(BASELINE)
    ]


def test_around_exchanges_one_choice_of_the_stack_at_a_time() -> None:
    base, whole, *exchanged, again = [job.combo for job in runs("around", TRAIN, vary="attention, compilation")]
    assert base == again == BASELINE
    differences = [one.difference(whole) for one in exchanged]
    others = [name for name in choices("attention") if name != whole.attention]
    assert differences[: len(others)] == [{"attention": name} for name in others]
    assert {"compilation": "eager"} in differences
    assert {"compilation": "max_autotune"} not in differences  # it searches for many minutes
    assert all(len(one) == 1 for one in differences)


def test_around_exchanges_single_choices_too() -> None:
    vary = "compilation = max_autotune, precision=fp16, memory_format"
    _, whole, *exchanged, _ = [job.combo for job in runs("around", INFERENCE, vary=vary)]
    assert [one.difference(whole) for one in exchanged] == [
        {"precision": "fp16"},
        {"memory_format": "contiguous"},
        {"compilation": "max_autotune"},
    ]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("optimizer", "no family optimizer in mode=inference: choose from attention"),
        ("attention=fast", "attention has no choice fast: choose from math, sdpa"),
        ("attention=", "attention has no choice : choose from math"),
        ("precision=bf16", "precision=bf16 is what the stack has already"),
    ],
)
def test_around_varies_what_exists(vary: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs("around", INFERENCE, vary=vary)


def test_pairs_hold_each_alone_and_every_two() -> None:
    families = {"attention": ["sdpa"], "precision": ["bf16"], "memory_format": ["channels_last"]}
    found = [len(job.combo.difference(BASELINE)) for job in runs("pairs", INFERENCE, families=families)]
    assert found == [0, 1, 1, 1, 2, 2, 2, 0]


def test_a_stack_takes_one_choice_of_a_family() -> None:
    with pytest.raises(ValueError, match="takes one choice of attention: name one, or run a grid"):
        runs("leave_one_out", INFERENCE, families={"attention": ["sdpa", "math"]})


def test_a_stack_is_more_than_the_baseline() -> None:
    with pytest.raises(ValueError, match="the stack is the baseline itself"):
        runs("leave_one_out", INFERENCE, families={"attention": ["math"]})


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("scaling_batch", "batch", [1, 2, 4, 8, 16, 32]),
        ("scaling_resolution", "resolution", [256, 384, 512, 768, 1024]),
        ("scaling_model", "model", ["tiny", "ddpm-cifar10", "sd15", "sd2", "sdxl"]),
    ],
)
def test_scaling_sets_the_baseline_beside_the_stack_at_every_size(name: str, field: str, values: list[Any]) -> None:
    found = runs(name, INFERENCE, max_batch=40)
    assert [getattr(job.workload, field) for job in found] == [v for v in values for _ in range(2)] + values[:1]
    assert [job.combo == BASELINE for job in found] == [True, False] * len(values) + [True]
    roles = [job.sweep.role for job in found if job.sweep]
    assert roles == ["baseline", "candidate"] * len(values) + ["baseline_repeat"]


def test_scaling_model_takes_the_variants_of_sd15_or_all_models_by_their_size() -> None:
    variants = [job.workload.model for job in runs("scaling_model", INFERENCE, models="variants")]
    assert variants[::2] == ["sd15-w0.5", "sd15-w0.8", "sd15-d1", "sd15", "sd15-d3", "sd15-w1.5", "sd15-w0.5"]
    every = [job.workload.model for job in runs("scaling_model", INFERENCE, models="all")][:-1:2]
    assert every == sorted(ZOO, key=lambda name: ZOO[name].million_parameters)
    with pytest.raises(ValueError, match="unknown models 'some': choose one of zoo, variants, all"):
        runs("scaling_model", INFERENCE, models="some")


def test_a_single_combo_lies_between_two_runs_of_the_baseline() -> None:
    combos = [job.combo for job in runs("single_combo", INFERENCE, families={"attention": ["sdpa"]})]
    assert combos == [BASELINE, Combo(attention="sdpa"), BASELINE]
    assert runs("single_combo", INFERENCE)[1].combo == studies.stack(INFERENCE, Options())


def pairs_of(combos: list[Combo]) -> set[studies.Pair]:
    return set[studies.Pair]().union(*(studies._pairs_of(combo) for combo in combos))


@pytest.mark.parametrize("there", [CPU, GPU])
@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
def test_the_covering_array_holds_every_allowed_pair_and_nothing_impossible(mode: Any, there: Machine) -> None:
    work = Workload(model="tiny", mode=mode, device="cuda" if there.has_cuda else "cpu")
    found = [combo for combo, _ in studies.covering_array(work, there)]
    assert studies.allowed_pairs(work, there) <= pairs_of(found)
    assert all(why_not(combo, work, there) is None for combo in found)
    *_, second, first = sorted(len(choices(family)) for family in FAMILIES if applies(family, mode))
    assert len(found) == len(set(found)) <= first * second
    assert found == [combo for combo, _ in studies.covering_array(work, there)]
    rest = [combo for combo, _ in studies.covering_array(work, there, done=found[1:])]
    assert 0 < len(rest) < len(found)
    assert pairs_of(found[1:]) | pairs_of(rest) >= studies.allowed_pairs(work, there)


class TestWhatDidNotFit:
    def planned(self, home: Path) -> list[Job]:
        made = expand("scaling_batch", replace(INFERENCE, device="cpu"), CPU, options=Options(max_batch=8))
        submit(made.jobs, home=home, start_scheduler=False)
        return [job for job in made.jobs if job.kind == "measure"]

    def end(self, job: Job, status: Any, home: Path) -> None:
        folder = run_folder(job.job_id, home)
        folder.mkdir(parents=True, exist_ok=True)
        Record(run_id=job.job_id, status=status, combo=job.combo, workload=job.workload, sweep=job.sweep).write(folder)

    def test_larger_batches_of_the_same_combo_are_not_tried(self, tmp_path: Path) -> None:
        jobs = self.planned(tmp_path)
        by = {(job.workload.batch, job.combo == BASELINE): job for job in jobs[:-1]}
        self.end(by[1, True], "done", tmp_path)
        self.end(by[2, True], "oom", tmp_path)
        reason = why_too_large(by[4, True], tmp_path)
        assert reason == (
            f"sd15 inference b2 512 px cpu did not fit (run {by[2, True].job_id}), "
            "so sd15 inference b4 512 px cpu was not tried"
        )
        assert why_too_large(by[8, True], tmp_path)
        assert why_too_large(by[2, True], tmp_path) is None
        assert why_too_large(by[8, False], tmp_path) is None

    def test_a_run_that_failed_otherwise_says_nothing_of_larger_ones(self, tmp_path: Path) -> None:
        jobs = self.planned(tmp_path)
        self.end(jobs[0], "failed", tmp_path)
        assert all(why_too_large(job, tmp_path) is None for job in jobs)
