"""Alignment: what ran in a compiled graph's call, with the calls that Inductor said it made there.

The k-th of a name is the k-th of that name. Where the numbers of a name differ (a library call may launch several
kernels), what lies between two calls that are certain belongs to the calls that Inductor made between them.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import repeat

import numpy as np

_NUMBERED = re.compile(r"^graph_\d+_")  # of a C++ kernel, which a CPU's trace shows with cpp.enable_kernel_profile
_SAME = {"bias_addmm": "addmm"}  # Inductor's own helper, which calls the operator

Call = tuple[str, list[int]]  # a name, and the numbers of the modules that it serves


def align(names: Sequence[str], calls: Sequence[Call]) -> list[set[int]]:
    """The modules of each thing that ran in a compiled graph's call, in order; an empty set where nobody knows.

    Certain is a name that ran as often as Inductor made it. Of the rest, what lies between two certain ones belongs to
    the calls of its kind made between them (a library's, or of one Triton kernel): to its own where there are as many,
    else to all of them; to the two certain ones where Inductor told of none (torch 2.11 and 2.13 are silent about
    kernels that reduce along two axes at once, as a LayerNorm's backward, and about the sums that follow them).
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
        between = [call for call in calls[before + 1 : after] if call[0] not in certain]
        around = {*calls[before][1], *calls[after][1]} if before >= 0 and after < len(calls) else set()
        served[first:last] = _of_run(names[first:last], between, around)
    return served


def _of_run(names: Sequence[str], between: Sequence[Call], around: set[int]) -> list[set[int]]:
    """The modules of what ran between two certain calls, by the calls of its kind between them; else those around."""
    told: dict[str, list[set[int]]] = {}
    for name, modules in between:
        told.setdefault(_kind(name), []).append(set(modules))
    ran = Counter(map(_kind, names))
    each = {
        kind: iter(served) if len(served) == ran[kind] else repeat(set().union(*served))
        for kind, served in told.items()
    }
    return [next(each[kind]) if kind in each else around for kind in map(_kind, names)]


def _kind(name: str) -> str:
    """Inductor's own kernels keep their names; what a library launches has others than its call."""
    return name if name.startswith(("triton_", "cpp_")) else "library"


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
