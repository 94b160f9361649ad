"""Findings: what the passes of one run have found so far, and how it becomes metrics and a verdict."""

import math
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from profiler import measure, memory, numerics, scaling, telemetry, tracing
from profiler.combo import Combo
from profiler.machine import Machine
from profiler.record import BUSY, UNSTEADY, Evidence, LaunchVerdict, Metrics, Projection, Rank, Status, launch_verdict
from profiler.subject import Subject, UNet
from profiler.workload import Workload

BUSY_LOAD = 1.5  # load average beyond one task per core


@dataclass(slots=True)
class Findings:
    """What the passes have found so far; kept when a later pass fails."""

    workload: Workload  # with its resolution resolved, as soon as the model is built
    metrics: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, tuple[float, ...]] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    attention_observed: dict[str, int] = field(default_factory=dict)
    launch_verdict: LaunchVerdict | None = None
    reference: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    contaminated: bool = False
    trace_file: str | None = None
    ranks: tuple[Rank, ...] = ()
    projection: tuple[Projection, ...] = ()
    wrong: str = ""


def load_reference(folder: Path, unet: UNet, found: Findings) -> numerics.Reference | None:
    try:
        reference = numerics.load_reference(folder, unet)
    except numerics.NoReference as error:
        found.notes.append(str(error))
        return None
    found.reference = {name: reference.facts[name] for name in ("dtype", "fidelity_batch")} | {"key": folder.name}
    return reference


