"""Short names for runs, for the rungs of a ladder and the entries of a legend."""

from collections import Counter
from typing import Any

import pandas as pd

from profiler.combo import BASELINE, FAMILIES, name_choice

Rung = dict[str, Any]

SINGLE_RUNS = "single_runs"  # all runs that belong to no sweep, as a study: its id and its name
# Studies whose rows do not build on one another: each against the baseline, or against the stack.
AGAINST_BASELINE = (
    *("one_at_a_time", "pairs", "grid", "single_combo", "covering"),
    *("scaling_batch", "scaling_resolution", "scaling_model"),
    SINGLE_RUNS,
)
AGAINST_STACK = ("around", "leave_one_out")
STACK_POSITION = 1  # in the sweep: after the baseline


def as_study(single: pd.DataFrame) -> pd.DataFrame:
    """Runs of no sweep with the places that they would have in one: by their order, the baseline's as baselines."""
    roles = single["combo_label"].map(lambda label: "baseline" if label == BASELINE.label else "candidate")
    return single.assign(sweep_name=SINGLE_RUNS, sweep_role=roles.astype("str"), sweep_position=range(len(single)))


def bases(runs: pd.DataFrame) -> list[int | None]:
    """The place among these rows, in the order of the sweep, of the run that each one's label builds on.

    Ladders: of the earlier rungs of the same workload that are done the one most like it: not the last, since a rung
    that branched off carries no other. AGAINST_STACK: the stack. None for baselines, for the stack, and
    AGAINST_BASELINE, whose speedup says it already.
    """
    rungs = runs.to_dict("records")
    return [_base(place, rungs) for place in range(len(rungs))]


def steps(runs: pd.DataFrame) -> list[str]:
    """What each run of a sweep is, in the order of the sweep, by what it builds on (see bases).

    Ladders: what it changed, '+ sdpa', '+ flex for sdpa' or '- channels_last'. What two rungs changed alike does not
    tell them apart: these get their whole label. AGAINST_STACK: 'stack + flex'. AGAINST_BASELINE: the whole label.
    """
    rungs = runs.to_dict("records")
    short = [_step(rung, base, rungs) for rung, base in zip(rungs, bases(runs), strict=True)]
    unclear = {name for name, count in Counter(short).items() if count > 1 and name.startswith(("+", "-"))}
    return [str(rung["combo_label"]) if name in unclear else name for name, rung in zip(short, rungs, strict=True)]


def runs(frame: pd.DataFrame) -> pd.Series:
    """The combo's label, with the run id where several runs share it."""
    shared = frame["combo_label"].duplicated(keep=False)
    return frame["combo_label"].mask(shared, frame["combo_label"] + " (" + frame["run_id"] + ")")


def _base(place: int, rungs: list[Rung]) -> int | None:
    rung = rungs[place]
    if rung["sweep_role"] != "candidate" or rung["sweep_name"] in AGAINST_BASELINE or _is_stack(rung):
        return None
    # The latest first: of a rung that was run again, the later run counts.
    earlier = [before for before in reversed(range(place)) if _carries(rungs[before], rung)]
    if rung["sweep_name"] in AGAINST_STACK:
        return next((before for before in earlier if _is_stack(rungs[before])), None)
    done = (before for before in earlier if rungs[before]["status"] == "done")
    return min(done, key=lambda before: _distance(rungs[before], rung), default=None)


def _carries(earlier: Rung, rung: Rung) -> bool:
    return bool(earlier["workload_key"] == rung["workload_key"] and earlier["sweep_position"] != rung["sweep_position"])


def _is_stack(rung: Rung) -> bool:
    return rung["sweep_name"] in AGAINST_STACK and rung["sweep_position"] == STACK_POSITION


def _step(rung: Rung, base: int | None, rungs: list[Rung]) -> str:
    if rung["sweep_role"] != "candidate":
        return "baseline again" if rung["sweep_role"] == "baseline_repeat" else "baseline"
    if base is None:
        return "stack" if _is_stack(rung) else str(rung["combo_label"])
    if rung["sweep_name"] in AGAINST_STACK:
        return " ".join(["stack", *_changes(rungs[base], rung)])
    return " ".join(_changes(rungs[base], rung, name_old=True)) or f"{rung['combo_label']} again"


def _distance(before: Rung, after: Rung) -> tuple[int, bool]:
    """How many choices differ; of as many, a rung to which something is added lies nearer."""
    changes = _changes(before, after)
    return len(changes), any(change.startswith("-") for change in changes)


def _changes(before: Rung, after: Rung, *, name_old: bool = False) -> list[str]:
    """Leaving a choice for the baseline's takes it away; anything else adds the new one, in place of an old one."""
    differing = [family for family in FAMILIES if before[family] != after[family]]
    return [_change(family, before[family], after[family], name_old) for family in differing]


def _change(family: str, old: str, new: str, name_old: bool) -> str:
    plain = getattr(BASELINE, family)
    if new == plain:
        return f"- {name_choice(family, old)}"
    return f"+ {name_choice(family, new)}" + (f" for {old}" if name_old and old != plain else "")
