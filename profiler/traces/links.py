"""Links: from a backward operator to the forward operator that it differentiates.

Autograd numbers the nodes of its graph per forward thread. A backward operator carries that number and a logical thread
id, so the number alone is no key: which thread stands behind a logical id is found by the numbers that it covers.
"""

import numpy as np

from profiler.traces.columns import Bools, Ints, Trace
from profiler.traces.nesting import Nesting


def find_forwards(trace: Trace, nesting: Nesting) -> Ints:
    """Row of the forward operator for every operator under a backward node, else -1."""
    ops = trace.ops
    is_node = (ops.forward_thread > 0) & (ops.sequence >= 0)
    is_forward = (ops.forward_thread <= 0) & (ops.sequence >= 0)
    if not is_node.any() or not is_forward.any():
        return np.full(len(ops), -1)
    logical, number = np.unique(ops.forward_thread, return_inverse=True)
    threads = _threads(trace, logical, is_node, is_forward)
    span = int(ops.sequence.max()) + 1
    forwards = np.flatnonzero(is_forward)
    # The last of a number is the innermost: operators that make no node share the number of the next that does.
    keys = ops.thread[forwards] * span + ops.sequence[forwards]
    order = np.lexsort((forwards, keys))
    keys, forwards = keys[order], forwards[order]
    wanted = threads[number.reshape(-1)] * span + ops.sequence
    index = np.searchsorted(keys, wanted, side="right") - 1
    found = is_node & (index >= 0) & (keys[np.maximum(index, 0)] == wanted)
    of_node = np.where(found, forwards[np.maximum(index, 0)], -1)
    node = nesting.nearest(found)
    return np.where(node >= 0, of_node[node], -1)


def _threads(trace: Trace, logical: Ints, is_node: Bools, is_forward: Bools) -> Ints:
    """The trace's thread behind each logical forward thread id."""
    ops = trace.ops
    threads = np.full(len(logical), -1)
    candidates = np.unique(ops.thread[is_forward])
    for index in np.flatnonzero(logical > 0).tolist():
        numbers = ops.sequence[is_node & (ops.forward_thread == logical[index])]
        covered = [np.isin(numbers, ops.sequence[is_forward & (ops.thread == one)]).sum() for one in candidates]
        threads[index] = candidates[int(np.argmax(covered))]
    return threads
