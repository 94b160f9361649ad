"""Compare: where the difference in wall time between two traces comes from; the parts sum to it, exactly.

Kernels' names are of no use for that: attention=sdpa and flash_attn_2, eager and compiled share hardly one. What
survives is the class of work, and the place in the model: module and phase. Where one of the traces does not know its
modules, both are cut by phase and class instead, and the comparison says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.breakdown import Exposed, breakdown, exposed, step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.groups import Groups
from profiler.traces.idle import REASONS

KNOWN_MODULES = 0.5  # share of forward and backward time that must have a module for a cut by modules
DEPTH = 2  # of a qualified name: down_blocks.0
_IDLE = tuple(f"idle: {reason}" for reason in REASONS)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One step of a trace (the one of median length) in parts, in nanoseconds. Each kind of parts sums to wall_ns."""

    wall_ns: int
    by_class: dict[str, int]
    by_place: dict[tuple[str, str], int]  # (module to DEPTH, phase); idle time has its reason and no phase
    by_phase: dict[tuple[str, str], int]  # (class, phase)
    knows_modules: bool


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """Parts by size of their change. before + the sum of the changes = after."""

    before_ns: int
    after_ns: int
    changes: dict[str, int]
    note: str = ""


def profile_of(found: Attribution, depth: int = DEPTH) -> Profile:
    """Raises ValueError for a trace without a step."""
    start, end = step_windows(found)
    if not len(start):
        raise ValueError("the trace holds no step to compare")
    wall = end - start
    step = int(np.argsort(wall, kind="stable")[(len(wall) - 1) // 2])
    parts = {
        part: ns
        for number, part, ns in zip(*(column.to_pylist() for column in breakdown(found).columns), strict=True)
        if number == step
    }
    idle = {(part, ""): ns for part, ns in parts.items() if part in _IDLE}
    pieces = exposed(found)
    pieces = Exposed(*(column[pieces.step == step] for column in vars(pieces).values()))
    module, phase, category = (
        column[pieces.row] for column in (found.work.module, found.work.phase, found.work.category)
    )
    phases = (*found.phases.names, "")
    shorts = [shorten(path, depth) for path in found.modules.paths] + ["unattributed"]
    in_model = np.isin(phase, [0, 1, 2])
    known = pieces.duration_ns[in_model & (module >= 0)].sum() >= KNOWN_MODULES * pieces.duration_ns[in_model].sum()
    return Profile(
        wall_ns=int(wall[step]),
        by_class=parts,
        by_place=idle | _summed(pieces, Groups.by(module, phase), module, phase, shorts, phases),
        by_phase=idle | _summed(pieces, Groups.by(category, phase), category, phase, CATEGORIES, phases),
        knows_modules=bool(known) and bool(in_model.any()),
    )


def shorten(path: str, depth: int) -> str:
    """The first names of a qualified name: down_blocks.0.attentions.1 is down_blocks.0."""
    separator = "/" if "/" in path else "."
    return separator.join(path.split(separator)[:depth])


def waterfall_by_class(before: Profile, after: Profile) -> Waterfall:
    """Kernel classes and reasons of idle time."""
    return _waterfall(before, after, before.by_class, after.by_class)


def waterfall_by_place(before: Profile, after: Profile) -> Waterfall:
    """Modules x phases; classes x phases where a trace does not know its modules."""
    if before.knows_modules and after.knows_modules:
        return _waterfall(before, after, _worded(before.by_place), _worded(after.by_place))
    which = [name for name, profile in (("first", before), ("second", after)) if not profile.knows_modules]
    note = f"no module names in the {' and the '.join(which)} trace: cut by class and phase"
    return _waterfall(before, after, _worded(before.by_phase), _worded(after.by_phase), note)


def matrix(profiles: Mapping[str, Profile]) -> pa.Table:
    """One row per part and one column per run (nanoseconds); every column sums to its run's wall time."""
    parts = list(dict.fromkeys(part for profile in profiles.values() for part in profile.by_class))
    order = [part for part in (*CATEGORIES, *_IDLE) if part in parts]
    columns = {name: [profile.by_class.get(part, 0) for part in order] for name, profile in profiles.items()}
    return pa.table({"part": order, **columns})


def _waterfall(
    before: Profile, after: Profile, left: Mapping[str, int], right: Mapping[str, int], note: str = ""
) -> Waterfall:
    changes = {part: right.get(part, 0) - left.get(part, 0) for part in (*left, *right)}
    ordered = dict(sorted(((part, ns) for part, ns in changes.items() if ns), key=lambda item: -abs(item[1])))
    return Waterfall(before_ns=before.wall_ns, after_ns=after.wall_ns, changes=ordered, note=note)


def _summed(
    pieces: Exposed,
    groups: Groups,
    first: Ints,
    phase: Ints,
    names: Sequence[str],
    phases: Sequence[str],
) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    sums = groups.sum(pieces.duration_ns).tolist()
    for name, number, ns in zip(first[groups.first].tolist(), phase[groups.first].tolist(), sums, strict=True):
        key = (names[name], phases[number])
        found[key] = found.get(key, 0) + ns
    return found


def _worded(parts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{name}, {phase}" if phase else name: ns for (name, phase), ns in parts.items()}
