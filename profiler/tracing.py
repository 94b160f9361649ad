"""Tracing: one torch.profiler pass, its kineto trace, and the tables that a run folder keeps of it.

The pass runs after all timing. Its first step is thrown away (the profiler's own start-up falls into it), the second is
traced with shapes and memory; the device is synchronised at both ends of a step, so that kernels stay in their step.
"""

import gzip
import json
import shutil
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn
from torch._C._profiler import _RecordFunctionFast
from torch.profiler import ProfilerActivity, profile, record_function, schedule
from torch.utils.hooks import RemovableHandle

from profiler import provenance
from profiler.clock import Clock
from profiler.memory import Held, gradient_owners
from profiler.steps import Step
from profiler.subject import Inputs, Subject
from profiler.traces import step_times
from profiler.traces.alive import alive_table
from profiler.traces.attribute import Attribution, attribute
from profiler.traces.gaps import phase_gaps_ns
from profiler.traces.health import health
from profiler.traces.objects import Found
from profiler.traces.phases import PHASES
from profiler.traces.read import read_trace
from profiler.traces.tables import kernel_table, op_table, write_table
from profiler.traces.timeline import CATEGORIES, Point, Timeline, build_timeline
from profiler.traces.views import write_views
from profiler.traces.words import COMPILED, MODULE, PHASE, STEP

TRACED_STEPS = 1


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One traced pass, read back."""

    found: Found  # its operators and kernels one by one
    timeline: Timeline
    step_ms: float  # median traced step, profiler's slow-down included

    @property
    def attribution(self) -> Attribution:
        """The same in columns."""
        return self.found.attribution

    @property
    def num_steps(self) -> int:
        return self.attribution.num_steps

    @property
    def num_kernels(self) -> float:
        return len(self.attribution.traced) / self.num_steps

    @property
    def busy_ms(self) -> float:
        return step_times.busy_ms(self.attribution)

    @property
    def recompute_ms(self) -> float | None:
        return step_times.recompute_ms(self.attribution)

    @property
    def host_gap_ms(self) -> float | None:
        """GPU idle between the last kernel of one forward and the first of the next; median over a sampling loop."""
        gaps = phase_gaps_ns(self.attribution.traced, PHASES.index("forward")).tolist()
        return statistics.median(gaps) / 1e6 if gaps else None

    @property
    def peak_bytes(self) -> int:
        return self.timeline.peak_bytes

    @property
    def warnings(self) -> list[str]:
        """What its health card warns of, with counts: kernels without an operator, lost or repaired events."""
        card = health(self.attribution)
        return [f"{one.what} ({one.count})" for one in card.findings if one.level == "warning"]

    def per_step(self, number: int) -> int | float:
        """Whole where all steps are alike; what happened in one step of several is a fraction, and not 0."""
        return number / self.num_steps if number % self.num_steps else number // self.num_steps

    @cached_property  # every family's check asks for them
    def names(self) -> Counter[str]:
        """How often each kernel, operator, range and launching call occurs in the traced steps.

        Inductor names the operator that launches a Triton kernel as the kernel: that counts once, as the kernel. On a
        CPU the kernels are operators, and count as those.
        """
        found, kernels = self.attribution, self.kernel_names
        trace = found.trace
        ops = Counter(trace.names[code] for code in trace.ops.name[found.op_step >= 0].tolist())
        inside = found.steps.at(trace.ranges.start_ns) >= 0
        ranges = Counter(trace.names[code] for code in trace.ranges.name[inside].tolist())
        others = Counter({name: number for name, number in ops.items() if name not in kernels})
        return Counter(self.found.launches) + kernels + others + ranges

    @cached_property
    def kernel_names(self) -> Counter[str]:
        """How often each kernel ran on a GPU in the traced steps; empty without one."""
        found = self.attribution
        codes = found.traced.name.tolist() if found.on_gpu else []
        return Counter(found.trace.names[code] for code in codes)


@dataclass(slots=True)
class _Phases:
    """Opens a named range per phase, and notes the gradients' addresses at the end of backward."""

    subject: Subject
    gradients: dict[int, str] = field(default_factory=dict)  # address -> module path

    def phase(self, name: str) -> AbstractContextManager[object]:
        return self._named(name)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        with record_function(PHASE + name):
            yield
        if name == "backward":
            self.gradients |= gradient_owners(self.subject)


