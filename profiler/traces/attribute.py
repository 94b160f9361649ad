"""Attribute: each piece of device work to its operator, step, phase and module. All on whole arrays.

A kernel belongs to the operator that the trace names for it (External id), else to the one that was open on the
launching thread when it was launched. A replayed CUDA graph has one launch for all its kernels, so their operator is
unknown. On a CPU the operators' self times stand for the kernels.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from profiler.traces.classify import CATEGORIES, classify
from profiler.traces.columns import DEVICE_KINDS, Bools, Columns, Ints, Trace
from profiler.traces.compiled import Compiled, tell
from profiler.traces.groups import Groups
from profiler.traces.links import find_forwards
from profiler.traces.modules import Modules, find_modules
from profiler.traces.nesting import Nesting, nest
from profiler.traces.phases import PHASES, Phases, find_phases
from profiler.traces.windows import Windows, find_steps
from profiler.traces.words import RECOMPUTE

GRAPH_LAUNCHES = ("cudaGraphLaunch", "cuGraphLaunch", "hipGraphLaunch")


@dataclass(frozen=True, kw_only=True)
class Work(Columns):
    """Device work, in the order of the trace's device rows; on a CPU operators with self time, by their rows.

    category indexes CATEGORIES, phase `Attribution.phases.names`, module `Attribution.modules.paths`; op and launch are
    rows of `Trace.ops` and `Trace.launches`. -1 is unknown everywhere. compiled is 0 for work of compiled code, 1 where
    Inductor told its module, -1 for other work.
    """

    row: Ints
    name: Ints
    category: Ints
    op: Ints
    launch: Ints
    step: Ints
    phase: Ints
    module: Ints
    stream: Ints
    device: Ints
    correlation: Ints
    in_graph: Ints
    compiled: Ints


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """A trace with everything in its place. Rows outside of the steps have step -1."""

    trace: Trace
    steps: Windows
    nesting: Nesting  # of the operators
    op_step: Ints
    phases: Phases
    modules: Modules
    forward: Ints  # each backward operator's forward one, -1 for others
    launch_step: Ints
    work: Work
    on_gpu: bool

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @property
    def origin_ns(self) -> int:
        """Where tables count time from: the first step's start."""
        return int(self.steps.start_ns[0]) if len(self.steps) else 0

    @cached_property
    def op_device_ns(self) -> Ints:
        """Device time of each operator without its children."""
        found = np.zeros(len(self.trace.ops), np.int64)
        if self.on_gpu:
            owned = self.work.op >= 0
            np.add.at(found, self.work.op[owned], self.work.duration_ns[owned])
        return found

    @cached_property
    def traced(self) -> Work:
        """The work of the steps."""
        return self.work.take(self.work.step >= 0)


def attribute(trace: Trace) -> Attribution:
    """Put every row of a trace in its place; a trace without any step counts as one step."""
    steps, ops = find_steps(trace), trace.ops
    nesting = nest(ops.thread, ops.start_ns, ops.duration_ns)
    phases = find_phases(trace, nesting)
    forward = find_forwards(trace, nesting)
    forward[phases.of_ops == PHASES.index(RECOMPUTE)] = -1  # it runs inside of some node, which is not its own
    told = tell(trace, nesting, find_modules(trace, forward))
    found = Attribution(
        trace=trace,
        steps=steps,
        nesting=nesting,
        op_step=steps.at(ops.start_ns),
        phases=phases,
        modules=told.modules,
        forward=forward,
        launch_step=steps.at(trace.launches.start_ns),
        work=_no_work(),
        on_gpu=len(trace.device) > 0,
    )
    if not found.on_gpu:
        return replace(found, work=_host_work(found, told))
    work, modules = _device_work(found, told)
    return replace(found, work=work, modules=modules)


