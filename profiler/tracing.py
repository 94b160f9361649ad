"""Tracing: one torch.profiler pass, its kineto trace, and the tables that a run folder keeps of it.

The pass runs after all timing. Its first step is thrown away (the profiler's own start-up falls into it), the second is
traced with shapes and memory; the device is synchronised at both ends of a step, so that kernels stay in their step.
"""

import statistics
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from profiler.clock import Clock
from profiler.memory import Held, gradient_storages
from profiler.steps import Step
from profiler.subject import Inputs, Subject
from profiler.traces.attribute import PHASE, RECOMPUTE, STEP, Attribution, Kernel, attribute, busy_ns, gaps_ns
from profiler.traces.parse import Event, read_events
from profiler.traces.timeline import CATEGORIES, Point, build_timeline

TRACED_STEPS = 1
TRACE_SUFFIX = ".pt.trace.json.gz"  # what TensorBoard's profiler plugin looks for, and Perfetto opens


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One traced pass, read back."""

    events: list[Event]
    found: Attribution
    timeline: list[Point]
    step_ms: float  # median traced step, profiler's slow-down included

    @property
    def num_steps(self) -> int:
        return len(self.found.steps)

    @property
    def num_kernels(self) -> float:
        return len(self.found.kernels) / self.num_steps

    @property
    def busy_ms(self) -> float:
        """Union of all device work, per step."""
        per_step = [
            busy_ns((k.start_ns, k.duration_ns) for k in self.found.kernels if k.step == step)
            for step in range(self.num_steps)
        ]
        return statistics.median(per_step) / 1e6

    @property
    def recompute_ms(self) -> float | None:
        """Kernel time of checkpointing's second forward per step; None where nothing was marked as recomputed."""
        again = [kernel.duration_ns for kernel in self.found.kernels if kernel.phase == RECOMPUTE]
        return sum(again) / self.num_steps / 1e6 if again else None

    @property
    def host_gap_ms(self) -> float | None:
        """GPU idle between the last kernel of one forward and the first of the next; median over a sampling loop."""
        gaps = gaps_ns(self.found.kernels, "forward")
        return statistics.median(gaps) / 1e6 if gaps else None

    @property
    def peak_bytes(self) -> int:
        return max((point.total for point in self.timeline), default=0)

    def names(self) -> Counter[str]:
        """How often each kernel, operator, range and launching call occurs in the traced steps."""
        names = Counter(kernel.name for kernel in self.found.kernels)
        names.update(op.event.name for op in self.found.ops)
        names.update(self.found.launches)
        first, last = self.found.steps[0].start_ns, self.found.steps[-1].end_ns
        names.update(
            event.name
            for event in self.events
            if event.category == "user_annotation" and first <= event.start_ns <= last
        )
        return names


@dataclass(slots=True)
class _Phases:
    """Opens a named range per phase, and notes the gradients' addresses at the end of backward."""

    subject: Subject
    gradients: set[int] = field(default_factory=set)

    def phase(self, name: str) -> AbstractContextManager[object]:
        return self._named(name)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        with record_function(PHASE + name):
            yield
        if name == "backward":
            self.gradients |= set(gradient_storages(self.subject))


def trace_steps(
    subject: Subject, step: Step, inputs: Sequence[Inputs], clock: Clock, *, held: Held, file: Path
) -> Trace:
    """Run the traced pass and write the trace to `file` (gz)."""
    on_gpu = subject.workload.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    phases, times = _Phases(subject), []
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # torch 2.11: of cycles, and we have but one
        profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=TRACED_STEPS),
            record_shapes=True,
            profile_memory=True,
        ) as profiler,
    ):
        for index in range(1 + TRACED_STEPS):
            clock.synchronize()
            start = clock.mark()
            with record_function(STEP):
                step(inputs[index % len(inputs)], phases.phase)
                clock.synchronize()
            end = clock.mark()
            clock.synchronize()
            times.append(clock.between_ms(start, end))
            if index < TRACED_STEPS:
                profiler.step()
    profiler.export_chrome_trace(str(file))
    events = read_events(file)
    found = attribute(events)
    known = {"parameters": held.parameters, "optimizer_state": held.optimizer_state, "other": held.other}
    timeline = build_timeline(events, found, known=known, gradients=phases.gradients, on_gpu=on_gpu)
    return Trace(events=events, found=found, timeline=timeline, step_ms=statistics.median(times[1:]))


def write_tables(trace: Trace, folder: Path) -> None:
    """Write kernels.parquet, ops.parquet and memory.parquet."""
    _write(_kernel_table(trace.found.kernels), folder / "kernels.parquet")
    _write(_op_table(trace.found), folder / "ops.parquet")
    _write(_memory_table(trace.timeline), folder / "memory.parquet")


def _kernel_table(kernels: Sequence[Kernel]) -> pa.Table:
    return pa.table(
        {
            "step": pa.array([k.step for k in kernels], pa.int32()),
            "start_ns": pa.array([k.start_ns for k in kernels], pa.int64()),
            "duration_ns": pa.array([k.duration_ns for k in kernels], pa.int64()),
            "name": _text(k.name for k in kernels),
            "category": _text(k.category for k in kernels),
            "stream": pa.array([k.stream for k in kernels], pa.int32()),
            "correlation": pa.array([k.correlation for k in kernels], pa.int64()),
            "op": _text(k.op for k in kernels),
            "phase": _text(k.phase for k in kernels),
            "module": pa.nulls(len(kernels), pa.string()),
        }
    )


def _op_table(found: Attribution) -> pa.Table:
    ops = found.ops
    return pa.table(
        {
            "step": pa.array([op.step for op in ops], pa.int32()),
            "start_ns": pa.array([op.event.start_ns - found.origin_ns for op in ops], pa.int64()),
            "duration_ns": pa.array([op.event.duration_ns for op in ops], pa.int64()),
            "self_ns": pa.array([op.self_ns for op in ops], pa.int64()),
            "device_self_ns": pa.array([op.device_self_ns for op in ops], pa.int64()),
            "name": _text(op.event.name for op in ops),
            "module": pa.nulls(len(ops), pa.string()),
            "phase": _text(op.phase for op in ops),
            "shapes": _text(_shapes(op.event.args.input_dims) for op in ops),
            "flops": pa.nulls(len(ops), pa.int64()),
            "thread": pa.array([op.event.thread if isinstance(op.event.thread, int) else 0 for op in ops], pa.int64()),
        }
    )


def _memory_table(timeline: Sequence[Point]) -> pa.Table:
    columns = {"time_ns": pa.array([point.time_ns for point in timeline], pa.int64())}
    for name in CATEGORIES:
        columns[f"{name}_bytes"] = pa.array([point.alive[name] for point in timeline], pa.int64())
    columns["reserved_bytes"] = pa.array([point.reserved for point in timeline], pa.int64())
    return pa.table(columns)


def _text(values: Iterator[str | None]) -> pa.Array:
    return pa.array(list(values), pa.string()).dictionary_encode()


def _shapes(dims: object) -> str | None:
    """Only the shapes that are not empty, e.g. '2x320x64x64, 320x320x3x3'."""
    if not isinstance(dims, list):
        return None
    return ", ".join("x".join(map(str, dim)) for dim in dims if isinstance(dim, list) and dim) or None


def _write(table: pa.Table, file: Path) -> None:
    times = [name for name in table.column_names if name.endswith("_ns")]  # all different: differences pack better
    pq.write_table(
        table,
        file,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in times],
        column_encoding=dict.fromkeys(times, "DELTA_BINARY_PACKED"),
    )
