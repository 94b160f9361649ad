"""Modules: which nn.Module each operator runs for, by qualified name, and its place in a UNet.

Our own eager traces have a range per module call. Foreign ones that were recorded with stacks name class and number
("nn.Module: Conv2d_3"); their path is the chain of calls. A backward operator belongs to the module of its forward one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.traces.columns import Ints, Ops, Ranges, Trace
from profiler.traces.nesting import nest
from profiler.traces.windows import named
from profiler.traces.words import MODULE

ROOT = "(root)"
_PYTHON = "nn.Module: "
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)|mid_block|conv_in|conv_out|time_embedding|time_proj|add_embedding")
_BLOCK_CLASS = re.compile(r"(\w*(?:Down|Up|Mid)\w*Block\w*?)_(\d+)(?:/|$)|TimestepEmbedding|Timesteps")


@dataclass(frozen=True)
class Modules:
    """Paths, and the number of a path (-1: none) for each operator."""

    paths: tuple[str, ...]
    of_ops: Ints
    source: str  # what told: "ranges", "stacks" or ""
    ranges: Ranges  # the module calls
    path_of_range: Ints

    def at(self, thread: Ints, moments: Ints) -> Ints:
        """Path numbers of moments outside of operators."""
        if not len(self.ranges):
            return np.full(len(moments), -1)
        row = nest(self.ranges.thread, self.ranges.start_ns, self.ranges.duration_ns).innermost(thread, moments)
        return np.where(row >= 0, self.path_of_range[row], -1)


def find_modules(trace: Trace, forward: Ints) -> Modules:
    """Modules of all operators; `forward` is each backward operator's forward one, else -1."""
    ours = named(trace, trace.ranges, MODULE)
    if ours.any():
        ranges, source = trace.ranges.take(ours), "ranges"
        texts = [trace.names[code].removeprefix(MODULE) or ROOT for code in ranges.name]
    elif len(trace.modules):
        ranges, source = trace.modules, "stacks"
        texts = _chained(ranges, [trace.names[code].removeprefix(_PYTHON) for code in ranges.name])
    else:
        return Modules((), np.full(len(trace.ops), -1), "", trace.modules, np.empty(0, np.int64))
    paths = tuple(dict.fromkeys(texts))
    numbers = {path: number for number, path in enumerate(paths)}
    of_range = np.array([numbers[text] for text in texts], np.int64)
    calls = Modules(paths, np.empty(0, np.int64), source, ranges, of_range)
    return Modules(paths, _of_ops(trace.ops, calls, forward), source, ranges, of_range)


def _of_ops(ops: Ops, calls: Modules, forward: Ints) -> Ints:
    own = calls.at(ops.thread, ops.start_ns)
    through = np.where(forward >= 0, own[forward], -1)
    return np.where(own >= 0, own, through)


def _chained(ranges: Ranges, texts: Sequence[str]) -> list[str]:
    """The path of each call: those around it, joined."""
    nesting = nest(ranges.thread, ranges.start_ns, ranges.duration_ns)
    paths = [""] * len(texts)
    for row in np.argsort(nesting.depth, kind="stable").tolist():
        parent = int(nesting.parent[row])
        paths[row] = f"{paths[parent]}/{texts[row]}" if parent >= 0 else texts[row]
    return paths


def block_of(path: str) -> str:
    """Where in a UNet a module stands: down.0, mid, up.2, conv_in, time_embedding...; empty where it is no part."""
    if found := _BLOCK.search(path):
        return f"{found[1]}.{found[2]}" if found[1] else found[0].removesuffix("_block")
    if found := _BLOCK_CLASS.search(path):
        if not found[1]:
            return "time_embedding"
        side = next(side for side in ("down", "up", "mid") if side.capitalize() in found[1])
        return "mid" if side == "mid" else f"{side}.{found[1]}_{found[2]}"
    return ""
