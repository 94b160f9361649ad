"""Health: what a trace can be trusted with, and why a view of it is empty.

Every finding has a number behind it; a trace without findings is whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Bools
from profiler.traces.intervals import Union
from profiler.traces.words import STEP

Level = Literal["note", "warning"]
UNATTRIBUTED_LIMIT = 0.02  # shares of device time
OTHER_LIMIT = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One fact about the trace. share is of the events or of the device time, where it is a part of something."""

    level: Level
    what: str
    count: int
    share: float | None = None
    example: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The card: findings, and for each view that has nothing to show the reason and the remedy."""

    num_events: int
    num_steps: int
    unattributed_share: float | None  # of device time without an operator; None without a GPU
    other_share: float  # of device time that no class takes
    graph_share: float | None  # of device time that CUDA graphs replayed
    overlap_share: float | None  # of device time that ran beside other work, and counts once
    findings: tuple[Finding, ...]
    why_empty: dict[str, str]

    @property
    def is_whole(self) -> bool:
        return all(finding.level != "warning" for finding in self.findings)


def health(found: Attribution) -> Health:
    """The health card of a trace."""
    work = found.traced
    total = int(work.duration_ns.sum())

    def share(chosen: Bools) -> float:
        return float(work.duration_ns[chosen].sum()) / total if total else 0.0

    union = Union.of(work.start_ns, work.end_ns).total_ns
    on_gpu = found.on_gpu
    return Health(
        num_events=found.trace.num_events,
        num_steps=found.num_steps,
        unattributed_share=share((work.op < 0) & (work.in_graph == 0)) if on_gpu else None,
        other_share=share(work.category == CATEGORIES.index("other")),
        graph_share=share(work.in_graph > 0) if on_gpu else None,
        overlap_share=(total - union) / total if on_gpu and total else None,
        findings=(*_of_reading(found), *_of_matching(found), *_of_compiled(found), *_of_steps(found)),
        why_empty=dict(_why_empty(found)),
    )


def _of_reading(found: Attribution) -> Iterator[Finding]:
    """What was repaired, lost or left out."""
    if found.trace.only_module is not None:
        what = "cut to one module, all other time looks idle"
        yield Finding(level="warning", what=what, count=1, example=found.trace.only_module[:80])
    for kind, note in found.trace.notes.items():
        level: Level = "note" if kind.startswith("left out") else "warning"
        share = note.count / found.trace.num_events if found.trace.num_events else None
        yield Finding(level=level, what=kind, count=note.count, share=share, example=note.example)


def _of_matching(found: Attribution) -> Iterator[Finding]:
    """Device work whose launch or operator is not in the trace."""
    work = found.work
    if not found.on_gpu:
        return
    kinds: tuple[tuple[Level, str, Bools], ...] = (
        ("warning", "kernels without a launching call: their phase and step are guessed by time", work.launch < 0),
        ("warning", "kernels without an operator", (work.op < 0) & (work.in_graph == 0)),
        ("note", "kernels replayed by CUDA graphs: their operator is unknown", work.in_graph > 0),
        ("note", "kernels outside of the steps", work.step < 0),
    )
    for level, what, chosen in kinds:
        if chosen.any():
            yield _of_work(found, what, chosen, level)


def _of_compiled(found: Attribution) -> Iterator[Finding]:
    """How much of compiled code has a module, and who told."""
    work, kernels = found.work, "kernels" if found.on_gpu else "operators"
    for what, chosen in (
        (f"{kernels} of compiled code with the module that Inductor told", work.compiled == 1),
        (f"{kernels} of compiled code without a module", (work.compiled == 0) & (work.module < 0)),
    ):
        if chosen.any():
            yield _of_work(found, what, chosen, "note")


def _of_work(found: Attribution, what: str, chosen: Bools, level: Level) -> Finding:
    """Some of the work, with its share of the device time; a small share is no more than a note."""
    work = found.work
    share = float(work.duration_ns[chosen].sum()) / max(1, int(work.duration_ns.sum()))
    example = found.trace.names[work.name[np.flatnonzero(chosen)[0]]][:120]
    level = "note" if share < UNATTRIBUTED_LIMIT else level
    return Finding(level=level, what=what, count=int(chosen.sum()), share=share, example=example)


def _of_steps(found: Attribution) -> Iterator[Finding]:
    """Steps with unequal numbers of kernels: the profiler dropped some, or the steps differ."""
    if not found.on_gpu or found.num_steps < 2:
        return
    counts = np.bincount(found.traced.step, minlength=found.num_steps)
    if counts.min() != counts.max():
        what = f"steps with unequal numbers of kernels ({counts.min()} to {counts.max()})"
        yield Finding(level="warning", what=what, count=int((counts != np.median(counts)).sum()))


def why_no_modules(found: Attribution) -> str:
    """The reason, with the remedy. Our own traces mark each module's call, unless something ran in its place."""
    if STEP not in found.trace.names:
        return "profile with with_stack=True, or measure with Steplens"
    if (found.work.compiled >= 0).any():
        return (
            "the model was compiled as a whole, and nobody noted which modules its kernels serve: measure it again, or "
            "with compilation=regional or eager, which name them by themselves"
        )
    if (found.work.in_graph > 0).any():
        return "a CUDA graph was replayed, which calls no modules: measure with cuda_graphs=off"
    return "Steplens did not mark modules yet when it recorded this: measure it again"


def _why_empty(found: Attribution) -> Iterator[tuple[str, str]]:
    trace = found.trace
    if not found.on_gpu:
        yield "gpu", "the trace has no GPU events: it was recorded on a CPU, or without ProfilerActivity.CUDA"
    if not len(trace.ops):
        yield "operators", "no operators were recorded: profile with ProfilerActivity.CPU"
    if not found.modules.source:
        yield "modules", f"no module names: {why_no_modules(found)}"
    if len(trace.ops) and not (trace.ops.dims > 0).any():
        yield "shapes", "no shapes were recorded: profile with record_shapes=True"
    if not len(trace.allocations):
        yield "memory", "no allocations were recorded: profile with profile_memory=True"
    if (found.forward < 0).all():
        yield "backward", "no operator of a backward carries a number of its forward: an inference, or compiled whole"
    if not (found.work.category == CATEGORIES.index("communication")).any():
        yield "communication", "no collective ran: one process, or NCCL was not traced"
    if not any(name == STEP or name.startswith("ProfilerStep#") for name in trace.names):
        yield "steps", "no step is marked: call profiler.step(); the whole trace counts as one step"
