"""Session: one run from beginning to end; the table of contents of everything in profiler/."""

import os
import re
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from profiler import (
    curves,
    dropout,
    findings,
    measure,
    memory,
    numerics,
    provenance,
    ranks,
    scaling,
    schedulers,
    telemetry,
    text,
    tracing,
    verify,
    zoo,
)
from profiler.clock import Clock, clock_for
from profiler.combo import Combo
from profiler.devices import datasheet_tflops, matmul_ceiling_tflops
from profiler.environment import git_commit, probe, result_variables
from profiler.flops import forward_flop_per_sample, step_flop
from profiler.machine import Machine
from profiler.optims import apply_all, attention, compilation
from profiler.record import TRACE_SUFFIX, Record, SweepPlace
from profiler.steps import CountedStep, Step, make_step, no_phase
from profiler.subject import (
    Inputs,
    ModelError,
    NotApplicable,
    Subject,
    cast_inputs,
    make_inputs,
    own_share,
    resolve_resolution,
    zoo_note,
)
from profiler.why_not import why_not
from profiler.workload import Workload

Progress = Callable[[str, str], None]  # stage, detail

NUM_INPUTS = 3  # input sets that the timed steps rotate through
ENERGY_SECONDS = 1.5
COMPILE_CALLS = 3  # calls that may compile, warm up or record a graph


