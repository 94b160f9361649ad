"""Short names for runs, for the rungs of a ladder and the entries of a legend."""

from collections import Counter

import pandas as pd

from profiler.combo import BASELINE, FAMILIES, name_choice

# Studies whose rows do not build on one another: each against the baseline, or against the stack.
AGAINST_BASELINE = (
    *("one_at_a_time", "pairs", "grid", "single_combo", "covering"),
    *("scaling_batch", "scaling_resolution", "scaling_model"),
)
AGAINST_STACK = ("around", "leave_one_out")
STACK_POSITION = 1  # in the sweep: after the baseline


def steps(runs: pd.DataFrame) -> list[str]:
    """What each run of a sweep is, in the order of the sweep, by what its rows build on.

    Ladders: '+ sdpa', what it changed against the earlier rung of its workload that is most like it. Most alike, not
    last: a rung that branched off, or was rejected, carries no other. What two rungs changed alike does not tell them
    apart: these get their whole label. AGAINST_STACK: 'stack + flex'. AGAINST_BASELINE: the whole label.
    """
    rungs = runs.to_dict("records")
    short = [_step(rung, [e for e in rungs[:place] if _carries(e, rung)]) for place, rung in enumerate(rungs)]
    unclear = {name for name, count in Counter(short).items() if count > 1 and name.startswith(("+", "-"))}
    return [str(rung["combo_label"]) if name in unclear else name for name, rung in zip(short, rungs, strict=True)]


def runs(frame: pd.DataFrame) -> pd.Series:
    """The combo's label, with the run id where several runs share it."""
    shared = frame["combo_label"].duplicated(keep=False)
    return frame["combo_label"].mask(shared, frame["combo_label"] + " (" + frame["run_id"] + ")")


def _carries(earlier: dict[str, object], rung: dict[str, object]) -> bool:
    return earlier["workload_key"] == rung["workload_key"] and earlier["sweep_position"] != rung["sweep_position"]


def _step(rung: dict[str, object], earlier: list[dict[str, object]]) -> str:
    if rung["sweep_role"] == "baseline_repeat":
        return "baseline again"
    if rung["sweep_role"] == "baseline" or not earlier:
        return "baseline"
    if rung["sweep_name"] in AGAINST_BASELINE:
        return str(rung["combo_label"])
    if rung["sweep_name"] in AGAINST_STACK:
        return _of_stack(rung, earlier)
    fewest = min((_changes(before, rung) for before in reversed(earlier)), key=lambda c: (len(c), "- " in str(c)))
    return " ".join(fewest) or f"{rung['combo_label']} again"


def _of_stack(rung: dict[str, object], earlier: list[dict[str, object]]) -> str:
    """E.g. 'stack - channels_last'; the whole label where the stack itself is not among the runs."""
    if rung["sweep_position"] == STACK_POSITION:
        return "stack"
    stack = next((one for one in earlier if one["sweep_position"] == STACK_POSITION), None)
    return str(rung["combo_label"]) if stack is None else " ".join(["stack", *_changes(stack, rung)])


def _changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Leaving a choice for the baseline's takes it away; anything else adds the new one."""
    return [
        f"- {name_choice(family, str(before[family]))}"
        if after[family] == getattr(BASELINE, family)
        else f"+ {name_choice(family, str(after[family]))}"
        for family in FAMILIES
        if before[family] != after[family]
    ]
