"""Ledger: one step's wall time as rows that add up to it, by class or idle reason, phase and module.

Every sum that pages show (breakdown, module tree, UNet blocks, waterfalls) is a sum over these rows, so none can differ
from another.
"""

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.breakdown import PARTS, Exposed, exposed, step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.groups import Groups
from profiler.traces.idle import idle_parts
from profiler.traces.intervals import Union
from profiler.traces.modules import block_of
from profiler.traces.tables import words

KNOWN_MODULES = 0.5  # share of the time inside of the model that must have a module for a cut by modules
_IN_MODEL = (0, 1, 2)  # forward, backward, recompute


def walls(found: Attribution) -> Ints:
    """Nanoseconds of each step."""
    start, end = step_windows(found)
    return end - start


def median_step(wall_ns: Ints) -> int:
    """The step of median length (of an even number the shorter). Raises ValueError where there is none."""
    if not len(wall_ns):
        raise ValueError("the trace holds no step")
    return int(np.argsort(wall_ns, kind="stable")[(len(wall_ns) - 1) // 2])


def pieces_of(found: Attribution, step: int) -> Exposed:
    pieces = exposed(found)
    return Exposed(*(column[pieces.step == step] for column in vars(pieces).values()))


def knows_modules(found: Attribution, pieces: Exposed) -> bool:
    """Whether most of the work inside of the model has a module."""
    module, phase = found.work.module[pieces.row], found.work.phase[pieces.row]
    in_model = np.isin(phase, _IN_MODEL)
    total = int(pieces.duration_ns[in_model].sum())
    return total > 0 and int(pieces.duration_ns[in_model & (module >= 0)].sum()) >= KNOWN_MODULES * total


def ledger(found: Attribution, step: int) -> pa.Table:
    """One row per part (a class, or idle with its reason), phase and module of a step; the rows sum to its wall time.

    block is the module's place in a UNet; phase, module and block are null where nobody knows them. num_pieces counts
    the kernels (on a CPU the operators) that show in the row.
    """
    pieces, (start, end) = pieces_of(found, step), step_windows(found)
    busy = Union.of(pieces.start_ns, pieces.end_ns)
    _, reason, idle_ns = idle_parts(found, start[step : step + 1], end[step : step + 1], busy)
    work, none = found.work, np.full(len(reason), -1)
    part = np.concatenate((work.category[pieces.row], reason + len(CATEGORIES)))
    phase = np.concatenate((work.phase[pieces.row], none))
    module = np.concatenate((work.module[pieces.row], none))
    duration = np.concatenate((pieces.duration_ns, idle_ns))
    row = np.concatenate((pieces.row, none))
    groups = Groups.by(part, phase, module)
    first, total = groups.first, groups.sum(duration)
    kept = total > 0
    shown = Groups.by(groups.of_row, row)
    counts = np.bincount(groups.of_row[shown.first], (row[shown.first] >= 0), len(groups)).astype(np.int64)
    blocks = [block_of(path) for path in found.modules.paths]
    block = np.array([number if name else -1 for number, name in enumerate(blocks)] + [-1], np.int64)
    first, total, counts = first[kept], total[kept], counts[kept]
    return pa.table(
        {
            "part": words(PARTS, part[first]),
            "phase": words(found.phases.names, phase[first]),
            "module": words(found.modules.paths, module[first]),
            "block": words(blocks, block[module[first]]),
            "duration_ns": pa.array(total),
            "num_pieces": pa.array(counts),
        }
    ).sort_by([("duration_ns", "descending")])
