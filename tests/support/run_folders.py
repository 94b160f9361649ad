"""Synthetic run folders for tests: valid in every field, measured by nobody.

Everything goes through profiler.record and pyarrow, so a change of the real format shows here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from profiler.combo import BASELINE, FAMILIES, Combo
from profiler.machine import Machine
from profiler.record import Evidence, Metrics, Record, Role, Status, SweepPlace
from profiler.workload import Workload
from runs.sweep import Options, expand
from tests.support.memory_tables import write_memory

FIXTURE_CPU = Machine(
    cpu_name="Fixture CPU",
    num_cpus=2,
    memory_gib=16.0,
    python="3.12.0",
    torch="2.13.0",
    boot_id="fixture-boot-1",
    platform="Linux",
    no_cuda_reason="this is a test fixture",
    has_cxx_compiler=True,
    packages={"torch": "2.13.0", "diffusers": "0.42.1"},
)
FIXTURE_GPU = replace(
    FIXTURE_CPU,
    cuda="13.0",
    no_cuda_reason=None,
    cudnn="9.15",
    driver="580.1",
    gpu_name="Fixture GPU",
    gpu_uuid="GPU-fixture-1",
    gpu_memory_gib=80.0,
    num_gpus=1,
    compute_capability=(9, 0),
    packages=FIXTURE_CPU.packages | {"triton": "3.6.0"},
)
GPU_WORKLOAD = Workload(model="sd15", mode="inference", batch=2, device="cuda")
CPU_WORKLOAD = Workload(model="tiny", mode="inference", batch=2, device="cpu")
TRAINING = Workload(model="tiny", mode="train", device="cpu")
FIRST_START = datetime(2026, 11, 1, tzinfo=UTC)

WITH_NUMBERS = ("done", "wrong", "ineffective")  # statuses whose step was timed

# category, kernel name, operator, share of the step's device time, calls per step
_KERNELS = (
    ("conv", "fixture_implicit_gemm_conv", "aten::cudnn_convolution", 0.40, 6),
    ("gemm", "fixture_gemm_128x128", "aten::addmm", 0.25, 8),
    ("attention", "fixture_attention_fwd", "aten::scaled_dot_product_attention", 0.15, 4),
    ("norm", "fixture_group_norm", "aten::native_group_norm", 0.08, 4),
    ("elementwise", "fixture_vectorized_elementwise", "aten::silu", 0.07, 10),
    ("layout", "fixture_nchw_to_nhwc", "aten::copy_", 0.05, 4),
)
_MEMORY = ("parameters", "gradients", "optimizer_state", "activations", "workspace", "other")
GIB = 2**30


def step_samples(median_ms: float, *, num: int = 20, noise: float = 0.01, seed: int = 0) -> tuple[float, ...]:
    """Log-normal step times whose median is exactly median_ms."""
    drawn = np.exp(np.random.default_rng(seed).normal(0.0, noise, num))
    return tuple(float(value) for value in drawn / np.median(drawn) * median_ms)


def write_run(
    root: Path,
    *,
    run_id: str,
    combo: Combo = BASELINE,
    workload: Workload = CPU_WORKLOAD,
    machine: Machine | None = None,
    step_ms: Sequence[float] = step_samples(10.0),
    status: Status = "done",
    cause: str = "",
    sweep: SweepPlace | None = None,
    started_at: datetime = FIRST_START,
    duration_s: float = 30.0,
    contaminated: bool = False,
    metrics: dict[str, Any] | None = None,
    parquet: bool = True,
    losses: Sequence[float | None] | None = None,
    **record: Any,
) -> Path:
    """Write root/run_id as a worker would leave it; returns the folder.

    step_ms are the samples behind the median; metrics replaces single Metrics fields; record replaces
    fields of the Record (evidence, notes, ...); losses are those of the first training steps. Without
    numbers (oom, rejected, ...) there is no parquet.
    """
    folder = root / run_id
    folder.mkdir(parents=True)
    machine = machine or (FIXTURE_GPU if workload.device == "cuda" else FIXTURE_CPU)
    timed = status in WITH_NUMBERS
    values = Metrics(**(_metrics(combo, workload, step_ms) if timed else {}) | (metrics or {}))
    written = Record(
        run_id=run_id,
        status=status,
        combo=combo,
        workload=workload,
        machine=machine,
        started_at=started_at.isoformat(),
        ended_at=(started_at + timedelta(seconds=duration_s)).isoformat(),
        duration_s=duration_s,
        cause=cause or ("" if status == "done" else f"fixture: {status}"),
        contaminated=contaminated,
        sweep=sweep,
        metrics=values,
        **_findings(combo, workload, step_ms) | record if timed else record,
    )
    (folder / "log.txt").write_text("fixture log\n", encoding="utf-8")
    if timed and parquet:
        for name, content in _tables(combo, workload, values).items():
            (folder / name).write_bytes(content)
    if losses is not None:
        _write(folder / "curves.parquet", _losses(losses), CURVE_SCHEMA)
    written.write(folder)
    return folder


def write_ladder(
    root: Path,
    *,
    sweep_id: str = "fixture-ladder",
    workload: Workload = GPU_WORKLOAD,
    machine: Machine | None = None,
    started_at: datetime = FIRST_START,
    baseline_ms: float = 100.0,
) -> list[str]:
    """Ten runs of one sweep: baseline, eight rungs (among them one rejected, oom and wrong), baseline again.

    Medians are baseline_ms times LADDER's factors. Returns the run ids in order of position.
    """
    run_ids = []
    for position, (changes, factor, more) in enumerate(LADDER):
        roles: dict[int, Role] = {0: "baseline", len(LADDER) - 1: "baseline_repeat"}
        role = roles.get(position, "candidate")
        place = SweepPlace(sweep_id=sweep_id, name="ladder_inference", position=position, num_jobs=10, role=role)
        run_id = f"{sweep_id}-{position:02d}"
        write_run(
            root,
            run_id=run_id,
            combo=Combo(**changes),
            workload=workload,
            machine=machine,
            step_ms=step_samples(baseline_ms * factor, seed=position),
            sweep=place,
            started_at=started_at + timedelta(minutes=position),
            **more,
        )
        run_ids.append(run_id)
    return run_ids


def write_training(root: Path, **record: Any) -> list[str]:
    """A study of precisions whose losses are those of SD1.5 on an H200: pure bf16's leaves the others'. The last run,
    training-3, is the fastest and the one. record: as of write_run."""
    told = (1.116, 1.955, 1.0893, 1.2066, 1.0404, 1.0314, 1.0361, 1.015, 1.0143)
    bf16 = (1.116, 1.9848, 1.0842, 1.1838, 1.0493, 1.0252, 1.0284, 1.0177, 1.0178)
    run_ids = []
    for position, precision in enumerate(("fp32", "tf32", "bf16_amp", "bf16")):
        role: Role = "candidate" if position else "baseline"
        run_ids.append(f"training-{position}")
        write_run(
            root,
            run_id=run_ids[-1],
            combo=Combo(precision=precision),
            workload=TRAINING,
            step_ms=step_samples(10.0 / (1 + position), seed=position),
            sweep=SweepPlace(sweep_id="training", name="ladder_train", position=position, num_jobs=4, role=role),
            losses=bf16 if precision == "bf16" else told,
            **record,
        )
    return run_ids


def write_study(
    root: Path,
    name: str,
    workload: Workload,
    factor: Callable[[Combo], float],
    *,
    max_gib: float = 1e9,
    **options: Any,
) -> list[str]:
    """A whole study as its sweep plans it: steps of 10 ms times batch, scaled by factor(combo); a step whose peak is
    above max_gib ended out of memory. Returns the run ids in order."""
    planned = expand(name, workload, None, options=Options(**options), sweep_id=name)
    runs = [job for job in planned.jobs if job.kind == "measure"]
    for position, job in enumerate(runs):
        batch = job.workload.batch
        peak = batch * (2.0 if job.combo.attention == "math" else 1.0)
        fits = peak <= max_gib
        how: dict[str, Any] = (
            {"metrics": {"peak_allocated_gib": peak}} if fits else {"status": "oom", "cause": "no memory"}
        )
        write_run(
            root,
            run_id=f"{name}-{position:02d}",
            combo=job.combo,
            workload=job.workload,
            step_ms=step_samples(10.0 * batch * factor(job.combo), seed=position),
            sweep=job.sweep,
            started_at=FIRST_START + timedelta(minutes=position),
            parquet=False,
            **how,
        )
    return [f"{name}-{position:02d}" for position in range(len(runs))]


_FAST: dict[str, Any] = {"precision": "bf16", "attention": "sdpa", "memory_format": "channels_last"}
# choices, median over the baseline's, further arguments of write_run
LADDER: tuple[tuple[dict[str, Any], float, dict[str, Any]], ...] = (
    ({}, 1.0, {}),
    ({"attention": "sdpa"}, 0.9, {}),
    ({"precision": "bf16", "attention": "sdpa"}, 0.4, {}),
    (
        {"precision": "bf16", "attention": "xformers"},
        0.0,
        {"status": "rejected", "cause": "attention=xformers needs the package xformers: pip install xformers"},
    ),
    (_FAST, 0.38, {}),
    (_FAST | {"compilation": "default"}, 0.25, {"metrics": {"first_call_s": 40.5, "compile_s": 39.0}}),
    (_FAST | {"compilation": "reduce_overhead"}, 0.2, {"metrics": {"first_call_s": 61.5, "compile_s": 60.0}}),
    (
        _FAST | {"compilation": "max_autotune"},
        0.0,
        {"status": "oom", "cause": "CUDA out of memory: 81.2 GiB asked, 79.1 GiB there"},
    ),
    (_FAST | {"precision": "fp16"}, 0.395, {"status": "wrong", "cause": "output_error_ratio 3.1 is above 2"}),
    ({}, 1.01, {}),
)


def _metrics(combo: Combo, workload: Workload, step_ms: Sequence[float]) -> dict[str, Any]:
    """Numbers that hang together: what follows from another is computed from it."""
    low, median, high, p95 = (float(q) for q in np.percentile(step_ms, (25, 50, 75, 95)))
    is_cuda, is_train = workload.device == "cuda", workload.mode == "train"
    half = combo.precision in ("bf16", "fp16")
    weights = 1.6 if half else 3.2
    activations = (0.5 if half else 1.0) * workload.batch * (0.5 if combo.attention != "math" else 1.5)
    states = {"gradients_gib": weights, "optimizer_state_gib": 2 * weights} if is_train else {}
    peak = weights + activations + sum(states.values())
    samples_per_s = workload.batch * 1000 / median
    tflop = 0.8 * workload.batch * (3 if is_train else 1)
    achieved = tflop * 1000 / median
    metrics: dict[str, Any] = states | {
        "step_ms": median,
        "step_iqr_ms": high - low,
        "step_p95_ms": p95,
        "num_samples": len(step_ms),
        "samples_per_s": samples_per_s,
        "epoch_s": workload.dataset_size / samples_per_s,
        "first_call_s": 1.5,
        "build_s": 3.0,
        "profiler_overhead": 1.3,
        "num_kernels": float(sum(calls for *_, calls in _KERNELS)),
        "peak_allocated_gib": peak,
        "host_peak_gib": 4.0,
        "weights_gib": weights,
        "activations_gib": activations,
        "activation_mib_per_sample": activations * 1024 / workload.batch,
        "samples_per_s_per_gib": samples_per_s / peak,
        "step_tflop": tflop,
        "achieved_tflops": achieved,
        "output_error": 2e-3 if half else 1e-6,
        "output_cosine": 0.99999,
        "output_error_eager": 2e-3 if half else 1e-6,
        "output_error_ratio": 1.0,
    }
    if is_train:
        parts = {"forward_ms": 0.3, "backward_ms": 0.6, "optimizer_ms": 0.1}
        metrics |= {name: share * median for name, share in parts.items()}
        metrics |= {"gradient_error": 4e-3, "gradient_error_eager": 4e-3, "gradient_error_ratio": 1.0, "loss": 1.0}
    if is_cuda:
        metrics |= {
            "host_enqueue_ms": 12.0,
            "gpu_busy_ms": 0.95 * median,
            "gpu_busy_share": 0.95,
            "peak_reserved_gib": 1.1 * peak,
            "peak_device_gib": 1.1 * peak + 0.6,
            "datasheet_tflops": 1000.0,
            "mfu": achieved / 1000.0,
            "ceiling_tflops": 700.0,
            "ceiling_share": achieved / 700.0,
            "step_energy_j": 0.6 * median,
            "sample_energy_j": 0.6 * median / workload.batch,
            "mean_power_w": 600.0,
            "mean_sm_clock_mhz": 1900.0,
            "max_temperature_c": 60.0,
        }
    return metrics


def _findings(combo: Combo, workload: Workload, step_ms: Sequence[float]) -> dict[str, Any]:
    """The Record's fields beside the metrics that a run with numbers has."""
    kernel = "math" if combo.attention == "math" else "flash"
    changed = [family for family in FAMILIES if getattr(combo, family) != getattr(BASELINE, family)]
    return {
        "samples": {"step_ms": tuple(float(sample) for sample in step_ms)},
        "evidence": tuple(
            Evidence(
                family=family,
                choice=getattr(combo, family),
                facts={"num_modules": 32},
                must_appear={"a kernel of the fixture": r"fixture_.*"},
                confirmed=True,
                observed={"fixture_attention_fwd": 32},
            )
            for family in changed
        ),
        "attention_observed": {kernel: 30, "efficient": 2},
        "launch_verdict": "gpu-bound" if workload.device == "cuda" else None,
        "git_commit": "0" * 40,
        "variables": {"CUDA_VISIBLE_DEVICES": "0"},
    }


