"""Compare: where the difference in wall time between two traces comes from; the parts sum to it, exactly.

Kernels' names are of no use for that: attention=sdpa and flash_attn_2, eager and compiled share hardly one. What
survives is the class of work, and the place in the model: module and phase. Where one of the traces does not know its
modules, both are cut by phase and class instead, and the comparison says so.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.idle import REASONS
from profiler.traces.ledger import knows_modules, ledger, median_step, pieces_of, walls

_Key = TypeVar("_Key")

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
    wall_ns = walls(found)
    if not len(wall_ns):
        raise ValueError("the trace holds no step to compare")
    step = median_step(wall_ns)
    rows = ledger(found, step).to_pylist()
    return Profile(
        wall_ns=int(wall_ns[step]),
        by_class=_summed(rows, lambda row: row["part"]),
        by_place=_summed(rows, lambda row: _place(row, shorten(row["module"] or "unattributed", depth))),
        by_phase=_summed(rows, lambda row: _place(row, row["part"])),
        knows_modules=knows_modules(found, pieces_of(found, step)),
    )


def _place(row: dict[str, Any], name: str) -> tuple[str, str]:
    """A name and its phase; idle time has its reason and no phase."""
    return (row["part"], "") if row["part"] in _IDLE else (name, row["phase"] or "")


def _summed(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], _Key]) -> dict[_Key, int]:
    found: dict[_Key, int] = {}
    for row in rows:
        found[key(row)] = found.get(key(row), 0) + row["duration_ns"]
    return found


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


def _worded(parts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{name}, {phase}" if phase else name: ns for (name, phase), ns in parts.items()}
