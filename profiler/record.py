"""Record: everything that one run found out; its JSON form is record.json."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from profiler.combo import Combo, name_run
from profiler.machine import Machine
from profiler.workload import Workload

SCHEMA_VERSION = 2  # 2: what evidence has observed counts per step, and a Triton kernel once
RECORD_FILE = "record.json"
TRACE_SUFFIX = ".pt.trace.json.gz"  # what TensorBoard's profiler plugin looks for, and Perfetto opens
ROUNDING = 1e-5  # below this relative error, a ratio of two errors is a ratio of two roundings
UNSTEADY = 0.25  # interquartile range of the steps over their median, above which a run is to be measured again
BUSY = "the machine was busy"  # how a note begins on a run whose times other programs may have moved
TREND_STEPS = 6  # of a curve of the loss, which takes three batches in turn: each twice; fewer show no trend
CONTAMINATED = "another process used the device meanwhile: these numbers are not to be trusted"
DROPOUT = "this UNet has dropout"  # how a note begins on a training run of one
RANK_FAILURE = "rank-{}.failure.json"  # status, cause and traceback of a rank, not the first, that failed

Status = Literal["done", "rejected", "ineffective", "wrong", "oom", "failed", "timeout", "cancelled", "imported"]
STATUSES: tuple[str, ...] = Status.__args__  # type: ignore[attr-defined]
Role = Literal["baseline", "candidate", "baseline_repeat"]
LaunchVerdict = Literal["gpu-bound", "partly launch-bound", "launch-bound"]
GPU_BOUND = 0.9  # busy share from which the GPU sets the pace
LAUNCH_BOUND = 0.75  # busy share below which the CPU does; between the two each sets some of it


def _metric(unit: str, help: str, better: Literal["lower", "higher", ""] = "") -> Any:
    return field(default=None, metadata={"unit": unit, "help": help, "better": better})


def launch_verdict(busy_share: float) -> LaunchVerdict:
    """Who sets the pace of a step in which the GPU is busy for this share."""
    if busy_share >= GPU_BOUND:
        return "gpu-bound"
    return "partly launch-bound" if busy_share >= LAUNCH_BOUND else "launch-bound"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Every scalar of a run; the unit is in the name, unknown is None and never 0."""

    # Time: from passes without a profiler.
    step_ms: float | None = _metric("ms", "Median time of one step.", "lower")
    step_iqr_ms: float | None = _metric("ms", "Interquartile range of the step times.", "lower")
    step_p95_ms: float | None = _metric("ms", "95th percentile of the step times.", "lower")
    num_samples: int | None = _metric("", "Timed steps behind the median.")
    forward_ms: float | None = _metric("ms", "Median of the forward part of a training step, loss included.", "lower")
    backward_ms: float | None = _metric("ms", "Median of the backward part.", "lower")
    optimizer_ms: float | None = _metric("ms", "Median of the optimizer part, zero_grad included.", "lower")
    samples_per_s: float | None = _metric("1/s", "Batch over median step time.", "higher")
    epoch_s: float | None = _metric("s", "Time for the workload's stated data-set size.", "lower")
    image_s: float | None = _metric("s", "Seconds per image in mode=sample.", "lower")
    first_call_s: float | None = _metric("s", "First call of the step, compilation included.", "lower")
    compile_s: float | None = _metric("s", "First calls less steady steps, for compiled combos (cold cache).", "lower")
    warm_compile_s: float | None = _metric(
        "s", "compile_s again in the same process, from the caches on disk (not with max_autotune or graphs).", "lower"
    )
    build_s: float | None = _metric("s", "Building the model on the device.")
    # This and gpu_busy_share say how a step comes about, not how good it is: a fast kernel leaves the GPU idle.
    host_enqueue_ms: float | None = _metric(
        "ms",
        "CPU time to launch one step, measured without waiting for the GPU. "
        "Near step_ms it is an upper bound: where the launch queue is full, the CPU waits for the GPU.",
    )
    profiler_overhead: float | None = _metric("x", "Median traced step over median untraced step.")
    # Where the GPU's time goes: from the traced pass.
    gpu_busy_ms: float | None = _metric(
        "ms",
        "Union of all kernels and copies of one traced step; of several processes the busiest one's kernels, "
        "less its waiting for the others.",
    )
    gpu_busy_share: float | None = _metric(
        "",
        f"gpu_busy_ms over the untraced step_ms; from {GPU_BOUND} the GPU is the limit, below {LAUNCH_BOUND} the CPU "
        "(in a pipeline: or a neighbour), between them both in part.",
    )
    num_kernels: float | None = _metric("", "Kernels, copies and memsets per step (on a CPU: operators).", "lower")
    recompute_ms: float | None = _metric(
        "ms", "Kernel time of forward work that checkpointing runs again in the backward, per step.", "lower"
    )
    host_gap_ms: float | None = _metric(
        "ms", "GPU idle between two forwards of a sampling loop, median, in the traced step (mode=sample).", "lower"
    )
    # Memory: from a pass without a profiler on CUDA.
    peak_allocated_gib: float | None = _metric("GiB", "Peak of tensors alive during a step.", "lower")
    peak_reserved_gib: float | None = _metric("GiB", "Peak held by PyTorch's caching allocator.", "lower")
    peak_device_gib: float | None = _metric(
        "GiB", "In use on the whole device at the end of the step, context and libraries included.", "lower"
    )
    host_peak_gib: float | None = _metric("GiB", "Peak resident memory of the worker process.", "lower")
    weights_gib: float | None = _metric("GiB", "Parameters and buffers.", "lower")
    gradients_gib: float | None = _metric("GiB", "Gradients of all parameters.", "lower")
    optimizer_state_gib: float | None = _metric("GiB", "Optimizer state.", "lower")
    activations_gib: float | None = _metric(
        "GiB",
        "Training: kept from forward for backward. Otherwise: the most alive at once beyond weights and inputs.",
        "lower",
    )
    activation_mib_per_sample: float | None = _metric("MiB", "Activations over batch.", "lower")
    samples_per_s_per_gib: float | None = _metric(
        "1/(s GiB)", "Memory efficiency: samples per second over peak allocated.", "higher"
    )
    # Compute: FLOPs are counted once per workload, the same for every combo.
    step_tflop: float | None = _metric(
        "TFLOP",
        "Analytic work of one step: convolutions, linear layers and both attention products; 3x forward for training.",
    )
    achieved_tflops: float | None = _metric("TFLOP/s", "step_tflop over step time.", "higher")
    datasheet_tflops: float | None = _metric("TFLOP/s", "The device's dense datasheet peak for this precision.")
    mfu: float | None = _metric(
        "",
        "Model FLOP utilisation: achieved over datasheet. "
        "Its ceiling is the precision's own: compare it only between runs of the same.",
        "higher",
    )
    ceiling_tflops: float | None = _metric(
        "TFLOP/s", "A large square matmul measured in this run on this device in this precision."
    )
    ceiling_share: float | None = _metric("", "Achieved over the measured matmul ceiling.", "higher")
    # Energy and state of the device: from a pass of its own under NVML.
    step_energy_j: float | None = _metric("J", "GPU energy of one step.", "lower")
    sample_energy_j: float | None = _metric("J", "GPU energy per sample.", "lower")
    mean_power_w: float | None = _metric("W", "Mean GPU power while stepping.")
    mean_sm_clock_mhz: float | None = _metric("MHz", "Mean SM clock while stepping.")
    max_temperature_c: float | None = _metric("°C", "Highest GPU temperature while stepping.")
    # Price in fidelity.
    output_error: float | None = _metric("", "Relative L2 error of the output against the reference.", "lower")
    output_cosine: float | None = _metric("", "Cosine between output and reference.", "higher")
    output_error_eager: float | None = _metric(
        "", "The same error for plain eager math at the same precision.", "lower"
    )
    output_error_ratio: float | None = _metric(
        "x",
        "output_error over output_error_eager; above 2 (and 1e-5) the run is wrong. "
        "Compare it only between runs of the same precision.",
        "lower",
    )
    gradient_error: float | None = _metric("", "Relative L2 error of all gradients against the reference.", "lower")
    gradient_error_eager: float | None = _metric(
        "", "The same error for plain eager math at the same precision.", "lower"
    )
    gradient_error_ratio: float | None = _metric(
        "x",
        "gradient_error over gradient_error_eager; above 2 (and 1e-5) the run is wrong. "
        "Compare it only between runs of the same precision.",
        "lower",
    )
    loss: float | None = _metric("", "Loss of the first step on the fidelity samples.")
    loss_scale: float | None = _metric("", "Loss scale at the end (fp16_amp).")
    num_skipped_steps: int | None = _metric("", "Optimizer steps skipped for an overflow (fp16_amp).", "lower")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What one family's apply did, and what the trace says of it."""

    family: str
    choice: str
    facts: dict[str, Any] = field(default_factory=dict)  # counted by apply, e.g. {"num_modules": 32}
    must_appear: dict[str, str] = field(default_factory=dict)  # what, in words -> regular expression over
    must_not_appear: dict[str, str] = field(default_factory=dict)  # operator and kernel names
    confirmed: bool | None = None  # None: no trace, or nothing in it could tell (profiler.evidence says why)
    observed: dict[str, Any] = field(default_factory=dict)  # counted by verify, per step, e.g. {"flash_fwd": 32}
    finding: str = ""  # one sentence when not confirmed


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One process of a parallel run; times but step_ms are from its traced step."""

    rank: int
    step_ms: float  # median, without a profiler
    compute_ms: float  # union of all work that is neither communication nor a copy
    exposed_communication_ms: float  # communication while nothing was computed
    wait_ms: float | None  # the part of it before the last rank joined; None where the traces do not match
    communicated_bytes: int | None  # sent by this rank per step, in a ring; None where a message's size is unknown
    peak_allocated_gib: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """What more GPUs would take by arithmetic, not by measurement."""

    world_size: int
    batch: int  # of all GPUs together: this run's on each
    sent_bytes: int  # by each GPU per step
    link: str
    link_gb_per_s: float
    communication_ms: float
    step_ms_hidden: float  # if communication hides behind the step as far as it can
    step_ms_exposed: float  # if none of it does
    assumptions: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlace:
    """Which sweep a run belongs to, and where it stands in it."""

    sweep_id: str
    name: str
    position: int
    num_jobs: int
    role: Role = "candidate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What is known of a foreign trace beside its numbers; None is what the file does not say."""

    file_name: str
    sha256: str  # of the file as it was given
    num_bytes: int
    num_events: int
    num_steps: int  # marked steps; 0 where the trace marks none and counts as a whole
    device_name: str | None = None
    rank: int | None = None
    world_size: int | None = None
    versions: dict[str, str] = field(default_factory=dict)  # what the trace says of CUDA, CUPTI, its own format
    why_empty: dict[str, str] = field(default_factory=dict)  # view -> why it has nothing to show, with the remedy

    @property
    def label(self) -> str:
        """What stands where a measured run has its workload, e.g. 'trace of 3 steps, rank 0 of 8'."""
        steps = {0: "trace without steps", 1: "trace of 1 step"}.get(self.num_steps, f"trace of {self.num_steps} steps")
        rank = (
            "" if self.rank is None else f", rank {self.rank}" + (f" of {self.world_size}" if self.world_size else "")
        )
        return steps + rank


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run: what was asked, what ran, what it cost. Written last, by rename, never changed."""

    run_id: str
    status: Status
    combo: Combo | None  # None for imported runs alone: nobody knows which choices a foreign trace was made with
    workload: Workload | None  # the same
    imported: Imported | None = None  # of status "imported", and of no other
    machine: Machine | None = None  # None where no worker got far enough to look
    started_at: str = ""  # UTC, ISO 8601
    ended_at: str = ""
    duration_s: float | None = None
    cause: str = ""  # one sentence for every status but done
    traceback: str = ""
    contaminated: bool = False  # another process used the device meanwhile
    sweep: SweepPlace | None = None
    metrics: Metrics = field(default_factory=Metrics)
    samples: dict[str, tuple[float, ...]] = field(default_factory=dict)  # metric name -> every sample
    evidence: tuple[Evidence, ...] = ()
    attention_observed: dict[str, int] = field(default_factory=dict)  # kernel family -> calls per step
    launch_verdict: LaunchVerdict | None = None
    reference: dict[str, Any] = field(default_factory=dict)  # dtype, fidelity batch, key of the reference
    notes: tuple[str, ...] = ()  # what the reader of the numbers must know
    git_commit: str | None = None  # of Steplens
    variables: dict[str, str] = field(default_factory=dict)  # environment variables that change results
    trace_file: str | None = None  # name inside the run folder
    ranks: tuple[Rank, ...] = ()  # of a parallel run
    projection: tuple[Projection, ...] = ()  # of data parallelism on one GPU to more; kept apart from all measurements
    schema_version: int = SCHEMA_VERSION

    @property
    def of_whole_trace(self) -> bool:
        """Whether it is a foreign trace that marks no steps, so that its sums are of all of it."""
        return self.imported is not None and self.imported.num_steps == 0

    @property
    def device_name(self) -> str:
        """What ran it: the GPU, or the CPU for device=cpu; empty where no worker got far enough to look."""
        if self.imported is not None:
            return self.imported.device_name or ""
        if self.machine is None or self.workload is None:
            return ""
        on_gpu = self.workload.device == "cuda" and self.machine.gpu_name
        return self.machine.gpu_name or "" if on_gpu else self.machine.cpu_name

    @property
    def label(self) -> str:
        """E.g. 'bf16 · ddp x2'; for an imported trace the name of its file."""
        if self.imported is not None:
            return self.imported.file_name
        return name_run(self.combo, self.workload) if self.combo and self.workload else ""

    @property
    def workload_label(self) -> str:
        return self.imported.label if self.imported else self.workload.label if self.workload else ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Record":
        """A Record from its JSON form. Raises ValueError when it is not one, or from a newer schema."""
        if not isinstance(values, dict):
            raise ValueError("not a record: no JSON object")
        version = values.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise ValueError(f"record schema {version!r}: this Steplens reads up to {SCHEMA_VERSION}, update it")
        missing = sorted({"run_id", "status", "combo", "workload"} - set(values))
        if missing:
            raise ValueError(f"not a record: {', '.join(missing)} missing")
        if values["status"] not in STATUSES:
            raise ValueError(f"unknown status {values['status']!r}")
        if (values["status"] == "imported") != (values.get("imported") is not None):
            raise ValueError("not a record: imported runs, and no others, say what was imported")
        is_foreign = values["status"] == "imported"
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        metrics = Metrics(**values.get("metrics", {}))
        if kept.get("launch_verdict") and metrics.gpu_busy_share is not None:
            kept["launch_verdict"] = launch_verdict(metrics.gpu_busy_share)  # records before the grades knew two
        return cls(
            **kept
            | {
                "combo": None if is_foreign else Combo.from_dict(values["combo"]),
                "workload": None if is_foreign else Workload.from_dict(values["workload"]),
                "imported": Imported(**values["imported"]) if is_foreign else None,
                "machine": Machine.from_dict(values["machine"]) if values.get("machine") else None,
                "sweep": SweepPlace(**values["sweep"]) if values.get("sweep") else None,
                "metrics": metrics,
                "samples": {name: tuple(s) for name, s in values.get("samples", {}).items()},
                "evidence": tuple(Evidence(**e) for e in values.get("evidence", ())),
                "notes": tuple(values.get("notes", ())),
                "ranks": tuple(Rank(**r) for r in values.get("ranks", ())),
                "projection": tuple(Projection(**p) for p in values.get("projection", ())),
            }
        )

    def write(self, folder: Path) -> None:
        """Write record.json into the run folder by rename; afterwards the folder is complete."""
        write_json(folder / RECORD_FILE, self.to_dict())

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a run folder's record. Raises ValueError naming the file when it is damaged."""
        path = folder / RECORD_FILE
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name and rename it, so that no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(temporary, path)
