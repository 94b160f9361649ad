"""Session: one run from beginning to end; the table of contents of everything in profiler/."""

import math
import os
import re
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from profiler import measure, memory, numerics, telemetry, tracing, verify, zoo
from profiler.clock import Clock, clock_for
from profiler.combo import Combo, why_not
from profiler.devices import datasheet_tflops, matmul_ceiling_tflops
from profiler.environment import git_commit, probe, result_variables
from profiler.flops import forward_flop_per_sample, step_flop
from profiler.optims import apply_all
from profiler.record import Evidence, LaunchVerdict, Metrics, Record, Status, SweepPlace
from profiler.steps import Step, make_step, no_phase
from profiler.subject import (
    Inputs,
    ModelError,
    NotApplicable,
    Subject,
    UNet,
    cast_inputs,
    make_inputs,
    resolve_resolution,
    zoo_note,
)
from profiler.workload import Workload

Progress = Callable[[str, str], None]  # stage, detail

NUM_INPUTS = 3  # input sets that the timed steps rotate through
ENERGY_SECONDS = 1.5
GPU_BOUND = 0.9  # busy share below which the CPU, not the GPU, sets the pace
COMPILE_CALLS = 3  # calls that may compile, warm up or record a graph


@dataclass(slots=True)
class _Findings:
    """What the passes have found so far; kept when a later pass fails."""

    metrics: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, tuple[float, ...]] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    attention_observed: dict[str, int] = field(default_factory=dict)
    launch_verdict: LaunchVerdict | None = None
    reference: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    contaminated: bool = False
    trace_file: str | None = None
    wrong: str = ""


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
    """Measure one combo on one workload and leave a complete run folder.

    Whatever goes wrong in the run is a Record too (rejected, oom, failed, wrong, ineffective). Raises OSError
    only, when the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, clock_start = datetime.now(UTC), time.monotonic()
    found, status, cause, trail = _Findings(), "done", "", ""
    machine = probe()
    try:
        if reason := why_not(combo, workload, machine):
            raise NotApplicable(reason)
        with _cold_compile_cache(combo):
            workload = _run(combo, workload, folder, references, found, progress)
        status, cause = _judge(found)
    except (NotApplicable, ModelError) as error:
        status, cause = "rejected", str(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        status, cause = "oom", _one_line(error)
    except Exception as error:  # the boundary of a run: everything else is a failed record with its traceback
        is_oom = "can't allocate memory" in str(error)
        status, cause = ("oom" if is_oom else "failed"), f"{type(error).__name__}: {_one_line(error)}"
        trail = _relative(traceback.format_exc())
    progress("write", status)
    record = Record(
        run_id=run_id,
        status=status,  # type: ignore[arg-type]
        combo=combo,
        workload=workload,
        machine=machine,
        started_at=started.isoformat(timespec="seconds"),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - clock_start, 3),
        cause=cause,
        traceback=trail,
        contaminated=found.contaminated,
        sweep=sweep,
        metrics=_metrics(found),
        samples=found.samples,
        evidence=found.evidence,
        attention_observed=found.attention_observed,
        launch_verdict=found.launch_verdict,
        reference=found.reference,
        notes=tuple(found.notes),
        git_commit=git_commit(),
        variables=result_variables(),
        trace_file=found.trace_file,
    )
    record.write(folder)
    return record


def _run(
    combo: Combo, workload: Workload, folder: Path, references: Path, found: _Findings, progress: Progress
) -> Workload:
    """All passes in order; returns the workload with its resolution resolved."""
    device, clock = workload.device, clock_for(workload.device)
    progress("build", workload.label)
    started = time.monotonic()
    unet = zoo.build(workload)
    reference_folder = references / workload.reference_key
    workload = replace(workload, resolution=resolve_resolution(unet, workload))
    unet.train(workload.mode == "train")
    clock.synchronize()
    found.metrics["build_s"] = time.monotonic() - started
    found.notes += zoo_note(workload)
    reference = _load_reference(reference_folder, unet, found)
    forward_flop = forward_flop_per_sample(unet, workload)

    progress("apply", combo.label)
    subject, found.evidence = apply_all(Subject(unet=unet, workload=workload, call=unet), combo)
    plain = [make_inputs(unet, workload, batch=workload.batch, draw=draw) for draw in range(NUM_INPUTS)]
    inputs = [cast_inputs(batch, subject.dtype, subject.memory_format) for batch in plain]
    step = make_step(subject)

    calls_s, graph_peaks = _first_calls(subject, step, inputs, clock, reference, combo, found, progress)
    progress("warm_up", "")
    measure.warm_up(step, inputs, clock)
    progress("time", f"at least {workload.min_samples} steps and {workload.min_seconds:g} s")
    timing = measure.time_steps(step, inputs, clock, min_samples=workload.min_samples, min_seconds=workload.min_seconds)
    _note_times(timing, workload, found)
    if combo.compilation != "eager":
        found.metrics["compile_s"] = sum(calls_s) - len(calls_s) * statistics.median(timing.step_ms) / 1e3
    progress("energy", f"{ENERGY_SECONDS:g} s under NVML" if device == "cuda" else "not measurable on a CPU")
    energy = telemetry.measure_energy(
        step, inputs, clock, seconds=ENERGY_SECONDS, device=device, file=folder / "telemetry.parquet"
    )
    found.contaminated = energy.contaminated
    progress("memory", "")
    peaks = memory.measure_peaks(subject, step, inputs[0])
    for recorded in graph_peaks:
        peaks = replace(peaks, allocated=recorded.allocated, activations=recorded.activations)
    held = memory.held(subject, inputs)
    progress("trace", "one step under torch.profiler")
    name = f"worker.{int(time.time() * 1000)}{tracing.TRACE_SUFFIX}"
    trace = tracing.trace_steps(subject, step, inputs, clock, held=held, file=folder / name)
    found.trace_file = name
    tracing.write_tables(trace, folder)
    progress("verify", "")
    found.evidence = tuple(verify.verify(evidence, trace, subject) for evidence in found.evidence)
    found.attention_observed = verify.observed_attention(trace)
    _note_trace(trace, subject, found)
    _note_memory(peaks, held, trace, subject, found)
    _note_energy(energy, workload, found)
    ceiling = matmul_ceiling_tflops(device, combo.precision)
    _note_compute(step_flop(forward_flop, subject), ceiling, datasheet_tflops(probe().gpu_name, combo.precision), found)
    return workload


def _first_calls(
    subject: Subject,
    step: Step,
    inputs: list[Inputs],
    clock: Clock,
    reference: numerics.Reference | None,
    combo: Combo,
    found: _Findings,
    progress: Progress,
) -> tuple[list[float], list[memory.Peaks]]:
    """The first three calls in seconds, and the peaks of recording a graph.

    The first call is the fidelity pass: training has changed no weight before it.
    """
    progress("first_call", "compiling" if combo.compilation != "eager" else "")
    seconds = []
    started = time.monotonic()
    fidelity = numerics.compute(subject, inputs[0], subject.workload.fidelity_batch)
    clock.synchronize()
    seconds.append(time.monotonic() - started)
    found.metrics["first_call_s"] = seconds[0]
    progress("fidelity", "")
    _note_fidelity(fidelity, reference, combo, found)
    with memory.recorded_peaks(subject) as graph_peaks:
        for index in range(1, COMPILE_CALLS):
            started = time.monotonic()
            step(inputs[index % len(inputs)], no_phase)
            clock.synchronize()
            seconds.append(time.monotonic() - started)
    return seconds, graph_peaks


def _load_reference(folder: Path, unet: UNet, found: _Findings) -> numerics.Reference | None:
    try:
        reference = numerics.load_reference(folder, unet)
    except numerics.NoReference as error:
        found.notes.append(str(error))
        return None
    found.reference = {name: reference.facts[name] for name in ("dtype", "fidelity_batch")} | {"key": folder.name}
    return reference


def _note_fidelity(
    fidelity: numerics.Fidelity, reference: numerics.Reference | None, combo: Combo, found: _Findings
) -> None:
    found.metrics["loss"] = fidelity.loss
    if not bool(fidelity.output.isfinite().all()):
        found.wrong = "the output holds NaN or infinity"
    if reference is None:
        return
    errors = numerics.compare(fidelity, reference.fidelity, reference.sizes)
    found.metrics["output_cosine"] = errors.output_cosine
    for name in ("output_error", "gradient_error"):
        error, eager = getattr(errors, name), reference.eager_error(combo.precision, name)
        found.metrics |= {name: error, f"{name}_eager": eager}
        if error is not None and eager:
            found.metrics[f"{name}_ratio"] = error / eager
        if numerics.is_wrong(error, eager) and not found.wrong:
            against = (
                f"plain eager in {combo.precision} has {eager:.2e}" if eager is not None else "at most 1e-3 is right"
            )
            found.wrong = f"{name} is {error:.2e}; {against}"
    if errors.worst_gradient is not None:
        found.reference |= {
            "worst_gradient": errors.worst_gradient[0],
            "worst_gradient_error": _finite(errors.worst_gradient[1]),
        }


def _note_times(timing: measure.Timing, workload: Workload, found: _Findings) -> None:
    quartiles = statistics.quantiles(timing.step_ms, n=20, method="inclusive") if len(timing.step_ms) > 1 else None
    step_ms = statistics.median(timing.step_ms)
    found.samples = {"step_ms": timing.step_ms}
    found.metrics |= {
        "step_ms": step_ms,
        "step_iqr_ms": quartiles[14] - quartiles[4] if quartiles else None,
        "step_p95_ms": quartiles[18] if quartiles else None,
        "num_samples": len(timing.step_ms),
        "samples_per_s": workload.batch / step_ms * 1e3,
        "epoch_s": workload.dataset_size / workload.batch * step_ms / 1e3,
        "host_enqueue_ms": statistics.median(timing.host_enqueue_ms) if workload.device == "cuda" else None,
        "image_s": step_ms / 1e3 / workload.batch if workload.mode == "sample" else None,
    }
    if workload.mode == "train":
        for phase, samples in timing.phase_ms.items():
            found.samples[f"{phase}_ms"] = samples
            found.metrics[f"{phase}_ms"] = statistics.median(samples)


def _note_trace(trace: tracing.Trace, subject: Subject, found: _Findings) -> None:
    step_ms = found.metrics["step_ms"] or math.nan
    found.metrics |= {"profiler_overhead": trace.step_ms / step_ms, "num_kernels": trace.num_kernels}
    if subject.scaler:
        found.metrics["loss_scale"] = subject.scaler.get_scale()
    if subject.workload.device != "cuda":
        return
    share = trace.busy_ms / step_ms
    found.metrics |= {"gpu_busy_ms": trace.busy_ms, "gpu_busy_share": share}
    found.launch_verdict = "gpu-bound" if share >= GPU_BOUND else "launch-bound"


def _note_memory(
    peaks: memory.Peaks, held: memory.Held, trace: tracing.Trace, subject: Subject, found: _Findings
) -> None:
    workload = subject.workload
    gradients, activations = peaks.gradients, peaks.activations
    allocated = peaks.allocated
    if workload.device == "cpu":  # PyTorch's CPU allocator keeps no peak: the traced step's timeline does
        allocated = trace.peak_bytes
        activations = max(point.alive["activations"] for point in trace.timeline)
        gradients = max(point.alive["gradients"] for point in trace.timeline) if workload.mode == "train" else None
        found.notes.append("memory on a CPU: tensors alive in the traced step; reserved and device memory are unknown")
    elif subject.uses_graphs:
        found.notes.append(
            "CUDA graphs: peak_allocated_gib is of the call that records the graph; a replay allocates nothing"
        )
    found.metrics |= {
        "peak_allocated_gib": _gib(allocated),
        "peak_reserved_gib": _gib(peaks.reserved),
        "peak_device_gib": _gib(peaks.device),
        "host_peak_gib": _gib(memory.host_peak_bytes()),
        "weights_gib": _gib(sum(held.parameters.values())),
        "gradients_gib": _gib(gradients),
        "optimizer_state_gib": _gib(sum(held.optimizer_state.values())) if workload.mode == "train" else None,
        "activations_gib": _gib(activations),
        "activation_mib_per_sample": activations / 2**20 / workload.batch if activations is not None else None,
    }
    samples_per_s = found.metrics["samples_per_s"]
    if allocated and samples_per_s:
        found.metrics["samples_per_s_per_gib"] = samples_per_s / (allocated / memory.GIB)


def _note_energy(energy: telemetry.Energy, workload: Workload, found: _Findings) -> None:
    values = asdict(energy)
    del values["contaminated"]
    found.metrics |= values
    if energy.step_energy_j is not None:
        found.metrics["sample_energy_j"] = energy.step_energy_j / workload.batch


def _note_compute(flop: int, ceiling_tflops: float, datasheet: float | None, found: _Findings) -> None:
    achieved = flop / 1e9 / (found.metrics["step_ms"] or math.nan)
    found.metrics |= {
        "step_tflop": flop / 1e12,
        "achieved_tflops": achieved,
        "datasheet_tflops": datasheet,
        "mfu": achieved / datasheet if datasheet else None,
        "ceiling_tflops": ceiling_tflops,
        "ceiling_share": achieved / ceiling_tflops,
    }


def _judge(found: _Findings) -> tuple[Status, str]:
    """A run that fails the error check is wrong; one whose evidence fails is ineffective; else it is done."""
    if found.wrong:
        return "wrong", found.wrong
    failed = [evidence for evidence in found.evidence if evidence.confirmed is False]
    if failed:
        return "ineffective", "; ".join(f"{e.family}={e.choice}: {e.finding}" for e in failed)
    return "done", ""


@contextmanager
def _cold_compile_cache(combo: Combo) -> Iterator[None]:
    """Compile times are cold ones: each compiled run gets empty caches, which it leaves behind for nobody."""
    if combo.compilation == "eager":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="steplens-inductor-") as caches:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = caches
        os.environ["TRITON_CACHE_DIR"] = str(Path(caches) / "triton")
        yield


def _metrics(found: _Findings) -> Metrics:
    values: dict[str, Any] = {name: _finite(value) for name, value in found.metrics.items()}
    return Metrics(**values)


def _gib(num_bytes: float | None) -> float | None:
    return None if num_bytes is None else num_bytes / memory.GIB


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _one_line(error: BaseException) -> str:
    return _relative(" ".join(str(error).split()))[:500] or type(error).__name__


def _relative(text: str) -> str:
    """Without the machine's own folders, since records travel."""
    for folder in sorted(
        {str(Path.cwd()), sys.prefix, str(Path.home()), *sys.path} - {"", "/", "."}, key=len, reverse=True
    ):
        text = text.replace(folder.rstrip("/") + "/", "")
    return re.sub(r"/tmp/\S+/", "", text)
