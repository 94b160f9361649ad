"""Objects: operators and kernels of the traced steps one by one, for checks that walk over a small trace of our own.

Analyses work on columns; a million of these would take seconds and gigabytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import msgspec

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Trace
from profiler.traces.cycles import no_cycles


@dataclass(frozen=True, slots=True)
class Args:
    """What an operator was called with, as kineto writes it; None where the trace has no shapes."""

    input_dims: Any = None
    input_strides: Any = None
    input_type: Any = None


@dataclass(frozen=True, slots=True)
class Event:
    """One call of an operator."""

    name: str
    start_ns: int
    duration_ns: int
    thread: int | str
    args: Args

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


@dataclass(slots=True)
class Op:
    """One operator call with its place in the tree."""

    event: Event
    step: int
    phase: str | None
    self_ns: int
    device_self_ns: int | None
    module: str | None
    parent: "Op | None" = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One piece of device work (on a CPU: an operator's self time); times are from the first step's start."""

    step: int
    start_ns: int
    duration_ns: int
    name: str
    category: str
    stream: int | None
    correlation: int | None
    op: str | None
    phase: str | None
    module: str | None


@dataclass(frozen=True)
class Found:
    """The traced steps as objects, made when first asked for."""

    attribution: Attribution

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        return tuple(_ops(self.attribution))

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(_kernels(self.attribution))

    @cached_property
    def launches(self) -> tuple[str, ...]:
        """Names of the launching calls, e.g. cudaGraphLaunch."""
        found = self.attribution
        return tuple(found.trace.names[code] for code in found.trace.launches.name[found.launch_step >= 0].tolist())


@no_cycles()
def _ops(found: Attribution) -> list[Op]:
    trace, kept = found.trace, (found.op_step >= 0).nonzero()[0]
    ops, modules = trace.ops.take(kept), found.modules.of_ops[kept]
    device_ns = found.op_device_ns[kept].tolist() if found.on_gpu else [None] * len(kept)
    decode = _decoder(trace)
    events = [
        Event(trace.names[name], start, duration, trace.threads[thread][1], Args(*map(decode, args)))
        for name, start, duration, thread, *args in zip(
            *(column.tolist() for column in (ops.name, ops.start_ns, ops.duration_ns, ops.thread)),
            *(column.tolist() for column in (ops.dims, ops.strides, ops.types)),
            strict=True,
        )
    ]
    steps, phases = found.op_step[kept].tolist(), _words(found.phases.names, found.phases.of_ops[kept].tolist())
    own, paths = found.nesting.self_ns[kept].tolist(), _words(found.modules.paths, modules.tolist())
    made = [Op(*values) for values in zip(events, steps, phases, own, device_ns, paths, strict=True)]
    place = dict(zip(kept.tolist(), made, strict=True))
    for op, parent in zip(made, found.nesting.parent[kept].tolist(), strict=True):
        op.parent = place.get(parent)
    return made


@no_cycles()
def _kernels(found: Attribution) -> list[Kernel]:
    trace, work = found.trace, found.traced
    op_names = [trace.names[trace.ops.name[row]] if row >= 0 else None for row in work.op.tolist()]
    return [
        Kernel(step, start - found.origin_ns, duration, trace.names[name], CATEGORIES[category], *rest)
        for step, start, duration, name, category, *rest in zip(
            *(column.tolist() for column in (work.step, work.start_ns, work.duration_ns, work.name, work.category)),
            *(_known(column.tolist()) for column in (work.stream, work.correlation)),
            op_names,
            _words(found.phases.names, work.phase.tolist()),
            _words(found.modules.paths, work.module.tolist()),
            strict=True,
        )
    ]


def _words(words: Sequence[str], numbers: list[int]) -> list[str | None]:
    return [words[number] if number >= 0 else None for number in numbers]


def _known(numbers: list[int]) -> list[int | None]:
    return [number if number >= 0 else None for number in numbers]


def _decoder(trace: Trace) -> Any:
    @cache
    def decode(code: int) -> Any:
        return msgspec.json.decode(trace.texts[code]) if code else None

    return decode