def _device_work(found: Attribution, told: Compiled) -> tuple[Work, Modules]:
    """The work, and the modules with those that only replays of compiled code name."""
    trace, device = found.trace, found.trace.device
    launch = _launches(trace)
    moment = np.where(launch >= 0, trace.launches.start_ns[launch] if len(trace.launches) else 0, device.start_ns)
    thread = np.where(launch >= 0, trace.launches.thread[launch] if len(trace.launches) else -1, -1)
    op = _by_external_id(trace)
    missing = np.flatnonzero(op < 0)
    op[missing] = found.nesting.innermost(thread[missing], moment[missing])
    in_graph = _in_graphs(trace, launch)
    phase, module = found.phases.at(moment), found.modules.at(thread, moment)
    around = told.around(thread, moment)
    modules, replayed = told.replayed(thread, moment, around, device, in_graph)
    is_told = replayed >= 0
    if len(trace.ops):
        phase = np.where((op >= 0) & (phase < 0), found.phases.of_ops[op], phase)
        module = np.where((op >= 0) & ~in_graph, found.modules.of_ops[op], module)
        is_told |= (op >= 0) & ~in_graph & told.of_ops[op]
    work = Work(
        start_ns=device.start_ns,
        duration_ns=device.duration_ns,
        row=np.arange(len(device)),
        name=device.name,
        category=_categories(trace, device.name, np.where(in_graph, -1, op), phase, device.kind),
        op=op,
        launch=launch,
        step=found.steps.at(moment),
        phase=phase,
        module=np.where(replayed >= 0, replayed, module),
        stream=device.stream,
        device=device.device,
        correlation=device.correlation,
        in_graph=in_graph.astype(np.int64),
        compiled=np.where(is_told, 1, np.where(around >= 0, 0, -1)),
    )
    return work, modules


def _host_work(found: Attribution, told: Compiled) -> Work:
    """Operators with time of their own: those of all rows add up to the time in which any operator ran."""
    trace = found.trace
    rows = np.flatnonzero(found.nesting.self_ns > 0)
    ops, parent, unknown = trace.ops.take(rows), found.nesting.parent[rows], np.full(len(rows), -1)
    phase = found.phases.of_ops[rows]
    own = _categories(trace, ops.name, rows, phase, np.zeros_like(rows))
    of_caller = _categories(trace, ops.name, parent, phase, np.zeros_like(rows))
    return Work(
        start_ns=ops.start_ns,
        duration_ns=found.nesting.self_ns[rows],
        row=rows,
        name=ops.name,
        category=np.where((own == CATEGORIES.index("other")) & (parent >= 0), of_caller, own),
        op=parent,
        launch=unknown,
        step=found.op_step[rows],
        phase=phase,
        module=found.modules.of_ops[rows],
        stream=unknown,
        device=unknown,
        correlation=unknown,
        in_graph=np.zeros_like(rows),
        compiled=np.where(told.of_ops[rows], 1, np.where(told.around_ops[rows] >= 0, 0, -1)),
    )


def _no_work() -> Work:
    return Work(**dict.fromkeys(Work.__dataclass_fields__, np.empty(0, np.int64)))


def _launches(trace: Trace) -> Ints:
    """Row of each piece of work's launch, by correlation; -1 where the trace lacks it."""
    return row_of(trace.launches.correlation, trace.device.correlation)


def _by_external_id(trace: Trace) -> Ints:
    return row_of(trace.ops.external_id, trace.device.external_id)


def row_of(keys: Ints, wanted: Ints) -> Ints:
    """Row of the last key that equals what is wanted; ids of 0 and below name nothing."""
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    index = np.searchsorted(keys[order], wanted, side="right") - 1
    row = order[np.maximum(index, 0)]
    return np.where((index >= 0) & (keys[row] == wanted) & (wanted > 0), row, -1)


def _in_graphs(trace: Trace, launch: Ints) -> Bools:
    """Work that a graph replays."""
    is_graph = np.array([name.startswith(GRAPH_LAUNCHES) for name in trace.names], dtype=bool)
    by_launch = is_graph[trace.launches.name[launch]] & (launch >= 0) if len(trace.launches) else launch < -1
    return by_launch | (trace.device.graph_node > 0)


def _categories(trace: Trace, name: Ints, op: Ints, phase: Ints, kind: Ints) -> Ints:
    """The class of each piece of work; every combination of names is classified once."""
    op_name = np.where(op >= 0, trace.ops.name[op], -1) if len(trace.ops) else np.full(len(name), -1)
    is_optimizer = (phase == PHASES.index("optimizer")).astype(np.int64)
    keys = (name, op_name, is_optimizer, kind)
    groups = Groups.by(*keys)
    found = [
        classify(
            trace.names[kernel],
            trace.names[operator] if operator >= 0 else None,
            "optimizer" if optimizer else None,
            DEVICE_KINDS[which],
        )
        for kernel, operator, optimizer, which in zip(*(key[groups.first].tolist() for key in keys), strict=True)
    ]
    return np.array([CATEGORIES.index(one) for one in found], np.int64)[groups.of_row]
