"""Sweeps as data: which combos, in which order and why. Pure: no files, no device, no queue.

Every sweep measures its baseline first and once more at its end, so that drift is known; a numerical
reference is made before, where none is there yet.
"""

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from profiler.combo import BASELINE, Combo
from profiler.machine import Machine
from profiler.record import SweepPlace
from profiler.why_not import why_not
from profiler.workload import Workload
from runs import studies
from runs.estimate import Durations, Estimate, estimate
from runs.job import Job, measure_job, with_references
from runs.rungs import Ladder, Models, Options, Rung, checked_families

__all__ = ["SWEEPS", "Models", "Options", "Rung", "Sweep", "SweepKind", "default_device", "expand"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep ready to be submitted: runs.job_queue.submit(sweep.jobs)."""

    sweep_id: str
    name: str
    description: str
    jobs: tuple[Job, ...]  # references included, in the order of the queue
    reasons: Mapping[str, str]  # job_id -> why it is in the sweep
    rejected: tuple[tuple[Job, str], ...]  # runs that cannot work on this machine, and why; they are recorded as such
    num_runs: int  # runs that will be measured: those that are rejected are not among them
    estimate: Estimate  # of the jobs that can work here

    @property
    def shared_reason(self) -> str | None:
        """The reason that all rejected runs share; None where they differ, or none is rejected."""
        reasons = {reason for _, reason in self.rejected}
        return reasons.pop() if len(reasons) == 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepKind:
    """An entry of SWEEPS."""

    name: str
    description: str
    mode: str | None  # the only mode it is for
    rungs: Callable[[Workload, Options, Machine | None], list[Rung]]
    takes: Literal["", "lists", "stack"] = ""  # whether it asks for choices per family: several, or one
    has_own_workload: bool = False
    sets: tuple[str, ...] = ()  # the fields of the workload that it varies by itself


def expand(
    name: str,
    workload: Workload | None,
    machine: Machine | None,
    *,
    options: Options | None = None,
    known_references: Collection[str] = (),
    durations: Durations | None = None,
    sweep_id: str | None = None,
) -> Sweep:
    """The jobs of a sweep. `workload` is what its runs share; quick brings its own and takes only the device.

    machine=None (not probed yet) rejects nothing. Raises ValueError for an unknown sweep, family or choice, and
    for a workload in a mode that the sweep is not for.
    """
    kind = kind_of(name)
    base = workload or Workload(**defaults(name, machine))
    if kind.mode and base.mode != kind.mode and not (kind.mode == "inference" and base.mode == "sample"):
        raise ValueError(f"{name} is for mode={kind.mode}, not {base.mode}")
    rungs = kind.rungs(base, options or Options(), machine)
    sweep_id = sweep_id or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{name}-{secrets.token_hex(2)}"
    jobs, reasons = _jobs(rungs, sweep_id, name, known_references)
    reasons_against = {job.job_id: why_not(job.combo, job.workload, machine) if machine else None for job in jobs}
    working = [job for job in jobs if reasons_against[job.job_id] is None]
    runs = [job for job in jobs if job.kind == "measure"]
    return Sweep(
        sweep_id=sweep_id,
        name=name,
        description=kind.description,
        jobs=tuple(jobs),
        reasons=reasons,
        rejected=tuple((job, reason) for job in runs if (reason := reasons_against[job.job_id])),
        num_runs=sum(job.kind == "measure" for job in working),
        estimate=estimate(working, durations),
    )


def default_stack(workload: Workload) -> Combo:
    """What a study of a stack takes when nothing is chosen."""
    return studies.stack(workload, Options())


def kind_of(name: str) -> SweepKind:
    """Raises ValueError for an unknown sweep."""
    if name not in SWEEPS:
        raise ValueError(f"unknown sweep {name!r}: choose one of {', '.join(SWEEPS)}")
    return SWEEPS[name]


def defaults(name: str, machine: Machine | None) -> dict[str, Any]:
    """The fields of a workload that sweep and machine settle where they are not chosen. Raises as kind_of does."""
    return {"device": default_device(machine), "mode": kind_of(name).mode or "inference"}


def default_device(machine: Machine | None) -> Any:
    """cuda where the machine has it."""
    return "cuda" if machine and machine.has_cuda else "cpu"


def _jobs(
    rungs: list[Rung], sweep_id: str, name: str, known_references: Collection[str]
) -> tuple[list[Job], dict[str, str]]:
    runs = []
    for position, rung in enumerate(rungs):
        place = SweepPlace(sweep_id=sweep_id, name=name, position=position, num_jobs=len(rungs), role=rung.role)
        runs.append(measure_job(rung.combo, rung.workload, place))
    jobs = with_references(runs, known_references)
    reasons = dict.fromkeys(
        (job.job_id for job in jobs), "the numbers that every run of this workload is compared with"
    )
    reasons |= {job.job_id: rung.reason for job, rung in zip(runs, rungs, strict=True)}
    return jobs, reasons


def _quick(base: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    def short(mode: Any) -> Workload:
        times: dict[str, Any] = {"min_samples": 10, "min_seconds": 1.0}
        curve_steps = 30 if base.device == "cuda" else 15  # all at the same precision: on a CPU they take seconds
        return Workload(model="tiny", mode=mode, batch=2, device=base.device, curve_steps=curve_steps, **times)

    inference = Ladder(short("inference"))
    inference.step("one fused attention kernel instead of materialised scores", attention="sdpa")
    inference.branch("16-bit weights: half the bytes", precision="bf16")
    inference.branch("fused element-wise kernels, no Python between operators", compilation="default")
    train = Ladder(short("train"))
    train.step("one fused attention kernel, forward and backward", attention="sdpa")
    train.branch("the optimizer step as one kernel", optimizer="adamw_fused")
    train.branch("less memory for one more forward", checkpointing="full")
    if base.device == "cuda":  # a CPU's compiler takes a minute for what the compiled inference shows already
        train.branch("forward and backward of each block compiled", compilation="regional")
    return inference.end() + train.end()


def _ladder_inference(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    ladder, on_gpu = Ladder(workload), workload.device == "cuda"
    if on_gpu:
        ladder.step("Tensor Cores for fp32 matmuls and convolutions", precision="tf32")
    ladder.step("16-bit weights and Tensor Cores", precision="bf16")
    for attention in _attention_kernels(on_gpu, options):
        ladder.branch("an alternative to PyTorch's own choice of attention kernel", attention=attention)
    ladder.step("one fused attention kernel, PyTorch's own choice", attention="sdpa")
    ladder.step("the layout that convolution kernels prefer", memory_format="channels_last")
    ladder.step("fused element-wise kernels, no Python between operators", compilation="default")
    if on_gpu:
        ladder.step("CUDA graphs: no launch overhead", compilation="reduce_overhead")
    if options.max_autotune:
        ladder.step("the fastest kernel searched for every shape", compilation="max_autotune")
    return ladder.end()


def _ladder_train(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    ladder, on_gpu = Ladder(workload), workload.device == "cuda"
    if on_gpu:
        ladder.step("Tensor Cores for fp32 matmuls and convolutions", precision="tf32")
    ladder.step("16-bit autocast over fp32 weights", precision="bf16_amp")
    for attention in _attention_kernels(on_gpu, options):
        ladder.branch("an alternative to PyTorch's own choice of attention kernel", attention=attention)
    ladder.step("one fused attention kernel, forward and backward", attention="sdpa")
    ladder.step("the optimizer step as one kernel", optimizer="adamw_fused")
    ladder.step("the layout that convolution kernels prefer", memory_format="channels_last")
    ladder.branch("memory branch: recompute blocks in the backward", checkpointing="full")
    ladder.branch("memory branch: recompute norms and linear layers only", checkpointing="selective")
    if on_gpu:
        ladder.branch("fp16 instead of bf16: needs loss scaling", precision="fp16_amp")
    ladder.step("forward and backward compiled", compilation="default")
    if options.max_autotune:
        ladder.step("the fastest kernel searched for every shape", compilation="max_autotune")
    return ladder.end()


def _attention_kernels(on_gpu: bool, options: Options) -> list[str]:
    if not on_gpu:
        return []
    own = ["sdpa_flash", "sdpa_efficient", "sdpa_cudnn"] if options.sdpa_kernels else []
    return ["xformers", "flash_attn_2", *own]


def _grid(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    lists = checked_families(options.families, workload.mode)
    combos = [Combo.from_dict(dict(zip(lists, values, strict=True))) for values in product(*lists.values())]
    ladder = Ladder(workload)
    for combo in dict.fromkeys(combos):
        if combo != BASELINE:
            ladder.branch("a cell of the grid", **combo.to_dict())
    return ladder.end()


def _single_combo(workload: Workload, options: Options, machine: Machine | None) -> list[Rung]:
    ladder = Ladder(workload)
    ladder.branch("the combo that was chosen", **studies.stack(workload, options).to_dict())
    return ladder.end()


SWEEPS: dict[str, SweepKind] = {
    kind.name: kind
    for kind in (
        SweepKind(
            name="quick",
            description="A first look in minutes: the tiny model, ten or eleven runs over inference and training.",
            mode=None,
            rungs=_quick,
            has_own_workload=True,
        ),
        SweepKind(
            name="ladder_inference",
            description="From plain fp32 to the fastest denoising forward, one more optimisation per rung.",
            mode="inference",
            rungs=_ladder_inference,
        ),
        SweepKind(
            name="ladder_train",
            description="From plain fp32 to the fastest training step, one more per rung, and a memory branch.",
            mode="train",
            rungs=_ladder_train,
        ),
        SweepKind(
            name="single_combo",
            description="One combo between two runs of the baseline, so that its speedup and the drift are known.",
            mode=None,
            rungs=_single_combo,
            takes="stack",
        ),
        SweepKind(
            name="grid",
            description="Every combination of the choices that you list per family, and the baseline.",
            mode=None,
            rungs=_grid,
            takes="lists",
        ),
        SweepKind(
            name="one_at_a_time",
            description="What each choice buys alone: the baseline, then every other choice of every family.",
            mode=None,
            rungs=studies.one_at_a_time,
        ),
        SweepKind(
            name="around",
            description="A stack with one choice exchanged at a time, to see whether any family has a better one.",
            mode=None,
            rungs=studies.around,
            takes="stack",
        ),
        SweepKind(
            name="leave_one_out",
            description="What a whole stack of choices loses without each of them.",
            mode=None,
            rungs=studies.leave_one_out,
            takes="stack",
        ),
        SweepKind(
            name="pairs",
            description="Each choice of a stack alone and every two together: which help each other, which overlap.",
            mode=None,
            rungs=studies.pairs,
            takes="stack",
        ),
        SweepKind(
            name="scaling_batch",
            description="Baseline and stack at doubled batches until one does not fit.",
            mode=None,
            rungs=studies.scaling_batch,
            sets=("batch",),
            takes="stack",
        ),
        SweepKind(
            name="scaling_resolution",
            description="Baseline and stack from half to twice the resolution.",
            mode=None,
            rungs=studies.scaling_resolution,
            takes="stack",
        ),
        SweepKind(
            name="scaling_model",
            description="Baseline and stack on models of growing size: the zoo's, or sd15 in other widths and depths.",
            mode=None,
            rungs=studies.scaling_model,
            sets=("model", "resolution"),
            takes="stack",
        ),
        SweepKind(
            name="covering",
            description="Every pair of choices that can run here, in few runs: what breaks, and what is wrong.",
            mode=None,
            rungs=studies.covering,
        ),
    )
}
