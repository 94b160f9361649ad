"""Compiled: the module of each call that compiled code makes, as Inductor told when it made the code.

profiler/provenance.py keeps in our traces' files, per compiled graph, its calls (kernels and library calls) in order
with the modules that each serves. The trace shows the same graph as a range and the same calls as operators in it, or
as the kernels of a replayed CUDA graph; alignment.py brings both together. Several modules are as good as the one that
contains them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

import msgspec
import numpy as np

from profiler.traces.alignment import Call, align, call_name, common
from profiler.traces.columns import DEVICE_KINDS, Bools, DeviceWork, Ints, Trace
from profiler.traces.modules import ROOT, Modules
from profiler.traces.nesting import Nesting, nest
from profiler.traces.windows import named
from profiler.traces.words import COMPILED

GRAPH_CALL = "## Call CompiledFxGraph "
_MEMSET = DEVICE_KINDS.index("gpu_memset")


class _Graph(msgspec.Struct):
    is_whole: bool
    calls: list[Call]


class _Said(msgspec.Struct):
    modules: list[str]
    graphs: dict[str, _Graph]


@dataclass(frozen=True)
class Compiled:
    """Modules with those that Inductor told; of_ops says for which operators it did.

    around_ops is the compiled graph's call that each operator ran in, -1 where it ran in none.
    """

    modules: Modules
    of_ops: Bools
    around_ops: Ints
    _calls: "_Calls"

    def around(self, thread: Ints, moments: Ints) -> Ints:
        """The compiled graph's call that was open, -1 where none was."""
        return self._calls.around(thread, moments)

    def replayed(
        self, thread: Ints, launched: Ints, around: Ints, device: DeviceWork, in_graph: Bools
    ) -> tuple[Modules, Ints]:
        """Path numbers of the work that CUDA graphs replay in compiled code (-1 for other work), and all paths.

        around is the call that was open when the work was launched.
        """
        paths, found = _Paths(self.modules.paths), np.full(len(device), -1)
        rows = np.flatnonzero(in_graph)
        rows = rows[np.argsort(device.start_ns[rows], kind="stable")]
        for call, inside in _by_call(around, rows):
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
        keys = (trace.names[code].removeprefix(GRAPH_CALL).removesuffix(" ##") for code in ranges.name.tolist())
        self._graphs = [said.graphs.get(key) for key in keys]
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
        return Compiled(modules, own >= 0, own, calls)
    around, parent, paths = calls.around(ops.thread, ops.start_ns), nesting.parent, _Paths(modules.paths)
    is_direct = (around >= 0) & ((parent < 0) | (around[parent] != around))
    for call, rows in _by_call(around, np.flatnonzero(is_direct)):
        own[rows] = calls.told(call, ops.name[rows], int(modules.of_ops[rows[0]]), paths)
    nearest = nesting.nearest(own >= 0)
    of_ops = np.where(nearest >= 0, own[nearest], modules.of_ops)
    source = modules.source or ("provenance" if calls.are_known else "")
    return Compiled(replace(modules, paths=tuple(paths), of_ops=of_ops, source=source), nearest >= 0, around, calls)


def keep_only(trace: Trace, module: str) -> None:
    """Cut the record, as a slice of one module cuts the trace: what remains is told by the order of what remains."""
    said = _said(trace)
    for graph in said.graphs.values():
        if graph.is_whole and module != ROOT:
            paths = [common([said.modules[number] for number in modules]) for _, modules in graph.calls]
            inside = [path == module or path.startswith(f"{module}.") for path in paths]
            graph.calls = list(compress(graph.calls, inside))
    if said.graphs:
        trace.metadata[COMPILED] = msgspec.to_builtins(said)


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
