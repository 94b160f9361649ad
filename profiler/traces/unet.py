"""UNet: device time by place in the network, by attention resolution, and by denoising step.

Each moment counts once (see breakdown.py), so that the rows of a table sum to the busy time; what nobody can place has
its own row.
"""

import math

import msgspec
import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.breakdown import exposed
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.groups import Groups
from profiler.traces.modules import block_of
from profiler.traces.phases import PHASES
from profiler.traces.tables import words

UNATTRIBUTED = "unattributed"
SOFTMAX = ("aten::_softmax", "aten::_softmax_backward_data")  # each with the scores' shape first


def module_tree(found: Attribution) -> pa.Table:
    """One row per module and phase: own time, time with the modules inside of it, and kernels; over all steps."""
    pieces, work, paths = exposed(found), found.work, found.modules.paths
    module, phase = work.module[pieces.row], work.phase[pieces.row]
    groups = Groups.by(module, phase)
    own = groups.sum(pieces.duration_ns)
    counts = Groups.by(work.module[work.step >= 0], work.phase[work.step >= 0])
    kept = np.flatnonzero(work.step >= 0)
    num_kernels = {
        (int(work.module[kept[row]]), int(work.phase[kept[row]])): int(count)
        for row, count in zip(counts.first, counts.counts, strict=True)
    }
    keys = list(zip(module[groups.first].tolist(), phase[groups.first].tolist(), strict=True))
    totals: dict[tuple[str, int], int] = {}
    for (number, of_phase), ns in zip(keys, own.tolist(), strict=True):
        for path in _and_above(paths[number] if number >= 0 else UNATTRIBUTED):
            totals[path, of_phase] = totals.get((path, of_phase), 0) + ns
    own_of = {(paths[n] if n >= 0 else UNATTRIBUTED, p): ns for (n, p), ns in zip(keys, own.tolist(), strict=True)}
    counted = {(paths[n] if n >= 0 else UNATTRIBUTED, p): count for (n, p), count in num_kernels.items()}
    rows = sorted(totals, key=lambda key: (key[0] != "(root)", key))
    return pa.table(
        {
            "module": pa.array([path for path, _ in rows], pa.string()),
            "phase": pa.array([found.phases.names[p] if p >= 0 else None for _, p in rows], pa.string()),
            "self_ns": pa.array([own_of.get(key, 0) for key in rows], pa.int64()),
            "total_ns": pa.array([totals[key] for key in rows], pa.int64()),
            "num_kernels": pa.array([counted.get(key, 0) for key in rows], pa.int64()),
        }
    )


def _and_above(path: str) -> list[str]:
    """A module and those around it, by its name: a.b.c is in a.b, a and the root."""
    if path in (UNATTRIBUTED, "(root)"):
        return [path]
    separator = "/" if "/" in path else "."
    parts = path.split(separator)
    above = [separator.join(parts[:length]) for length in range(1, len(parts) + 1)]
    return above if separator == "/" else ["(root)", *above]


def blocks(found: Attribution) -> pa.Table:
    """One row per UNet block, phase and class."""
    pieces, work = exposed(found), found.work
    names = [block_of(path) or UNATTRIBUTED for path in found.modules.paths] + [UNATTRIBUTED]
    known = sorted(set(names))
    block = np.array([known.index(name) for name in names], np.int64)[work.module[pieces.row]]
    phase, category = work.phase[pieces.row], work.category[pieces.row]
    groups = Groups.by(block, phase, category)
    return pa.table(
        {
            "block": words(known, block[groups.first]),
            "phase": words(found.phases.names, phase[groups.first]),
            "category": words(CATEGORIES, category[groups.first]),
            "duration_ns": pa.array(groups.sum(pieces.duration_ns)),
        }
    )


