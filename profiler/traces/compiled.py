"""Compiled: the module of each call that compiled code makes, as Inductor told when it made the code.

profiler/provenance.py keeps in our traces' files, per compiled graph, its calls (kernels and library calls) in order
with the modules that each serves. The trace shows the same graph as a range and the same calls as operators in it, or
as the kernels of a replayed CUDA graph: the k-th of a name is the k-th of that name. Where the numbers of a name differ
(a library call may launch several kernels), what lies between two calls that are certain belongs to the calls that
Inductor made between them. Several modules are as good as the one that contains them all.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from profiler.traces.columns import DEVICE_KINDS, Bools, DeviceWork, Ints, Trace
from profiler.traces.modules import ROOT, Modules
from profiler.traces.nesting import Nesting, nest
from profiler.traces.windows import named
from profiler.traces.words import COMPILED

GRAPH_CALL = "## Call CompiledFxGraph "
_NUMBERED = re.compile(r"^graph_\d+_")  # of a C++ kernel, which a CPU's trace shows with cpp.enable_kernel_profile
_MEMSET = DEVICE_KINDS.index("gpu_memset")
_SAME = {"bias_addmm": "addmm"}  # Inductor's own helper, which calls the operator

Call = tuple[str, list[int]]


class _Graph(msgspec.Struct):
    is_whole: bool
    calls: list[Call]


class _Said(msgspec.Struct):
    modules: list[str]
    graphs: dict[str, _Graph]


@dataclass(frozen=True)
class Compiled:
    """Modules with those that Inductor told; of_ops says for which operators it did."""

    modules: Modules
    of_ops: Bools
    _calls: "_Calls"

    def covers(self, thread: Ints, moments: Ints) -> Bools:
        """Whether a compiled graph's call was open."""
        return self._calls.around(thread, moments) >= 0

    def replayed(self, thread: Ints, launched: Ints, device: DeviceWork, in_graph: Bools) -> tuple[Modules, Ints]:
        """Path numbers of the work that CUDA graphs replay in compiled code (-1 for other work), and all paths."""
        paths, found = _Paths(self.modules.paths), np.full(len(device), -1)
        rows = np.flatnonzero(in_graph)
        rows = rows[np.argsort(device.start_ns[rows], kind="stable")]
        for call, inside in _by_call(self._calls.around(thread, launched), rows):
            outer = self.modules.at(thread[inside[:1]], launched[inside[:1]])
            is_memset = device.kind[inside] == _MEMSET
            ran = inside[~is_memset]
            found[ran] = self._calls.told(call, device.name[ran], int(outer[0]), paths)
            following = np.searchsorted(np.flatnonzero(~is_memset), np.flatnonzero(is_memset))
            # of the kernel that it clears the workspace for
            found[inside[is_memset]] = np.append(found[ran], -1)[following]
        return replace(self.modules, paths=tuple(paths)), found


class _Paths(dict[str, int]):
    """Paths with their numbers, which are those of `Modules.paths`."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__((path, number) for number, path in enumerate(paths))

    def at(self, number: int) -> str:
        return next((path for path, one in self.items() if one == number), "")


class _Calls:
    """The compiled graphs' calls in a trace, and what Inductor said of them."""

    def __init__(self, trace: Trace) -> None:
        said = _said(trace)
        self._names, self._modules = trace.names, said.modules
        ranges = trace.ranges.take(named(trace, trace.ranges, GRAPH_CALL))
        self._graphs = [said.graphs.get(trace.names[code].split()[3]) for code in ranges.name.tolist()]
        self._thread, self._nesting = ranges.thread, nest(ranges.thread, ranges.start_ns, ranges.duration_ns)

    def __len__(self) -> int:
        return len(self._graphs)

    @property
    def are_known(self) -> bool:
        """Whether Inductor told of any of them."""
        return any(self._graphs)

    def around(self, thread: Ints, moments: Ints) -> Ints:
        return self._nesting.innermost(thread, moments)

    def told(self, call: int, names: Ints, around: int, paths: _Paths) -> list[int]:
        """Path numbers of what ran in a graph's call, in order; `around` is that of the module that made the call."""
        graph = self._graphs[call]
        outer = "" if graph is None or graph.is_whole else paths.at(around)
        if graph is None or outer == ROOT or (not outer and not graph.is_whole):
            return [-1] * len(names)
        served = align([call_name(self._names[code]) for code in names.tolist()], graph.calls)
        return [self._number(modules, outer, paths) if modules else -1 for modules in served]

    def _number(self, modules: set[int], outer: str, paths: _Paths) -> int:
        inner = common([self._modules[number] for number in modules])
        path = ".".join(filter(None, (outer, inner))) or ROOT
        return paths.setdefault(path, len(paths))


