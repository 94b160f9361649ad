"""What a study asks of its runs: pairs, contributions, scaling and coverage, from the ladder's rows and all scalars.

Most functions take `ladder` (store.frames.ladder's rows) and `runs` (every scalar of the same runs, in the same order).
"""

from collections import Counter
from itertools import combinations
from typing import Any

import pandas as pd

from profiler.combo import BASELINE, FAMILIES, choices, name_choice
from profiler.workload import ZOO
from store import stats
from store.ratios import Row, Samples

Choice = tuple[str, str]  # family, choice

AXES = {"scaling_batch": "batch", "scaling_resolution": "resolution", "scaling_model": "model"}
# From 1. Two processes of one baseline differ by 0.04 to 0.6% in most recorded studies, and a pair rests on four.
EVEN = 0.01
# The outcome of a pair of choices is the best that a run which holds both came to.
BEST_FIRST = ("done", "wrong", "ineffective", "oom", "timeout", "failed", "rejected", "cancelled", "imported")

_INTERACTION_TYPES = {
    **dict.fromkeys(("first", "second"), "str"),
    **dict.fromkeys(("speedup_first", "speedup_second", "speedup_both"), "float64"),
    **dict.fromkeys(("interaction", "interaction_low", "interaction_high"), "float64"),
    **dict.fromkeys(("verdict", "why_unknown", "run_id", "why_doubtful"), "str"),
}
_CONTRIBUTION_TYPES = {
    **dict.fromkeys(("run_id", "question", "family", "choice", "label"), "str"),
    **dict.fromkeys(("gain", "gain_low", "gain_high"), "float64"),
    **{"verdict": "str", "memory_gain": "float64", "step_ms": "float64", "drift": "float64"},
    **dict.fromkeys(("status", "cause"), "str"),
}
_SCALING_TYPES = {
    **dict.fromkeys(("run_id", "series", "combo_label", "axis"), "str"),
    **{"x": "float64", "x_label": "str"},
    **dict.fromkeys(("samples_per_s", "samples_low", "samples_high", "peak_allocated_gib"), "float64"),
    **dict.fromkeys(("speedup", "speedup_low", "speedup_high"), "float64"),
    **dict.fromkeys(("verdict", "status", "cause"), "str"),
    **{"step_ms": "float64", "step_iqr_ms": "float64", "launch_verdict": "str"},
}
_COVERING_TYPES = {
    **dict.fromkeys(("family", "choice", "other_family", "other_choice"), "str"),
    **{"num_runs": "int64", "outcome": "str", "run_id": "str", "cause": "str"},
}