@cache  # tests make the same runs again and again
def _tables(combo: Combo, workload: Workload, metrics: Metrics) -> dict[str, bytes]:
    with TemporaryDirectory() as written:
        _write_tables(Path(written), combo, workload, metrics)
        write_memory(Path(written), combo, workload, metrics)
        return {file.name: file.read_bytes() for file in sorted(Path(written).iterdir())}


def _write_tables(folder: Path, combo: Combo, workload: Workload, metrics: Metrics) -> None:
    is_cuda, step_ns = workload.device == "cuda", int((metrics.step_ms or 0) * 1e6)
    phases: tuple[str | None, ...] = ("forward", "backward") if workload.mode == "train" else (None,)
    phases += ("recompute",) if combo.checkpointing != "none" else ()
    kernels, ops = _kernel_rows(step_ns, phases, is_cuda), _op_rows(step_ns, phases, is_cuda)
    _write(folder / "kernels.parquet", kernels, KERNEL_SCHEMA)
    _write(folder / "ops.parquet", ops, OP_SCHEMA)
    _write(folder / "memory.parquet", _memory_rows(step_ns, metrics, is_cuda), MEMORY_SCHEMA)
    if is_cuda:
        _write(folder / "telemetry.parquet", _telemetry_rows(), TELEMETRY_SCHEMA)
    if workload.mode == "train":
        _write(folder / "curves.parquet", _losses([1.0 / step for step in range(1, 11)]), CURVE_SCHEMA)