def tell(trace: Trace, nesting: Nesting, modules: Modules) -> Compiled:
    """The modules of all operators, those of compiled code included where the trace's file knows them."""
    ops, calls = trace.ops, _Calls(trace)
    own = np.full(len(ops), -1)
    if not len(calls) or not len(ops):
        return Compiled(modules, own >= 0, calls)
    around, parent, paths = calls.around(ops.thread, ops.start_ns), nesting.parent, _Paths(modules.paths)
    is_direct = (around >= 0) & ((parent < 0) | (around[parent] != around))
    for call, rows in _by_call(around, np.flatnonzero(is_direct)):
        own[rows] = calls.told(call, ops.name[rows], int(modules.of_ops[rows[0]]), paths)
    nearest = nesting.nearest(own >= 0)
    of_ops = np.where(nearest >= 0, own[nearest], modules.of_ops)
    source = modules.source or ("provenance" if calls.are_known else "")
    return Compiled(replace(modules, paths=tuple(paths), of_ops=of_ops, source=source), nearest >= 0, calls)


def align(names: Sequence[str], calls: Sequence[Call]) -> list[set[int]]:
    """The modules of each thing that ran in a compiled graph's call, in order; an empty set where nobody knows.

    Certain is a name that ran as often as Inductor made it. Of the rest, what lies between two certain ones belongs to
    the calls made between them: to its own where there are as many, else to all of them.
    """
    ran, made = Counter(names), Counter(name for name, _ in calls)
    certain = {name for name, count in ran.items() if made[name] == count}
    if not certain:
        return [set() for _ in names]
    places = iter([place for place, (name, _) in enumerate(calls) if name in certain])
    # both lists hold the certain names equally often; in another order the code is not the one that Inductor told of
    matched = [next(places) if name in certain else -1 for name in names]
    if any(place >= 0 and calls[place][0] != name for place, name in zip(matched, names, strict=True)):
        return [set() for _ in names]
    served: list[set[int]] = [set(calls[place][1]) if place >= 0 else set() for place in matched]
    for first, last in _unmatched(matched):
        before = matched[first - 1] if first else -1
        after = matched[last] if last < len(matched) else len(calls)
        between = [set(modules) for name, modules in calls[before + 1 : after] if name not in certain]
        is_each = len(between) == last - first
        for index in range(first, last):
            served[index] = between[index - first] if is_each else set().union(*between)
    return served


def _unmatched(matched: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of -1, as first and behind the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.array(matched) < 0, [0])).astype(np.int64))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def common(paths: Sequence[str]) -> str:
    """The lowest module that contains them all; empty where that is the whole."""
    split = [path.split(".") for path in paths]
    shortest = min(map(len, split), default=0)
    length = next((at for at in range(shortest) if len({parts[at] for parts in split}) > 1), shortest)
    return ".".join(split[0][:length]) if split else ""


def call_name(text: str) -> str:
    """One word for a call, be it Inductor's (extern_kernels.mm, torch.ops.aten.mm.default) or a trace's (aten::mm)."""
    if text.startswith("torch.ops."):
        name = text.split(".")[3]
    else:
        name = _NUMBERED.sub("", text.removeprefix("extern_kernels.").rpartition("::")[2])
    return _SAME.get(name, name)


def _said(trace: Trace) -> _Said:
    """What our worker wrote into the file; nothing in traces of others, whatever stands under the key."""
    try:
        said = msgspec.convert(trace.metadata.get(COMPILED), _Said)
    except msgspec.ValidationError:
        return _Said([], {})
    numbers = (number for graph in said.graphs.values() for _, modules in graph.calls for number in modules)
    return said if all(0 <= number < len(said.modules) for number in numbers) else _Said([], {})


def _by_call(around: Ints, rows: Ints) -> list[tuple[int, Ints]]:
    """The rows, in their order, that lie in each call."""
    inside = rows[around[rows] >= 0]
    inside = inside[np.argsort(around[inside], kind="stable")]
    calls, first = np.unique(around[inside], return_index=True)
    return list(zip(calls.tolist(), np.split(inside, first[1:]), strict=True)) if len(inside) else []
