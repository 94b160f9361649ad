"""Timeline: bytes alive by category over a traced step, from the allocator's events and addresses that we know.

- parameters, optimizer_state, other: storages that the worker named (inputs are other);
- gradients: storages that are gradients at the end of backward;
- workspace: freed before the operator that asked for it returned;
- activations: the rest of what forward asks for; what backward and optimizer ask for beside it is other.

The shape is the trace's; the peak to quote is the unprofiled one, since the profiler may hold tensors longer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Allocations

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
    found: Attribution,
    *,
    known: Mapping[str, Mapping[int, int]],
    gradients: Iterable[int],
    on_gpu: bool,
) -> list[Point]:
    """The timeline of the first traced step. `known` maps a category to its storages (address -> bytes) that live
    through the step; `gradients` are addresses at the end of backward."""
    allocator = _of_first_step(found, on_gpu)
    alive = Counter({name: sum(storages.values()) for name, storages in known.items()})
    reserved = allocator.total_reserved.tolist() if on_gpu else [None] * len(allocator)
    points = [_point(0, alive, next(iter(reserved), None))]
    changes = zip(
        *(column.tolist() for column in (allocator.start_ns - found.origin_ns, allocator.num_bytes)),
        reserved,
        _categories(allocator, found, set(gradients)),
        strict=True,
    )
    for moment, num_bytes, total_reserved, category in changes:
        if category is None:
            continue  # the release of something that was alive before and that nobody named
        alive[category] += num_bytes
        points.append(_point(moment, alive, total_reserved))
    return points


def _of_first_step(found: Attribution, on_gpu: bool) -> Allocations:
    allocations = found.trace.allocations
    is_here = (allocations.device_type == CUDA_DEVICE) == on_gpu
    return allocations.take(is_here & (found.steps.at(allocations.start_ns) == 0))


def _categories(allocator: Allocations, found: Attribution, gradients: set[int]) -> list[str | None]:
    """Category of each allocation event and of its release."""
    phases = [found.phases.names[phase] if phase >= 0 else None for phase in _outer_phases(allocator, found)]
    asked_until = _returns(allocator, found)
    moments, addresses, sizes = (
        column.tolist() for column in (allocator.start_ns, allocator.address, allocator.num_bytes)
    )
    categories: list[str | None] = [None] * len(allocator)
    open_blocks: dict[int, int] = {}  # address -> index of its allocation
    for index, (moment, address, size) in enumerate(zip(moments, addresses, sizes, strict=True)):
        if size > 0:
            open_blocks[address] = index
            categories[index] = _category(phases[index], address in gradients)
        elif (start := open_blocks.pop(address, None)) is not None:
            if moment <= asked_until[start]:
                categories[start] = "workspace"
            elif categories[start] == "gradients" and phases[index] == "backward":
                categories[start] = "other"  # a temporary that had the address before the gradient got it
            categories[index] = categories[start]
    return categories


def _outer_phases(allocator: Allocations, found: Attribution) -> list[int]:
    """The phase of each event; recomputation counts as the backward that it serves."""
    numbers: list[int] = found.phases.outer(allocator.start_ns).tolist()
    return numbers


def _category(phase: str | None, is_gradient: bool) -> str:
    if phase == "forward":
        return "activations"
    return "gradients" if is_gradient and phase == "backward" else "other"


def _returns(allocator: Allocations, found: Attribution) -> list[int]:
    """When the operator that asked for each block returns; -1 where no operator asked."""
    ops, nesting = found.trace.ops, found.nesting
    if not len(ops):
        return [-1] * len(allocator)
    only_allocates = np.array([name.startswith("aten::empty") for name in found.trace.names])[ops.name]
    row = nesting.innermost(allocator.thread, allocator.start_ns)
    caller = nesting.nearest(~only_allocates)  # an empty tensor is made for the operator that asks for it
    row = np.where(row >= 0, caller[row], -1)
    returns: list[int] = np.where(row >= 0, ops.end_ns[row], -1).tolist()
    return returns


def _point(time_ns: int, alive: Counter[str], reserved: int | None) -> Point:
    return Point(time_ns, {name: max(0, alive[name]) for name in CATEGORIES}, reserved)