def attention_by_resolution(found: Attribution) -> pa.Table:
    """One row per attention shape: query and key tokens, heads, head dim, self or cross, and its device time.

    From the shapes of PyTorch's attention operators, or of the softmax and its backward where scores are materialised
    (head_dim is then unknown, and the two products are no attention but gemm). resolution is the side of the latent
    image, e.g. 64x64, where the tokens are a square.
    """
    trace, work, pieces = found.trace, found.work, exposed(found)
    is_shaped = np.array([_is_attention(name) for name in trace.names] or [False], dtype=bool)
    shaped = is_shaped[trace.ops.name] & (trace.ops.dims > 0) if len(trace.ops) else np.zeros(0, dtype=bool)
    op = work.row if not found.on_gpu else work.op
    source = found.nesting.outermost(shaped)
    row = np.where(op[pieces.row] >= 0, source[op[pieces.row]], -1) if len(source) else np.full(len(pieces.row), -1)
    kept = (row >= 0) & (work.in_graph[pieces.row] == 0)
    row, duration, phase = row[kept], pieces.duration_ns[kept], work.phase[pieces.row][kept]
    shapes = [_attention_shape(trace.names[n], trace.texts[d]) for n, d in _pairs(trace.ops.name, trace.ops.dims, row)]
    distinct = sorted({shape for shape in shapes if shape is not None})
    code = np.array([distinct.index(shape) if shape is not None else -1 for shape in shapes], np.int64)
    groups = Groups.by(code, phase)
    calls = Groups.by(row, code, phase)
    num_calls = Groups.by(code[calls.first], phase[calls.first]).counts
    first = [distinct[number] if number >= 0 else (None,) * 4 for number in code[groups.first].tolist()]
    return pa.table(
        {
            "resolution": pa.array([_resolution(shape[0]) for shape in first], pa.string()),
            "query_tokens": pa.array([shape[0] for shape in first], pa.int64()),
            "key_tokens": pa.array([shape[1] for shape in first], pa.int64()),
            "num_heads": pa.array([shape[2] or None for shape in first], pa.int64()),
            "head_dim": pa.array([shape[3] or None for shape in first], pa.int64()),
            "phase": words(found.phases.names, phase[groups.first]),
            "num_calls": pa.array(num_calls),
            "duration_ns": pa.array(groups.sum(duration)),
        }
    ).sort_by([("duration_ns", "descending")])


def denoising_steps(found: Attribution) -> pa.Table:
    """One row per step and forward of it, in order: busy time from one forward's launches to the next's."""
    work, pieces = found.work, exposed(found)
    forwards = found.phases.starts(PHASES.index("forward"))
    moment = np.where(work.launch >= 0, _launch_starts(found)[work.launch], work.start_ns)
    number = np.searchsorted(forwards, moment[pieces.row], side="right") - 1
    step = pieces.step
    groups = Groups.by(step, number)
    first_of_step = np.searchsorted(forwards, found.steps.start_ns)
    return pa.table(
        {
            "step": pa.array(step[groups.first]),
            "forward": pa.array(number[groups.first] - first_of_step[step[groups.first]]),
            "busy_ns": pa.array(groups.sum(pieces.duration_ns)),
        }
    )


def _launch_starts(found: Attribution) -> Ints:
    starts = found.trace.launches.start_ns
    return starts if len(starts) else np.zeros(1, np.int64)


def _pairs(names: Ints, dims: Ints, rows: Ints) -> list[tuple[int, int]]:
    return list(zip(names[rows].tolist(), dims[rows].tolist(), strict=True))


def _is_attention(name: str) -> bool:
    return name in ("aten::scaled_dot_product_attention", *SOFTMAX) or (
        name.startswith("aten::_scaled_dot_product_") and "math" not in name
    )


def _attention_shape(name: str, dims: bytes) -> tuple[int, int, int, int] | None:
    """Query tokens, key tokens, heads and head dim; 0 for what is unknown."""
    shapes = msgspec.json.decode(dims)
    try:
        if name in SOFTMAX:
            *_, queries, keys = shapes[0]
            found = (queries, keys, 0, 0)
        else:
            query, key = shapes[1:3] if name.endswith("_backward") else shapes[:2]
            (_, heads, queries, head_dim), (_, _, keys, _) = query, key
            found = (queries, keys, heads, head_dim)
    except (TypeError, ValueError, LookupError):  # other layouts, or a corrupt file's
        return None
    return found if all(isinstance(size, int) and 0 <= size < 2**62 for size in found) else None


def _resolution(tokens: int | None) -> str | None:
    side = math.isqrt(tokens) if tokens else 0
    return f"{side}x{side}" if tokens and side * side == tokens else None