def interactions(ladder: pd.DataFrame, runs: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """One row per two choices that ran together and each alone: speedup(both) / (speedup(one) x speedup(other)).

    Less than EVEN from 1 is independent, however narrow its interval. why_doubtful names the runs, of the four behind a
    pair, whose steps the CPU's launches set in whole or in part.
    """
    held = _held(ladder, runs)
    alone = {only[0]: row for only, row in held if len(only) == 1}
    by_id = {row["run_id"]: row for _, row in held}
    rows = [
        _interaction(both, row, [alone[one] for one in both], samples)
        | {"why_doubtful": _launches([by_id.get(row["baseline_run_id"], {}), *(alone[one] for one in both), row])}
        for both, row in held
        if len(both) == 2 and all(one in alone for one in both)
    ]
    return _frame(rows, _INTERACTION_TYPES)


def _interaction(both: list[Choice], together: Row, alone: list[Row], samples: Samples) -> Row:
    one, other = alone
    row: Row = {"first": name_choice(*both[0]), "second": name_choice(*both[1]), "run_id": together["run_id"]}
    row |= {"speedup_first": one["speedup"], "speedup_second": other["speedup"], "speedup_both": together["speedup"]}
    if missing := [run for run in (one, other, together) if run["status"] != "done" or pd.isna(run["speedup"])]:
        run = missing[0]
        why = run["cause"] or run["why_not_comparable"] or ""
        return row | {
            "verdict": "unknown",
            "why_unknown": f"{run['combo_label']} is {run['status']}: {why}".rstrip(": "),
        }
    interval = _interval(
        [together["baseline_run_id"], one["run_id"], other["run_id"]],
        [together["run_id"], one["baseline_run_id"], other["baseline_run_id"]],
        samples,
    )
    row["interaction"] = value = together["speedup"] / (one["speedup"] * other["speedup"])
    if interval is None:
        return row | {"verdict": "unknown", "why_unknown": "too few steps were timed for an interval"}
    row |= {"interaction_low": interval.low, "interaction_high": interval.high}
    words = {"faster": "help", "slower": "overlap", "same": "independent"}
    floor = max(EVEN, _number(together["drift"]))
    return row | {"verdict": words[stats.verdict(value, interval, floor)], "why_unknown": ""}


def _launches(rows: list[Row]) -> str:
    """Which of the runs wait for launches, '; ' between: 'sdpa · bf16 (partly launch-bound, the GPU waits 10%)'."""
    bound = [row for row in rows if row.get("launch_verdict") in ("launch-bound", "partly launch-bound")]
    return "; ".join(
        f"{row['combo_label']} ({row['launch_verdict']}, the GPU waits {1 - row['gpu_busy_share']:.0%})"
        for row in bound
    )


def _interval(above: list[str], below: list[str], samples: Samples) -> stats.Interval | None:
    """Of a product of step times, after what stands on both sides has left both."""
    left, right = Counter(above) - Counter(below), Counter(below) - Counter(above)
    if any((run_id, "step_ms") not in samples for run_id in (*left, *right)):
        return None
    sides = ([samples[run_id, "step_ms"] for run_id in side.elements()] for side in (left, right))
    return stats.product_interval(*sides)


def alone(ladder: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per choice that ran alone: the baseline's step and peak over the run's."""
    rows = []
    for held, row in _held(ladder, runs):
        if len(held) == 1 and row["sweep_role"] == "candidate":
            gain = {"gain": row["speedup"], "gain_low": row["speedup_low"], "gain_high": row["speedup_high"]}
            gain |= {
                "memory_gain": _inverse(row["memory_ratio"]),
                "verdict": _gains(row["verdict"], "faster", "slower"),
            }
            rows.append(_contribution("alone", held[0], row) | gain)
    return _frame(rows, _CONTRIBUTION_TYPES)


def without(ladder: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per choice of the stack: step and peak of the stack without it over the whole stack's."""
    held = _held(ladder, runs)
    choices_of = {row["run_id"]: chosen for chosen, row in held}
    rows = []
    for chosen, row in held:
        left_out = [choice for choice in choices_of.get(row["builds_on"], []) if choice not in chosen]
        if len(left_out) == 1:
            gain = {"gain": _inverse(row["change_speedup"]), "memory_gain": row["change_memory_ratio"]}
            low, high = _inverse(row["change_speedup_high"]), _inverse(row["change_speedup_low"])
            gain |= {"gain_low": low, "gain_high": high}
            gain |= {"verdict": _gains(row["change_verdict"], "slower", "faster")}
            rows.append(_contribution("without", left_out[0], row) | gain)
    return _frame(rows, _CONTRIBUTION_TYPES)


def _contribution(question: str, choice: Choice, row: Row) -> Row:
    kept = {name: row[name] for name in ("run_id", "step_ms", "drift", "status", "cause")}
    return kept | {"question": question, "family": choice[0], "choice": choice[1], "label": name_choice(*choice)}


def _gains(verdict: str, gains: str, costs: str) -> str:
    return {gains: "gains", costs: "costs", "same": "none"}.get(verdict, "unknown")


def scaling(ladder: pd.DataFrame, runs: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """One row per size and series (baseline, stack), the smallest size first; x is null for a model of unknown size."""
    rows = [
        _scaled(row, run, samples)
        for row, run in zip(ladder.to_dict("records"), runs.to_dict("records"), strict=True)
        if run["sweep_name"] in AXES and row["sweep_role"] != "baseline_repeat"
    ]
    frame = _frame(rows, _SCALING_TYPES)
    # A resumed sweep measures its baseline again: the one that was done counts.
    frame = frame.sort_values("status", key=lambda status: status != "done", kind="stable")
    return frame.drop_duplicates(["series", "x_label"]).sort_values(["x", "series"]).reset_index(drop=True)


def _scaled(row: Row, run: Row, samples: Samples) -> Row:
    axis = AXES[run["sweep_name"]]
    size = run[axis] if axis != "model" else ZOO[run["model"]].million_parameters if run["model"] in ZOO else None
    label = {"batch": f"batch {run['batch']}", "resolution": f"{run['resolution']} px"}.get(axis, run["model_label"])
    kept = {name: row.get(name) for name in _SCALING_TYPES if name in row}
    steps = samples.get((row["run_id"], "step_ms"))
    interval = stats.product_interval([], [steps]) if steps is not None else None
    if interval is not None:  # of one over the median step, in 1 / ms
        per_s = 1000 * run["batch"]
        kept |= {"samples_low": per_s * interval.low, "samples_high": per_s * interval.high}
    series = "baseline" if row["sweep_role"] == "baseline" else "stack"
    return kept | {"series": series, "axis": axis, "x": size, "x_label": label}


def covering(ladder: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per two choices of different families that occur in the study: how the runs that hold both ended."""
    held = [(list(_choices(row, all_of_them=True)), row) for row in runs.to_dict("records")]
    seen = {choice for chosen, _ in held for choice in chosen}
    items = [(family, choice) for family in FAMILIES for choice in choices(family) if (family, choice) in seen]
    varied = {family for family, count in Counter(family for family, _ in items).items() if count > 1}
    rows = [
        _covered(one, other, [row for chosen, row in held if one in chosen and other in chosen])
        for one, other in combinations([item for item in items if item[0] in varied], 2)
        if one[0] != other[0]
    ]
    return _frame(rows, _COVERING_TYPES)


def _covered(one: Choice, other: Choice, rows: list[Row]) -> Row:
    pair = {"family": one[0], "choice": one[1], "other_family": other[0], "other_choice": other[1]}
    if not rows:
        return pair | {"num_runs": 0, "outcome": "in no run", "run_id": "", "cause": ""}
    best = min(rows, key=lambda row: BEST_FIRST.index(row["status"]))
    kept = {"outcome": best["status"], "run_id": best["run_id"], "cause": best["cause"] or ""}
    return pair | {"num_runs": len(rows)} | kept


def _held(ladder: pd.DataFrame, runs: pd.DataFrame) -> list[tuple[list[Choice], Row]]:
    """What each run changed of the baseline, with its row of the ladder."""
    rows = zip(runs.to_dict("records"), ladder.to_dict("records"), strict=True)
    return [(_choices(run), row) for run, row in rows]


def _choices(run: Row, *, all_of_them: bool = False) -> list[Choice]:
    """The run's choices: those that differ from the baseline, or all. One of an older version lacks newer families."""
    chosen = [(family, str(run[family])) for family in FAMILIES if run.get(family) and pd.notna(run[family])]
    return [one for one in chosen if all_of_them or one[1] != getattr(BASELINE, one[0])]


def _inverse(value: Any) -> float | None:
    return None if value is None or pd.isna(value) or value == 0 else 1 / float(value)


def _number(value: Any) -> float:
    return 0.0 if value is None or pd.isna(value) else float(value)


def _frame(rows: list[Row], types: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(types)).astype(types)
