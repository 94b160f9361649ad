"""Attribute: from a trace's events to one row per kernel and one per operator of the traced steps.

A kernel belongs to the operator that was open on the launching thread when it was launched (External id first, then
nesting in time), and to the phase in which it was launched. On a CPU the operators' self times stand for the kernels.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from profiler.traces.classify import classify
from profiler.traces.parse import DEVICE_CATEGORIES, LAUNCH_CATEGORIES, Event

STEP = "steplens.step"  # record_function ranges that our own traced pass opens
PHASE = "steplens.phase."
RECOMPUTE = "recompute"  # the phase of checkpointing's second forward


@dataclass(slots=True)
class Op:
    """One operator call with its place in the tree."""

    event: Event
    step: int
    phase: str | None
    parent: "Op | None" = None
    children_ns: int = 0
    device_self_ns: int | None = None

    @property
    def self_ns(self) -> int:
        return self.event.duration_ns - self.children_ns


@dataclass(frozen=True, slots=True)
class Kernel:
    """One piece of device work (on a CPU: an operator's self time)."""

    step: int
    start_ns: int
    duration_ns: int
    name: str
    category: str
    stream: int | None
    correlation: int | None
    op: str | None
    phase: str | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """Everything that the tables of a run folder need; times are from the first traced step's start."""

    origin_ns: int
    steps: tuple[Event, ...]
    phases: tuple[Event, ...]
    ops: tuple[Op, ...]
    kernels: tuple[Kernel, ...]
    launches: tuple[str, ...]  # names of the launching calls, e.g. cudaGraphLaunch


class Windows:
    """Disjoint ranges in time; finds the one that a moment lies in."""

    def __init__(self, ranges: Iterable[Event]) -> None:
        self.ranges = sorted(ranges, key=lambda event: event.start_ns)
        self._starts = [event.start_ns for event in self.ranges]

    def at(self, moment_ns: int) -> int | None:
        index = bisect_right(self._starts, moment_ns) - 1
        return index if index >= 0 and moment_ns <= self.ranges[index].end_ns else None


class Phases:
    """The phases of a step; recomputation, inside the backward, is one of its own."""

    def __init__(self, ranges: Iterable[Event]) -> None:
        found = list(ranges)
        self.outer = Windows(event for event in found if event.name != PHASE + RECOMPUTE)
        self._inner = Windows(event for event in found if event.name == PHASE + RECOMPUTE)

    def at(self, moment_ns: int) -> str | None:
        if self._inner.at(moment_ns) is not None:
            return RECOMPUTE
        index = self.outer.at(moment_ns)
        return None if index is None else self.outer.ranges[index].name.removeprefix(PHASE)


def attribute(events: Sequence[Event]) -> Attribution:
    """Build the tables of the traced steps. Raises ValueError when the trace has no step of ours."""
    annotations = [event for event in events if event.category == "user_annotation"]
    steps = Windows(event for event in annotations if event.name == STEP)
    if not steps.ranges:
        raise ValueError(f"the trace has no {STEP} range: it was not recorded by Steplens' traced pass")
    phases = Phases(event for event in annotations if event.name.startswith(PHASE))
    ops = _build_ops(events, steps, phases)
    launches = {
        event.args.correlation: event
        for event in events
        if event.category in LAUNCH_CATEGORIES and event.args.correlation
    }
    device = [event for event in events if event.category in DEVICE_CATEGORIES]
    kernels = _device_kernels(device, launches, ops, steps, phases) if device else _operator_kernels(ops, steps)
    in_steps = [event.name for event in launches.values() if steps.at(event.start_ns) is not None]
    origin = steps.ranges[0].start_ns
    return Attribution(
        origin, tuple(steps.ranges), tuple(phases.outer.ranges), tuple(ops), tuple(kernels), tuple(in_steps)
    )


def _build_ops(events: Sequence[Event], steps: Windows, phases: Phases) -> list[Op]:
    """Operators inside the steps, nested per thread with a stack (events come outer first)."""
    stacks: dict[int | str, list[Op]] = {}
    ops = []
    for event in events:
        if event.category != "cpu_op" or (step := steps.at(event.start_ns)) is None:
            continue
        stack = stacks.setdefault(event.thread, [])
        while stack and stack[-1].event.end_ns <= event.start_ns:
            stack.pop()
        op = Op(event, step, phases.at(event.start_ns), stack[-1] if stack else None)
        if op.parent:
            op.parent.children_ns += min(event.end_ns, op.parent.event.end_ns) - event.start_ns
        stack.append(op)
        ops.append(op)
    return ops


def _device_kernels(
    device: Sequence[Event], launches: Mapping[int, Event], ops: list[Op], steps: Windows, phases: Phases
) -> list[Kernel]:
    by_id = {op.event.args.external_id: op for op in ops if op.event.args.external_id is not None}
    finder = OpFinder(ops)
    origin = steps.ranges[0].start_ns
    for op in ops:
        op.device_self_ns = 0
    kernels = []
    for event in device:
        launch = launches.get(event.args.correlation or 0)
        moment = launch.start_ns if launch else event.start_ns
        step = steps.at(moment)
        if step is None:
            continue
        found = by_id.get(event.args.external_id or -1) or (finder.at(launch.thread, moment) if launch else None)
        if found:
            found.device_self_ns = (found.device_self_ns or 0) + event.duration_ns
        operator, phase = (found.event.name if found else None), phases.at(moment)
        kernels.append(
            Kernel(
                step=step,
                start_ns=event.start_ns - origin,
                duration_ns=event.duration_ns,
                name=event.name,
                category=classify(event.name, operator, phase, event.category),
                stream=event.args.stream if isinstance(event.args.stream, int) else None,
                correlation=event.args.correlation,
                op=operator,
                phase=phase,
            )
        )
    return kernels


def _operator_kernels(ops: list[Op], steps: Windows) -> list[Kernel]:
    """On a CPU the work is done inside operators: each stands for its self time, so that the rows add up."""
    origin = steps.ranges[0].start_ns
    return [
        Kernel(
            step=op.step,
            start_ns=op.event.start_ns - origin,
            duration_ns=op.self_ns,
            name=op.event.name,
            category=_operator_category(op),
            stream=None,
            correlation=None,
            op=op.parent.event.name if op.parent else None,
            phase=op.phase,
        )
        for op in ops
        if op.self_ns > 0
    ]


def _operator_category(op: Op) -> str:
    """An operator's own category, or that of the operator that called it."""
    own = classify(op.event.name, op.event.name, op.phase)
    return own if own != "other" or not op.parent else classify(op.event.name, op.parent.event.name, op.phase)


class OpFinder:
    """Finds the innermost operator that is open on a thread at a moment."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self._ops: dict[int | str, list[Op]] = {}
        for op in ops:
            self._ops.setdefault(op.event.thread, []).append(op)
        self._starts = {thread: [op.event.start_ns for op in found] for thread, found in self._ops.items()}

    def at(self, thread: int | str, moment_ns: int) -> Op | None:
        starts = self._starts.get(thread)
        if not starts:
            return None
        op: Op | None = self._ops[thread][max(0, bisect_right(starts, moment_ns) - 1)]
        while op and not op.event.start_ns <= moment_ns <= op.event.end_ns:
            op = op.parent
        return op


def busy_ns(intervals: Iterable[tuple[int, int]]) -> int:
    """Length of the union of (start, duration) intervals: overlapping kernels count once."""
    total, reached = 0, None
    for start, duration in sorted(intervals):
        end = start + duration
        if reached is None or start > reached:
            total, reached = total + duration, end
        elif end > reached:
            total, reached = total + end - reached, end
    return total


def gaps_ns(kernels: Iterable[Kernel], phase: str) -> list[int]:
    """How long the GPU did nothing between one run of a phase's kernels and the next in the same step.

    What ran in between (a sampler's own arithmetic) is no idle time. Empty where there are no kernels of a GPU.
    """
    gaps = list[int]()
    ended: tuple[int, int] | None = None  # the step, and when the phase's last kernel was done
    between: list[tuple[int, int]] = []
    for kernel in sorted((k for k in kernels if k.stream is not None), key=lambda kernel: kernel.start_ns):
        if kernel.phase != phase:
            between.append((kernel.start_ns, kernel.duration_ns))
            continue
        if ended and between and ended[0] == kernel.step:
            gaps.append(max(0, kernel.start_ns - ended[1] - busy_ns(between)))
        end = kernel.start_ns + kernel.duration_ns
        ended = (kernel.step, max(end, ended[1]) if ended and ended[0] == kernel.step else end)
        between = []
    return gaps