def note_fidelity(
    fidelity: numerics.Fidelity, reference: numerics.Reference | None, combo: Combo, found: Findings
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
        if combo.quantization != "none":
            _judge_8_bits(name, error, reference.simulated_error(combo, name), combo, found)
        elif numerics.is_wrong(error, eager, combo.precision) and not found.wrong:
            limit = "at most 1e-3" if combo.precision in ("fp32", "tf32") else "finite"
            against = (
                f"plain eager in {combo.precision} has {eager:.2e}" if eager is not None else f"it must be {limit}"
            )
            found.wrong = f"{name} is {error:.2e}; {against}"
    if errors.worst_gradient is not None:
        found.reference |= {
            "worst_gradient": errors.worst_gradient[0],
            "worst_gradient_error": _finite(errors.worst_gradient[1]),
        }


def _judge_8_bits(name: str, error: float | None, simulated: float | None, combo: Combo, found: Findings) -> None:
    found.reference[f"simulated_{name}"] = simulated
    limit = f"it must be at most {numerics.QUANTIZED_LIMIT}"
    if error is not None and simulated is None:
        found.notes.append(
            f"the reference holds no simulated {combo.quantization} of {combo.precision}: {name} was held to {limit}; "
            "delete its folder in references/ for the tighter check"
        )
    if numerics.is_wrong_in_8_bits(error, simulated) and not found.wrong:
        against = f"simulated {combo.quantization} has {simulated:.2e}" if simulated is not None else limit
        found.wrong = f"{name} is {error:.2e}; {against}"


def note_times(timing: measure.Timing, workload: Workload, found: Findings) -> None:
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
    note_unsteady(found)
    if workload.mode == "train":
        for phase, samples in timing.phase_ms.items():
            found.samples[f"{phase}_ms"] = samples
            found.metrics[f"{phase}_ms"] = statistics.median(samples)
        if not timing.phase_ms:
            found.notes.append("the whole step is one CUDA graph: forward, backward and optimizer are not told apart")


def note_unsteady(found: Findings) -> None:
    """Say so when the samples spread widely, or when other programs kept this machine's cores busy."""
    spread = (found.metrics["step_iqr_ms"] or 0.0) / found.metrics["step_ms"]
    if spread > UNSTEADY:
        found.notes.append(f"unsteady: half of the steps lie {spread:.0%} of the median apart; measure again")
    load, num_cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > num_cpus + BUSY_LOAD:
        found.notes.append(f"{BUSY}: load average {load:.1f} on {num_cpus} cores while timing")


def note_trace(trace: tracing.Trace, subject: Subject, found: Findings) -> None:
    step_ms = found.metrics["step_ms"] or math.nan
    found.metrics |= {"profiler_overhead": trace.step_ms / step_ms, "num_kernels": trace.num_kernels}
    found.metrics["recompute_ms"] = trace.recompute_ms
    found.notes += [f"the trace has {warning}" for warning in trace.warnings]
    if subject.workload.device != "cuda":
        return
    found.metrics["host_gap_ms"] = trace.host_gap_ms if subject.workload.mode == "sample" else None
    note_pace(trace.busy_ms, found)


def note_pace(busy_ms: float | None, found: Findings) -> None:
    """Whether the GPU or the CPU sets the pace; nothing where how busy the GPU is cannot be told."""
    share = None if busy_ms is None else busy_ms / (found.metrics["step_ms"] or math.nan)
    found.metrics |= {"gpu_busy_ms": busy_ms, "gpu_busy_share": share}
    found.launch_verdict = None if share is None else launch_verdict(share)


def note_scaling(subject: Subject, num_steps: int, found: Findings) -> None:
    """Of dynamic loss scaling: the scale at the end, and the steps that an overflow made the scaler skip."""
    if subject.scaler is None or subject.optimizer is None:
        return
    taken = max((int(state["step"]) for state in subject.optimizer.state.values()), default=0)
    found.metrics |= {"loss_scale": subject.scaler.get_scale(), "num_skipped_steps": num_steps - taken}


def note_memory(
    peaks: memory.Peaks, held: memory.Held, trace: tracing.Trace, subject: Subject, found: Findings
) -> None:
    workload = subject.workload
    gradients, activations = peaks.gradients, peaks.activations
    allocated = peaks.allocated
    if workload.device == "cpu":  # PyTorch's CPU allocator keeps no peak: the traced step's timeline does
        allocated = trace.peak_bytes
        activations = trace.timeline.activations
        gradients = trace.timeline.most("gradients") if workload.mode == "train" else None
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


def note_ranks(
    timing: measure.Timing, trace: tracing.Trace, subject: Subject, machine: Machine, found: Findings
) -> None:
    """Of a parallel run: each rank's figures, the memory of the fullest, and what more GPUs would take."""
    evidence = next(one for one in found.evidence if one.family == "parallelism")
    if evidence.choice == "none":
        return
    world, workload = subject.parallel.world, subject.workload
    own = scaling.rank_row(world, trace, timing, found.metrics["peak_allocated_gib"])
    found.ranks = tuple(world.gather(own))
    names = [name for name in found.metrics if name.endswith("_gib") or name == "activation_mib_per_sample"]
    memories = world.gather({name: found.metrics[name] for name in names})
    found.metrics |= scaling.fullest(memories, found.metrics["samples_per_s"])
    gpu_name = machine.gpu_name if workload.device == "cuda" else None
    found.projection = scaling.project(evidence, workload, found.metrics["step_ms"], gpu_name)
    if world.size > 1:
        if workload.device == "cuda":
            note_pace_of_ranks(evidence.choice, found)
        found.notes.append(
            f"{world.size} processes: times are the slowest one's, memory the fullest one's, energy is of all together"
        )


def note_pace_of_ranks(parallelism: str, found: Findings) -> None:
    """As note_pace, of the busiest rank, whose waiting for the others is no work."""
    note_pace(scaling.busiest_ms(found.ranks), found)
    if parallelism == "pipeline" and found.launch_verdict != "gpu-bound":
        found.launch_verdict = None  # a stage that idles may as well wait for the one before


def note_energy(energy: telemetry.Energy, workload: Workload, found: Findings) -> None:
    values = asdict(energy)
    del values["contaminated"]
    found.metrics |= values
    if energy.step_energy_j is not None:
        found.metrics["sample_energy_j"] = energy.step_energy_j / workload.batch


def note_compute(
    flop: int, ceiling_tflops: float, datasheet: float | None, found: Findings, *, num_devices: int = 1
) -> None:
    """Ceilings are those of all devices together."""
    ceiling_tflops, datasheet = ceiling_tflops * num_devices, datasheet and datasheet * num_devices
    achieved = flop / 1e9 / (found.metrics["step_ms"] or math.nan)
    found.metrics |= {
        "step_tflop": flop / 1e12,
        "achieved_tflops": achieved,
        "datasheet_tflops": datasheet,
        "mfu": achieved / datasheet if datasheet else None,
        "ceiling_tflops": ceiling_tflops,
        "ceiling_share": achieved / ceiling_tflops,
    }


def judge(found: Findings) -> tuple[Status, str]:
    """A run that fails the error check is wrong; one whose evidence fails is ineffective; else it is done."""
    if found.wrong:
        return "wrong", found.wrong
    failed = [evidence for evidence in found.evidence if evidence.confirmed is False]
    if failed:
        return "ineffective", "; ".join(f"{e.family}={e.choice}: {e.finding}" for e in failed)
    return "done", ""


def metrics(found: Findings) -> Metrics:
    values: dict[str, Any] = {name: _finite(value) for name, value in found.metrics.items()}
    return Metrics(**values)


def _gib(num_bytes: float | None) -> float | None:
    return None if num_bytes is None else num_bytes / memory.GIB


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