@contextmanager
def _module_ranges(subject: Subject) -> Iterator[None]:
    """A range around each call of a module; in compiled code of none: hooks make a compiler start anew. A replay calls
    no module at all.

    The fast kind of range costs 2 microseconds; record_function costs 20 and goes through checkpointing's dispatch.
    """
    calls_modules = subject.combo.compilation in ("eager", "regional") and not subject.uses_graphs
    modules = list(subject.unet.named_modules()) if calls_modules else []
    regions = [(name, module) for name, module in modules if _is_compiled(module)]
    compiled = {id(inside) for _, module in regions for inside in module.modules()}
    handles = [handle for name, module in modules if id(module) not in compiled for handle in _hooked(name, module)]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for name, module in regions:
            stack.enter_context(_range_around_compiled(name, module))
        yield


@contextmanager
def _range_around_compiled(name: str, module: nn.Module) -> Iterator[None]:
    """A range outside of the compiled call, which stays as it is: blocks share code, which cannot tell whose it is."""
    compiled: Any = module._compiled_call_impl

    def call(*args: object, **kwargs: object) -> object:
        with _RecordFunctionFast(MODULE + name):
            return compiled(*args, **kwargs)

    module._compiled_call_impl = call
    try:
        yield
    finally:
        module._compiled_call_impl = compiled


def _is_compiled(module: nn.Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _hooked(name: str, module: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
    calls: list[_RecordFunctionFast] = []

    def enter(module: nn.Module, inputs: object) -> None:
        calls.append(_RecordFunctionFast(MODULE + name))
        calls[-1].__enter__()

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        calls.pop().__exit__(None, None, None)

    # always_call: recomputation leaves a module by an exception as soon as it has what it needs
    return module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)


def trace_steps(
    subject: Subject, step: Step, inputs: Sequence[Inputs], clock: Clock, *, held: Held, file: Path
) -> Trace:
    """Run the traced pass and write the trace to `file` (gz). Several ranks begin each step together."""
    on_gpu = subject.workload.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    phases, times, compiled = _Phases(subject), [], provenance.learned(subject.unet)
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
            subject.parallel.world.align()
            start = clock.mark()
            with record_function(STEP), _module_ranges(subject):
                step(inputs[index % len(inputs)], phases.phase)
                clock.synchronize()
            end = clock.mark()
            clock.synchronize()
            times.append(clock.between_ms(start, end))
            if index < TRACED_STEPS:
                profiler.step()
        if compiled:
            profiler.add_metadata_json(COMPILED, json.dumps(compiled))
    _export(profiler, file)
    found = attribute(read_trace(file))
    if not any(name == STEP for name in found.trace.names):
        raise RuntimeError(f"the trace {file.name} has no {STEP} range: the profiler recorded nothing")
    known = {"parameters": held.parameters, "optimizer_state": held.optimizer_state, "other": held.other}
    owners = held.owners | phases.gradients
    timeline = build_timeline(found, known=known, gradients=phases.gradients, on_gpu=on_gpu, owners=owners)
    return Trace(found=Found(found), timeline=timeline, step_ms=statistics.median(times[1:]))


def _export(profiler: profile, file: Path) -> None:
    """Write the trace packed, a megabyte at a time: PyTorch's own export to .gz packs line by line, which takes thrice
    as long."""
    with tempfile.TemporaryDirectory(prefix="steplens-trace-") as folder:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(file, "wb", compresslevel=6) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)


def write_tables(trace: Trace, folder: Path) -> None:
    """Write the Parquet tables of kernels, operators and memory, and what pages show of the analyses (views/)."""
    write_table(kernel_table(trace.attribution), folder / "kernels.parquet")
    write_table(op_table(trace.attribution), folder / "ops.parquet")
    write_table(_memory_table(trace.timeline.points), folder / "memory.parquet")
    write_table(alive_table(trace.timeline), folder / "alive.parquet")
    write_views(trace.attribution, folder)


def _memory_table(timeline: Sequence[Point]) -> pa.Table:
    columns = {"time_ns": pa.array([point.time_ns for point in timeline], pa.int64())}
    for name in CATEGORIES:
        columns[f"{name}_bytes"] = pa.array([point.alive[name] for point in timeline], pa.int64())
    columns["reserved_bytes"] = pa.array([point.reserved for point in timeline], pa.int64())
    return pa.table(columns)
