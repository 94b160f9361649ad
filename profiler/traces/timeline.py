"""Timeline: bytes alive by category over a traced step, from the allocator's events and addresses that we know.

- parameters, optimizer_state, other: storages that the worker named (inputs are other);
- gradients: storages that are gradients at the end of backward;
- workspace: freed before the operator that asked for it returned;
- activations: the rest of what forward asks for; what backward and optimizer ask for beside it is other.

The shape is the trace's; the peak to quote is the unprofiled one, since the profiler may hold tensors longer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from profiler.traces.attribute import PHASE, Attribution, OpFinder, Windows
from profiler.traces.parse import Event

CATEGORIES = ("parameters", "gradients", "optimizer_state", "activations", "workspace", "other")
CUDA_DEVICE = 1  # kineto's "Device Type"


@dataclass(frozen=True, slots=True)
class Point:
    """Bytes alive after one allocation or release; reserved is None on a CPU."""

    time_ns: int
    alive: dict[str, int]
    reserved: int | None

    @property
    def total(self) -> int:
        return sum(self.alive.values())


def build_timeline(
    events: Sequence[Event],
    found: Attribution,
    *,
    known: Mapping[str, Mapping[int, int]],
    gradients: Iterable[int],
    on_gpu: bool,
) -> list[Point]:
    """The timeline of the first traced step. `known` maps a category to its storages (address -> bytes) that live
    through the step; `gradients` are addresses at the end of backward."""
    step = found.steps[0]
    allocator = [
        event
        for event in events
        if event.name == "[memory]"
        and step.start_ns <= event.start_ns <= step.end_ns
        and (event.args.device_type == CUDA_DEVICE) == on_gpu
    ]
    alive = Counter({name: sum(storages.values()) for name, storages in known.items()})
    categories = _categories(allocator, found, set(gradients))
    points = [_point(0, alive, next((e.args.total_reserved for e in allocator), None) if on_gpu else None)]
    for index, event in enumerate(allocator):
        category = categories.get(index)
        if category is None:
            continue  # the release of something that was alive before and that nobody named
        alive[category] += event.args.num_bytes or 0
        points.append(_point(event.start_ns - found.origin_ns, alive, event.args.total_reserved if on_gpu else None))
    return points


def _categories(allocator: Sequence[Event], found: Attribution, gradients: set[int]) -> dict[int, str]:
    """Category of each allocation event and of its release, by index."""
    finder, phases = OpFinder(found.ops), Windows(found.phases)
    categories: dict[int, str] = {}
    open_blocks: dict[int, int] = {}  # address -> index of its allocation
    for index, event in enumerate(allocator):
        address, size = event.args.address or 0, event.args.num_bytes or 0
        if size > 0:
            open_blocks[address] = index
            categories[index] = _category(event, phases, address in gradients)
        elif (start := open_blocks.pop(address, None)) is not None:
            if _same_op(finder, allocator[start], event):
                categories[start] = "workspace"
            elif categories[start] == "gradients" and _phase(phases, event) == "backward":
                categories[start] = "other"  # a temporary that had the address before the gradient got it
            categories[index] = categories[start]
    return categories


def _category(event: Event, phases: Windows, is_gradient: bool) -> str:
    phase = _phase(phases, event)
    if phase == "forward":
        return "activations"
    return "gradients" if is_gradient and phase == "backward" else "other"


def _phase(phases: Windows, event: Event) -> str | None:
    index = phases.at(event.start_ns)
    return None if index is None else phases.ranges[index].name.removeprefix(PHASE)


def _same_op(finder: OpFinder, allocation: Event, release: Event) -> bool:
    """Whether the operator that allocated is still open at the release."""
    op = finder.at(allocation.thread, allocation.start_ns)
    while op and op.event.name.startswith("aten::empty"):  # it allocates for its caller
        op = op.parent
    return op is not None and release.start_ns <= op.event.end_ns


def _point(time_ns: int, alive: Counter[str], reserved: int | None) -> Point:
    return Point(time_ns, {name: max(0, alive[name]) for name in CATEGORIES}, reserved)
