"""Idle: why a GPU did nothing, for each gap between kernels of a step.

    previous kernel ends          the next one's launch begins        it starts
          |------ the host is late: sync, allocator, data, host ------|-- queue --|

- queue: the launch had begun; the rest is the launch call's own time and the GPU's start-up;
- sync: the host had waited for the GPU, so that the queue was empty; or it waits for the end of the step;
- allocator: inside of cudaMalloc, cudaFree and the like; data: inside of a DataLoader; host: everything else in Python.
"""

import re

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Bools, Ints, Ranges, Trace
from profiler.traces.intervals import Union, cut_up

REASONS = ("host", "sync", "allocator", "data", "queue", "outside of operators")
_SYNC = re.compile(r"(Device|Stream|Event|Ctx)Synchronize$|^(cuda|hip)Memcpy$|MemcpyDtoH_v2$")
_ALLOCATOR = re.compile(
    r"^(cuda|hip|cu)(Malloc|Free|HostAlloc|MemAlloc|MemFree|HostRegister|MemMap|MemUnmap|MemCreate)"
)
_DATA = re.compile(r"DataLoader")
_HOST, _SYNCED, _ALLOCATED, _LOADED, _QUEUE, _OUTSIDE = range(len(REASONS))


def idle_parts(found: Attribution, start: Ints, end: Ints, busy: Union) -> tuple[Ints, Ints, Ints]:
    """Step, reason (number in REASONS) and nanoseconds of idle time in steps of the given limits."""
    empty = np.empty(0, np.int64)
    if not len(start):
        return empty, empty, empty
    free = busy.gaps(int(start[0]), int(end[-1]))
    begin, finish, _ = cut_up(free.start, free.end, free.start, start, end)
    step = np.searchsorted(start, begin, side="right") - 1
    if not found.on_gpu:
        return step, np.full(len(step), _OUTSIDE), finish - begin
    launched = np.clip(_next_launch(found, finish), begin, finish)
    late = launched - begin
    allocator = _calls(found.trace, _ALLOCATOR).within(begin, launched)
    data = _ranges(found.trace.ranges, _matches(found.trace, _DATA)).within(begin, launched)
    data = np.minimum(data, late - allocator)
    rest = late - allocator - data
    synced = np.where(_syncs_within(found.trace, begin, launched), rest, 0)
    parts = {_QUEUE: finish - launched, _SYNCED: synced, _ALLOCATED: allocator, _LOADED: data, _HOST: rest - synced}
    reason = np.repeat(list(parts), len(step))
    return np.tile(step, len(parts)), reason, np.concatenate(list(parts.values()))


def _next_launch(found: Attribution, moments: Ints) -> Ints:
    """When the launch began of the kernel that starts at each moment; the moment itself at the end of a step."""
    work, launches = found.work, found.trace.launches
    index = np.searchsorted(work.start_ns, moments, side="left")
    starts = np.append(work.start_ns, -1)[index] == moments
    launch = np.append(work.launch, -1)[index]
    known = starts & (launch >= 0)
    return np.where(known, launches.start_ns[launch], moments) if len(launches) else moments


def _syncs_within(trace: Trace, begin: Ints, until: Ints) -> Bools:
    """Whether a wait for the GPU ends within each interval, or goes on through it."""
    calls = trace.launches.take(waits_for_gpu(trace)[trace.launches.name])
    ends = np.sort(calls.end_ns)
    returned = np.searchsorted(ends, until, side="right") > np.searchsorted(ends, begin, side="left")
    waiting: Bools = returned | (_union(calls).within(begin, until) > 0)
    return waiting


def waits_for_gpu(trace: Trace) -> Bools:
    """Which names are calls that return when the GPU is done."""
    return _matches(trace, _SYNC)


def _calls(trace: Trace, pattern: re.Pattern[str]) -> Union:
    return _ranges(trace.launches, _matches(trace, pattern))


def _ranges(table: Ranges, is_wanted: Bools) -> Union:
    return _union(table.take(is_wanted[table.name] if len(table) else np.zeros(0, dtype=bool)))


def _union(table: Ranges) -> Union:
    return Union.of(table.start_ns, table.end_ns)


def _matches(trace: Trace, pattern: re.Pattern[str]) -> Bools:
    """Which names match."""
    return np.array([bool(pattern.search(name)) for name in trace.names] or [False], dtype=bool)
