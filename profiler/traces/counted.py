"""Counted: the operators of a trace whose FLOP are known, each once."""

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Bools, Ints
from profiler.traces.groups import Groups
from profiler.traces.products import is_product, work_of


def op_flop(found: Attribution) -> Ints:
    """FLOP of every operator of the trace that is counted, -1 for the others; none is counted twice."""
    ops, texts = found.trace.ops, found.trace.texts
    rows = np.flatnonzero(innermost_products(found))
    counted, flop = ops.take(rows), np.full(len(ops), -1)
    groups = Groups.by(counted.name, counted.dims, counted.types, counted.concrete)
    per_group = [
        work_of(found.trace.names[name], texts[dims], texts[types], texts[concrete]).flop
        for name, dims, types, concrete in zip(
            *(c[groups.first].tolist() for c in (counted.name, counted.dims, counted.types, counted.concrete)),
            strict=True,
        )
    ]
    flop[rows] = np.array([-1 if one is None else one for one in per_group], np.int64)[groups.of_row]
    return flop


def innermost_products(found: Attribution) -> Bools:
    """Which operators are products that call no other one: aten::linear calls aten::addmm, and the work is one."""
    is_named = np.array([is_product(name) for name in found.trace.names] or [False], dtype=bool)
    named = is_named[found.trace.ops.name] & (found.trace.ops.dims > 0)
    below = found.nesting.sum_up(named.astype(np.int64))
    innermost: Bools = named & (below == 1)
    return innermost