def profile(
    combo: Combo,
    workload: Workload,
    folder: Path,
    *,
    run_id: str,
    references: Path,
    sweep: SweepPlace | None = None,
    progress: Progress = lambda stage, detail: None,
) -> Record:
    """Measure one combo on one workload and leave a complete run folder; of several ranks the first one leaves it.

    Whatever goes wrong in the run is a Record too (rejected, oom, failed, wrong, ineffective). Raises OSError
    only, when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, clock_start = datetime.now(UTC), time.monotonic()
    found, status, cause, trail = findings.Findings(workload=workload), "done", "", ""
    if ranks.own_rank():
        progress = _unsaid
    ranks.take_device(workload)
    machine = probe()
    try:
        if reason := why_not(combo, workload, machine):
            raise NotApplicable(reason)
        if combo.parallelism != "none":
            ranks.join(workload)
        with _cold_compile_cache(combo):
            _run(combo, workload, machine, folder, references, found, progress)
        status, cause = findings.judge(found)
    except (NotApplicable, ModelError) as error:
        status, cause = "rejected", str(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        status, cause = "oom", _one_line(error)
    except Exception as error:  # the boundary of a run: everything else is a failed record with its traceback
        is_oom = "can't allocate memory" in str(error)
        status, cause = ("oom" if is_oom else "failed"), f"{type(error).__name__}: {_one_line(error)}"
        trail = _relative(traceback.format_exc())
        if ranks.own_rank():
            ranks.tell_failure(folder, status, cause, trail)
        elif ranks.is_of_another(error):
            theirs = ranks.failure_of_another(folder)
            cause = theirs["cause"] if theirs else f"another rank is gone or does not answer: {cause}"
            status, trail = (theirs["status"], theirs["traceback"]) if theirs else (status, trail)
    progress("write", status)
    record = Record(
        run_id=run_id,
        status=status,  # type: ignore[arg-type]
        combo=combo,
        workload=found.workload,
        machine=machine,
        started_at=started.isoformat(timespec="seconds"),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - clock_start, 3),
        cause=cause,
        traceback=trail,
        contaminated=found.contaminated,
        sweep=sweep,
        metrics=findings.metrics(found),
        samples=found.samples,
        evidence=found.evidence,
        attention_observed=found.attention_observed,
        launch_verdict=found.launch_verdict,
        reference=found.reference,
        notes=tuple(found.notes),
        git_commit=git_commit(),
        variables=result_variables(),
        trace_file=found.trace_file,
        ranks=found.ranks,
        projection=found.projection,
    )
    if not ranks.own_rank():
        record.write(folder)
    return record


def _run(
    combo: Combo,
    workload: Workload,
    machine: Machine,
    folder: Path,
    references: Path,
    found: findings.Findings,
    progress: Progress,
) -> None:
    """All passes in order; what they find is kept in `found` even when a later one fails."""
    device, clock = workload.device, clock_for(workload.device)
    progress("build", workload.label)
    started = time.monotonic()
    unet = zoo.build(workload)
    reference_folder = references / workload.reference_key
    found.workload = workload = replace(workload, resolution=resolve_resolution(unet, workload))
    unet.train(workload.mode == "train")
    clock.synchronize()
    found.metrics["build_s"] = time.monotonic() - started
    found.notes += zoo_note(workload) + schedulers.scheduler_note(workload)
    if workload.mode == "train" and dropout.layers(unet):
        found.notes.append(dropout.NOTE)
    reference = None if ranks.own_rank() else findings.load_reference(reference_folder, unet, found)
    forward_flop = forward_flop_per_sample(unet, workload)

    progress("apply", combo.label)
    if combo.compiles:
        provenance.listen()
    subject, found.evidence = apply_all(Subject(unet=unet, workload=workload, call=unet), combo)
    found.notes += [str(evidence.facts["note"]) for evidence in found.evidence if "note" in evidence.facts]
    world = subject.parallel.world
    plain = [make_inputs(unet, workload, batch=workload.batch, draw=draw) for draw in range(NUM_INPUTS)]
    inputs = [own_share(subject, cast_inputs(batch, subject.dtype, subject.memory_format)) for batch in plain]
    step = CountedStep(make_step(subject))

    if workload.mode == "sample":
        found.notes += text.note(subject, schedulers.num_forwards(workload))

    kept = curves.Curves()
    calls_s, graph_peaks, curve_ms = _first_calls(subject, step, inputs, clock, reference, kept, found, progress)
    if world.is_first:
        kept.write(folder / "curves.parquet")
    progress("warm_up", "")
    measure.warm_up(step, inputs, clock, min_seconds=workload.min_seconds, before=curve_ms, agree=world.agree)
    progress("time", f"at least {workload.min_samples} steps and {workload.min_seconds:g} s")
    num_graphs = compilation.num_graphs()
    own_timing = measure.time_steps(
        step,
        inputs,
        clock,
        min_samples=workload.min_samples,
        min_seconds=workload.min_seconds,
        agree=world.agree,
    )
    timing = scaling.slowest(world.gather(own_timing))
    findings.note_times(timing, workload, found)
    if late := compilation.num_graphs() - num_graphs:
        found.notes.append(f"{late} graphs were compiled while steps were timed: the slowest samples hold compilation")
    if combo.compiles:
        found.metrics["compile_s"] = sum(calls_s) - len(calls_s) * statistics.median(timing.step_ms) / 1e3
    progress("energy", f"{ENERGY_SECONDS:g} s under NVML" if device == "cuda" else "not measurable on a CPU")
    file = folder / "telemetry.parquet" if world.is_first else None
    energy = telemetry.measure_energy(
        step, inputs, clock, seconds=ENERGY_SECONDS, device=device, file=file, agree=world.agree
    )
    energy = scaling.merge_energy(world.gather(energy))
    found.contaminated = energy.contaminated
    progress("memory", "")
    curve = folder / "allocator.parquet" if world.is_first else None
    peaks = memory.measure_peaks(subject, step, inputs[0], curve)
    for recorded in graph_peaks:
        peaks = replace(peaks, allocated=recorded.allocated, activations=recorded.activations)
    held = memory.held(subject, inputs)
    progress("trace", "one step under torch.profiler")
    name = f"{'worker' if world.is_first else f'rank{world.rank}'}.{int(time.time() * 1000)}{TRACE_SUFFIX}"
    trace = tracing.trace_steps(subject, step, inputs, clock, held=held, file=folder / name)
    found.trace_file = name
    found.notes += provenance.note()
    if world.is_first:
        tracing.write_tables(trace, folder)
    progress("verify", "")
    own_evidence = tuple(verify.verify(evidence, trace, subject) for evidence in found.evidence)
    found.evidence = scaling.merge_evidence(world.gather(own_evidence))
    found.attention_observed = attention.observed_calls(trace)
    findings.note_trace(trace, subject, found)
    findings.note_scaling(subject, step.count, found)
    findings.note_memory(peaks, held, trace, subject, found)
    findings.note_ranks(own_timing, trace, subject, machine, found)
    findings.note_energy(energy, workload, found)
    ceiling = matmul_ceiling_tflops(device, combo.precision)
    datasheet = datasheet_tflops(machine.gpu_name, combo.precision) if device == "cuda" else None
    findings.note_compute(step_flop(forward_flop, subject), ceiling, datasheet, found, num_devices=world.size)
    if combo.compiles and combo.compilation != "max_autotune" and not subject.records_steps:
        progress("warm_compile", "again, from the caches that the first compilation left")
        found.metrics["warm_compile_s"] = _warm_compile_s(subject, step, inputs, clock, found.metrics["step_ms"])


def _warm_compile_s(subject: Subject, step: Step, inputs: list[Inputs], clock: Clock, step_ms: float) -> float:
    """What a restarted service waits for: the same first calls, after this process forgot all but the caches on disk.

    Comes last, since it changes the compiled code and the allocator's state.
    """
    compilation.forget()
    clock.synchronize()
    started = time.monotonic()
    numerics.run_once(subject, inputs[0], subject.workload.fidelity_batch)
    subject.unet.zero_grad(set_to_none=True)
    for index in range(1, COMPILE_CALLS):
        step(inputs[index % len(inputs)], no_phase)
    clock.synchronize()
    return time.monotonic() - started - COMPILE_CALLS * step_ms / 1e3


def _first_calls(
    subject: Subject,
    step: Step,
    inputs: list[Inputs],
    clock: Clock,
    reference: numerics.Reference | None,
    kept: curves.Curves,
    found: findings.Findings,
    progress: Progress,
) -> tuple[list[float], list[memory.Peaks], list[float]]:
    """The first three calls in seconds, the peaks of recording a graph, and the ms of the steps of the curve.

    The first call is the fidelity pass: training has changed no weight before it. The curve of the loss begins with
    the second.
    """
    combo = subject.combo
    progress("first_call", "compiling" if combo.compilation != "eager" else "")
    seconds = []
    started = time.monotonic()
    size = subject.workload.fidelity_batch
    latents: list[torch.Tensor] = []
    output, loss = numerics.run_once(subject, inputs[0], size, latents)
    clock.synchronize()
    seconds.append(time.monotonic() - started)
    found.metrics["first_call_s"] = seconds[0]
    progress("fidelity", "")
    fidelity = numerics.collect(subject, output, loss, size, latents)
    del latents
    findings.note_fidelity(fidelity, reference, combo, found)
    curves.note_sampling(kept, fidelity, reference, combo.precision)
    watch = curves.TrainingWatch(subject, kept) if subject.workload.mode == "train" else None
    with memory.recorded_peaks(subject) as graph_peaks:
        for index in range(1, COMPILE_CALLS):
            started = time.monotonic()
            result = step(inputs[index % len(inputs)], watch.phase if watch else no_phase)
            clock.synchronize()
            seconds.append(time.monotonic() - started)
            if watch:
                watch.note(result)
    curve_ms: list[float] = []
    if watch:
        progress("curve", f"at most {subject.workload.curve_steps} steps of training")
        agree = subject.parallel.world.agree
        curve_ms = curves.record_training(subject, watch, step, inputs, clock, first=COMPILE_CALLS - 1, agree=agree)
        found.notes += curves.training_note(kept)
        found.wrong = found.wrong or curves.divergence(kept)
    return seconds, graph_peaks, curve_ms


@contextmanager
def _cold_compile_cache(combo: Combo) -> Iterator[None]:
    """Compile times are cold ones: each compiled run gets empty caches, which it leaves behind for nobody."""
    if not combo.compiles:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="steplens-inductor-") as caches:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
        os.environ["TRITON_CACHE_DIR"] = str(Path(caches) / "triton")
        yield


def _unsaid(stage: str, detail: str) -> None:
    """Progress of all but the first rank."""


def _one_line(error: BaseException) -> str:
    return _relative(" ".join(str(error).split()))[:500] or type(error).__name__


def _relative(text: str) -> str:
    """Without the machine's own folders, since records travel."""
    for folder in sorted(
        {str(Path.cwd()), sys.prefix, str(Path.home()), *sys.path} - {"", "/", "."}, key=len, reverse=True
    ):
        text = text.replace(folder.rstrip("/") + "/", "")
    return re.sub(r"/tmp/\S+/", "", text)
