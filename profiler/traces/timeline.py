"""Timeline: bytes alive by category and module over a traced step, from the allocator's events and known addresses.

- parameters, optimizer_state, other: storages that the worker named (inputs are other);
- gradients: storages that are gradients at the end of backward;
- workspace: freed before the operator that asked for it returned;
- activations: the rest of what forward asks for, and checkpointing's second forward; what backward and optimizer ask
  for beside it is other. On a GPU, what was alive before the step and nobody named (cuBLAS' workspace) is other, too.

The shape is the trace's; the peak to quote is the unprofiled one, since the profiler may hold tensors longer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Allocations, Ints
from profiler.traces.cycles import no_cycles
from profiler.traces.phases import PHASES
from profiler.traces.words import RECOMPUTE

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


@dataclass(slots=True)
class Storage:
    """One storage: from which point of the timeline it is alive, and at which it is gone (None: it outlives the step).

    module is the path of the module that it belongs to or that asked for it; None where nobody knows.
    """

    num_bytes: int
    category: str
    module: str | None
    born: int = 0
    gone: int | None = None

    def is_alive(self, point: int) -> bool:
        return self.born <= point and (self.gone is None or point < self.gone)


@dataclass(frozen=True)
class Timeline:
    """The first traced step. points[0] is its beginning, points[n] what the n-th event of the allocator left."""

    points: list[Point] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    forward_end: int | None = None  # the last point before the backward; None where there is none

    @property
    def peak(self) -> int:
        """The first point at which most is alive."""
        return max(range(len(self.points)), key=lambda point: self.points[point].total)

    @property
    def peak_bytes(self) -> int:
        return max((point.total for point in self.points), default=0)

    @property
    def activations(self) -> int:
        """In training what forward keeps for backward, else the most that is alive at once."""
        if self.forward_end is not None:
            return self.points[self.forward_end].alive["activations"]
        return self.most("activations")

    def most(self, category: str) -> int:
        return max((point.alive[category] for point in self.points), default=0)


@no_cycles()
def build_timeline(
    found: Attribution,
    *,
    known: Mapping[str, Mapping[int, int]],
    gradients: Iterable[int],
    on_gpu: bool,
    owners: Mapping[int, str] | None = None,
) -> Timeline:
    """The timeline of the first traced step. `known` maps a category to its storages (address -> bytes) that live
    through the step; `gradients` are addresses at the end of backward; `owners` the modules of known addresses."""
    allocator, owners = _of_first_step(found, on_gpu), owners or {}
    standing = {
        address: Storage(num_bytes, category, owners.get(address))
        for category, storages in known.items()
        for address, num_bytes in storages.items()
    }
    named = list(standing.values())
    unnamed = _unnamed(allocator, sum(storage.num_bytes for storage in named)) if on_gpu else 0
    asked = _asked_for(allocator, found, standing, set(gradients), owners, unnamed)
    storages = [one for one in (*named, *asked) if one.num_bytes]
    reserved: Sequence[int | None] = allocator.total_reserved.tolist() if on_gpu else [None] * len(allocator)
    times = (allocator.start_ns - found.origin_ns).tolist()
    points = _points([0, *times], [*reserved[:1], *reserved] or [None], storages)
    return Timeline(points, storages, _forward_end(allocator, found))


def _of_first_step(found: Attribution, on_gpu: bool) -> Allocations:
    allocations = found.trace.allocations
    is_here = (allocations.device_type == CUDA_DEVICE) == on_gpu
    return allocations.take(is_here & (found.steps.at(allocations.start_ns) == 0))


def _unnamed(allocator: Allocations, named: int) -> int:
    """Bytes that the allocator had given out before the first event, beyond those that the worker named."""
    before = int(allocator.total_allocated[0] - allocator.num_bytes[0]) if len(allocator) else 0
    return max(0, before - named)


def _asked_for(
    allocator: Allocations,
    found: Attribution,
    standing: dict[int, Storage],
    gradients: set[int],
    owners: Mapping[int, str],
    unnamed: int,
) -> list[Storage]:
    """The storages of all allocation events, with their releases; what is unnamed leaves as it is released."""
    phases = [PHASES[phase] if 0 <= phase < len(PHASES) else None for phase in found.phases.at(allocator.start_ns)]
    rows = _op_rows(allocator, found)
    asked_until = _returns(rows, found)
    modules = _modules(allocator, rows, found)
    moments, addresses, sizes = (
        column.tolist() for column in (allocator.start_ns, allocator.address, allocator.num_bytes)
    )
    made: list[Storage] = []
    storage: Storage | None
    open_storages: dict[int, Storage] = dict(standing)  # by address
    for index, (moment, address, size) in enumerate(zip(moments, addresses, sizes, strict=True)):
        if size > 0:
            category = _category(phases[index], address in gradients)
            module = owners.get(address) if category == "gradients" else modules[index]
            made.append(Storage(size, category, module, born=index + 1))
            open_storages[address] = made[-1]
        elif storage := open_storages.pop(address, None):
            storage.gone = index + 1
            if storage.born and moment <= asked_until[storage.born - 1]:
                storage.category = "workspace"
            elif storage.category == "gradients" and phases[index] in ("backward", RECOMPUTE):
                # a temporary that had the address before the gradient got it
                storage.category, storage.module = "other", modules[storage.born - 1]
        elif unnamed >= -size:
            unnamed += size
            made.append(Storage(-size, "other", None, gone=index + 1))
    return [*made, Storage(unnamed, "other", None)]


def _category(phase: str | None, is_gradient: bool) -> str:
    if phase in ("forward", RECOMPUTE):
        return "activations"
    return "gradients" if is_gradient and phase == "backward" else "other"


def _op_rows(allocator: Allocations, found: Attribution) -> Ints:
    """The innermost operator that was open at each event; -1 where none was."""
    return found.nesting.innermost(allocator.thread, allocator.start_ns)


def _returns(rows: Ints, found: Attribution) -> list[int]:
    """When the operator that asked for each block returns; -1 where no operator asked."""
    ops = found.trace.ops
    if not len(ops):
        return [-1] * len(rows)
    only_allocates = np.array([name.startswith("aten::empty") for name in found.trace.names])[ops.name]
    caller = found.nesting.nearest(~only_allocates)  # an empty tensor is made for the operator that asks for it
    row = np.where(rows >= 0, caller[rows], -1)
    returns: list[int] = np.where(row >= 0, ops.end_ns[row], -1).tolist()
    return returns


def _modules(allocator: Allocations, rows: Ints, found: Attribution) -> list[str | None]:
    """The module of each event's operator, else the one that was being called."""
    number = found.modules.at(allocator.thread, allocator.start_ns)
    if len(found.trace.ops):
        number = np.where(rows >= 0, found.modules.of_ops[rows], number)
    return [found.modules.paths[one] if one >= 0 else None for one in number.tolist()]


def _forward_end(allocator: Allocations, found: Attribution) -> int | None:
    starts = found.phases.starts(PHASES.index("backward"))
    first = int(starts[0])
    return int((allocator.start_ns < first).sum()) if first > 0 else None


def _points(times: Sequence[int], reserved: Sequence[int | None], storages: Sequence[Storage]) -> list[Point]:
    changes: list[Counter[str]] = [Counter() for _ in times]
    for storage in storages:
        changes[storage.born][storage.category] += storage.num_bytes
        if storage.gone is not None:
            changes[storage.gone][storage.category] -= storage.num_bytes
    alive = dict.fromkeys(CATEGORIES, 0)
    points = []
    for moment, held, change in zip(times, reserved, changes, strict=True):
        for category, num_bytes in change.items():
            alive[category] += num_bytes
        points.append(Point(moment, dict(alive), held))
    return points
