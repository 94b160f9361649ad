"""Phases: forward, backward, recompute or optimizer, for every operator and launch.

In our own traces the phases are ranges. In others the autograd engine tells: what runs inside of `evaluate_function` is
backward; operators there that carry a sequence number of a forward (thread id 0) are recomputed by checkpointing.
"""

from dataclasses import dataclass

import numpy as np

from profiler.traces.columns import Bools, Ints, Trace
from profiler.traces.nesting import Nesting
from profiler.traces.windows import Windows, named, windows_of
from profiler.traces.words import PHASE, RECOMPUTE

PHASES = ("forward", "backward", RECOMPUTE, "optimizer")
_ENGINE = "autograd::engine::evaluate_function: "
_OPTIMIZER = "Optimizer."  # Optimizer.step#AdamW.step, Optimizer.zero_grad#...


@dataclass(frozen=True)
class Phases:
    """Names, and the number of a name (-1: none) for operators and for launches outside of operators."""

    names: tuple[str, ...]
    of_ops: Ints
    _outer: Windows
    _inner: Windows

    def at(self, moments: Ints) -> Ints:
        """The phase of moments at which no operator was open."""
        found = self.outer(moments)
        if len(self._inner):
            found[self._inner.at(moments) >= 0] = PHASES.index(RECOMPUTE)
        return found

    def starts(self, phase: int) -> Ints:
        """When each range of a phase begins; one from the beginning where no range names it."""
        named = self._outer.start_ns[self._outer.name == phase]
        return named if len(named) else np.zeros(1, np.int64)

    def outer(self, moments: Ints) -> Ints:
        """The same, with recomputation as the backward that it serves."""
        if not len(self._outer):
            return np.full(len(moments), -1)
        outer = self._outer.at(moments)
        return np.where(outer >= 0, self._outer.name[outer], -1)


def find_phases(trace: Trace, nesting: Nesting) -> Phases:
    ranges = trace.ranges
    is_phase = named(trace, ranges, PHASE)
    if not is_phase.any():
        return _derived(trace, nesting)
    is_inner = is_phase & (ranges.name == trace.name_code(PHASE + RECOMPUTE))
    outer, inner = windows_of(ranges, is_phase & ~is_inner), windows_of(ranges, is_inner)
    said = [trace.names[code].removeprefix(PHASE) for code in outer.name]
    names = (*PHASES, *sorted(set(said) - set(PHASES)))
    outer = Windows(outer.start_ns, outer.end_ns, np.array([names.index(name) for name in said], np.int64))
    phases = Phases(names, np.empty(0, np.int64), outer, inner)
    return Phases(names, phases.at(trace.ops.start_ns), outer, inner)


def _derived(trace: Trace, nesting: Nesting) -> Phases:
    """The phases of a trace that does not name them."""
    ops = trace.ops
    optimizer = windows_of(trace.ranges, named(trace, trace.ranges, _OPTIMIZER))
    found = np.zeros(len(ops), np.int64)
    found[_in_backward(trace, nesting)] = 1
    found[_is_recomputed(trace, nesting)] = 2
    found[optimizer.at(ops.start_ns) >= 0] = 3
    windows = Windows(optimizer.start_ns, optimizer.end_ns, np.full(len(optimizer), 3))
    none = Windows(*(np.empty(0, np.int64),) * 3)
    return Phases(PHASES, found, windows, none)


def _engine_rows(trace: Trace) -> Bools:
    begins = np.array([name.startswith(_ENGINE) for name in trace.names], dtype=bool)
    return begins[trace.ops.name] if len(trace.ops) else np.zeros(0, dtype=bool)


def _in_backward(trace: Trace, nesting: Nesting) -> Bools:
    """Inside of the engine's call of a node, or of a node itself where an old trace lacks the call."""
    is_node = (trace.ops.forward_thread > 0) & (trace.ops.sequence >= 0)
    return nesting.nearest(_engine_rows(trace) | is_node) >= 0


def _is_recomputed(trace: Trace, nesting: Nesting) -> Bools:
    """Forward operators inside of a backward node, from the first that carries a sequence number to the last.

    Operators that make no node of the graph carry none, so that what lies between two that do counts, too.
    """
    ops = trace.ops
    engine = _engine_rows(trace)
    call = nesting.nearest(engine)
    is_forward = (call >= 0) & (ops.sequence >= 0) & (ops.forward_thread <= 0) & ~engine
    first, last = np.full(len(ops), np.iinfo(np.int64).max), np.full(len(ops), -1)
    np.minimum.at(first, call[is_forward], ops.start_ns[is_forward])
    np.maximum.at(last, call[is_forward], ops.end_ns[is_forward])
    inside = (call >= 0) & ~engine & (ops.forward_thread <= 0)
    return inside & (ops.start_ns >= first[call]) & (ops.end_ns <= last[call])
