"""Columns: a trace's events as numpy arrays, one table per kind of event, in nanoseconds from the first event.

A million events are a few hundred megabytes as Python objects and 100 MB here. -1 is what the trace does not say.
Names, shapes and threads are numbers that index `Trace.names`, `Trace.texts` and `Trace.threads`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ONLY_MODULE = "steplensOnlyModule"  # a key of the file, which a slice of one module writes
FLOATS = ("occupancy", "blocks_per_sm", "warps_per_sm", "bandwidth_gbs")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Durations (or instants: duration_ns is 0), by start, outer before inner."""

    start_ns: Ints
    duration_ns: Ints

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def end_ns(self) -> Ints:
        return self.start_ns + self.duration_ns

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """The rows of an index or a mask."""
        return type(self)(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Ranges(Columns):
    """record_function ranges, steps of the profiler, and the modules that Python stacks name."""

    thread: Ints
    name: Ints
    external_id: Ints


@dataclass(frozen=True, kw_only=True)
class Ops(Ranges):
    """Operators on the host. dims, strides, types and concrete index `Trace.texts`: JSON as the trace has it."""

    sequence: Ints
    forward_thread: Ints
    dims: Ints
    strides: Ints
    types: Ints
    concrete: Ints


@dataclass(frozen=True, kw_only=True)
class Messages(Ranges):
    """Calls of a communication library, by what they say of themselves: NCCL a collective, gloo shapes."""

    message_elements: Ints
    dims: Ints
    types: Ints
    collective: Ints
    dtype: Ints


@dataclass(frozen=True, kw_only=True)
class Launches(Ranges):
    """Calls of the runtime and of the driver: Triton and cuBLASLt launch through the latter."""

    correlation: Ints


@dataclass(frozen=True, kw_only=True)
class DeviceWork(Ranges):
    """Kernels, copies and memsets. kind indexes DEVICE_KINDS; grid, block, collective and dtype index `Trace.texts`."""

    kind: Ints
    device: Ints
    stream: Ints
    correlation: Ints
    graph_node: Ints
    grid: Ints
    block: Ints
    registers: Ints
    shared_bytes: Ints
    occupancy: Floats
    blocks_per_sm: Floats
    warps_per_sm: Floats
    num_bytes: Ints
    bandwidth_gbs: Floats
    collective: Ints
    dtype: Ints
    message_elements: Ints
    group_size: Ints


@dataclass(frozen=True, kw_only=True)
class Allocations(Columns):
    """The allocator's [memory] instants; num_bytes is negative for a release."""

    thread: Ints
    num_bytes: Ints
    address: Ints
    device_type: Ints
    device: Ints
    total_allocated: Ints
    total_reserved: Ints


@dataclass(frozen=True, kw_only=True)
class Syncs(Ranges):
    """cuda_sync and cuda_event rows, which only some traces have: who waits for an event, who records one."""

    device: Ints
    stream: Ints
    correlation: Ints
    wait_stream: Ints
    wait_correlation: Ints
    wait_event: Ints
    event: Ints


@dataclass(frozen=True, kw_only=True)
class Flows(Columns):
    """Ends of forward-to-backward arrows; is_end is 1 at the backward's."""

    thread: Ints
    flow: Ints
    is_end: Ints


@dataclass(frozen=True, kw_only=True)
class Others(Ranges):
    """All other durations: overhead, ranges projected on the GPU, categories that Steplens does not know."""

    category: Ints


DEVICE_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One kineto trace, read."""

    ops: Ops
    ranges: Ranges
    modules: Ranges  # python_function rows that name an nn.Module
    messages: Messages  # these rows are among ops or ranges, too
    launches: Launches
    device: DeviceWork
    allocations: Allocations
    syncs: Syncs
    flows: Flows
    others: Others
    names: list[str]
    texts: list[bytes]
    threads: list[tuple[int | str, int | str]]  # (pid, tid)
    metadata: dict[str, Any]  # the file's other keys
    processes: dict[int | str, dict[str, str]]  # pid -> name, labels
    origin_us: int  # whole microseconds of the file's clock that start_ns counts from
    notes: dict[str, "Note"] = field(default_factory=dict)  # what was repaired, dropped or left out while reading
    num_events: int = 0  # entries of traceEvents that were read

    @property
    def device_name(self) -> str | None:
        """The first GPU's name, as the driver spells it."""
        properties = self.metadata.get("deviceProperties")
        first = properties[0] if isinstance(properties, list) and properties else {}
        return first.get("name") if isinstance(first, dict) else None

    @property
    def only_module(self) -> str | None:
        """The one module that a slice was cut to; all other time in it looks idle."""
        module = self.metadata.get(ONLY_MODULE)
        return module if isinstance(module, str) else None

    def name_code(self, name: str) -> int:
        """The number of a name, or -2 (which no row has) where the trace lacks it."""
        return self.names.index(name) if name in self.names else -2


@dataclass(slots=True)
class Note:
    """One kind of repair or loss: how often, and the first case."""

    count: int = 0
    example: str = ""


class Notes(dict[str, Note]):
    """Collects notes by kind."""

    def add(self, kind: str, example: object = "", count: int = 1) -> None:
        note = self.setdefault(kind, Note(example=str(example)[:120]))
        note.count += count