def _losses(losses: Sequence[float | None]) -> list[dict[str, Any]]:
    return [{"name": "loss", "x": float(step), "y": loss} for step, loss in enumerate(losses, start=1)]


def _kernel_rows(
    step_ns: int, phases: tuple[str | None, ...], is_cuda: bool, num_steps: int = 2
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(num_steps):
        start = step * step_ns
        for phase in phases:
            for category, name, op, share, calls in _KERNELS:
                duration = int(0.95 * step_ns * share / calls / len(phases))
                for _ in range(calls):
                    values = (step, start, duration, name, category, 7 if is_cuda else None)
                    more = (len(rows) if is_cuda else None, op, phase, "down_blocks.0.resnets.0")
                    rows.append(dict(zip(KERNEL_SCHEMA.names, values + more, strict=True)))
                    start += duration
    return rows


def _op_rows(step_ns: int, phases: tuple[str | None, ...], is_cuda: bool) -> list[dict[str, Any]]:
    rows = []
    for phase in phases:
        for index, (_, _, op, share, _) in enumerate(_KERNELS):
            duration = int(step_ns * share)
            values = (0, index * 1000, duration, duration, duration if is_cuda else None, op)
            more = ("down_blocks.0.resnets.0", phase, "[2, 320, 64, 64]", 10**9, 1)
            rows.append(dict(zip(OP_SCHEMA.names, values + more, strict=True)))
    return rows


def _memory_rows(step_ns: int, metrics: Metrics, is_cuda: bool, num: int = 100) -> list[dict[str, Any]]:
    peak = {name: int((getattr(metrics, f"{name}_gib", None) or 0) * GIB) for name in _MEMORY}
    peak["parameters"] = int((metrics.weights_gib or 0) * GIB)
    rows = []
    for index in range(num):
        alive = 1 - abs(2 * index / (num - 1) - 1)  # rises to the middle of the step, then falls
        row = {f"{name}_bytes": peak[name] for name in _MEMORY}
        row |= {"activations_bytes": int(peak["activations"] * alive)}
        reserved = int(1.1 * (metrics.peak_allocated_gib or 0) * GIB) if is_cuda else None
        rows.append({"time_ns": index * step_ns // num, **row, "reserved_bytes": reserved})
    return rows


def _telemetry_rows(num: int = 20) -> list[dict[str, Any]]:
    names = TELEMETRY_SCHEMA.names
    return [
        dict(zip(names, (i * 100_000_000, 590.0 + i, 1900.0, 2600.0, 55.0 + i / 4, 0.97), strict=True))
        for i in range(num)
    ]


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


KERNEL_SCHEMA = pa.schema(
    {
        "step": pa.int32(),
        "start_ns": pa.int64(),
        "duration_ns": pa.int64(),
        "name": pa.string(),
        "category": pa.string(),
        "stream": pa.int32(),
        "correlation": pa.int64(),
        "op": pa.string(),
        "phase": pa.string(),
        "module": pa.string(),
    }
)
OP_SCHEMA = pa.schema(
    {
        "step": pa.int32(),
        "start_ns": pa.int64(),
        "duration_ns": pa.int64(),
        "self_ns": pa.int64(),
        "device_self_ns": pa.int64(),
        "name": pa.string(),
        "module": pa.string(),
        "phase": pa.string(),
        "shapes": pa.string(),
        "flops": pa.int64(),
        "thread": pa.int64(),
    }
)
MEMORY_SCHEMA = pa.schema(
    {name: pa.int64() for name in ("time_ns", *(f"{name}_bytes" for name in _MEMORY), "reserved_bytes")}
)
TELEMETRY_SCHEMA = pa.schema(
    {"time_ns": pa.int64()}
    | {n: pa.float64() for n in ("power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "utilisation")}
)
CURVE_SCHEMA = pa.schema({"name": pa.string(), "x": pa.float64(), "y": pa.float64()})
