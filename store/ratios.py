"""Ratios between runs with what is known of their spread: stats applied to frames."""

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

import pandas as pd

from profiler.record import Metrics
from store import stats

Samples = Mapping[tuple[str, str], stats.Floats]  # (run_id, metric) -> every sample
Row = dict[str, Any]

# What a metric is already divided by: shares of different ceilings (fp32's against bf16's), and errors over plain
# eager's at different precisions, are neither better nor worse than one another.
CEILINGS = {"mfu": "datasheet_tflops", "ceiling_share": "ceiling_tflops"}
EAGER_ERRORS = {"output_error_ratio": "output_error_eager", "gradient_error_ratio": "gradient_error_eager"}
DIVISORS = CEILINGS | EAGER_ERRORS
WHY_NOT_JUDGED = {
    **dict.fromkeys(CEILINGS, "these are shares of different ceilings"),
    **dict.fromkeys(EAGER_ERRORS, "each error is over plain eager's at its own precision"),
}
SAME_CEILING = 1.1  # a measured ceiling is never twice the same
TIMED_UNITS = ("ms", "s", "1/s", "1/(s GiB)", "TFLOP/s")

# What a ladder's row says of its own change -> the same of a pair: the row against what its label builds on.
CHANGES = {
    "builds_on": "baseline_run_id",
    "change_speedup": "speedup",
    "change_speedup_low": "speedup_low",
    "change_speedup_high": "speedup_high",
    "change_verdict": "verdict",
    "change_memory_ratio": "memory_ratio",
}
_VERDICT_TYPES = {"speedup_low": "float64", "speedup_high": "float64", "verdict": "str"}
_RATIO_TYPES = {
    **dict.fromkeys(("run_id", "label", "metric", "unit", "better"), "str"),
    **dict.fromkeys(("value", "baseline_value", "ratio", "ratio_low", "ratio_high"), "float64"),
    **dict.fromkeys(("divisor", "baseline_divisor"), "float64"),
    "why_not_judged": "str",
    "is_timed": "bool",
}


def with_verdicts(pairs: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Add speedup_low, speedup_high and verdict to the pairs of paired.sql, behind speedup.

    A run that is wrong or ineffective keeps its numbers, but they prove nothing: its verdict is 'unknown'.
    """
    judged = [_judged(pair, samples) for pair in pairs.to_dict("records")]
    place = list(pairs.columns).index("speedup") + 1
    for offset, (name, kind) in enumerate(_VERDICT_TYPES.items()):
        pairs.insert(place + offset, name, pd.Series([row[offset] for row in judged], dtype=kind))
    return pairs


def with_changes(ladder: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The ladder with what each row's own change did, behind its verdict against the baseline.

    pairs: the same runs, each against the run that its label builds on, with verdicts.
    """
    place = list(ladder.columns).index("verdict") + 1
    for offset, (name, of_pair) in enumerate(CHANGES.items()):
        ladder.insert(place + offset, name, pairs[of_pair])
    return ladder


def metric_ratios(pairs: pd.DataFrame, runs: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """One row per pair of paired.sql and metric that either run knows; runs has a label and every scalar of all.

    A metric that is itself a ratio has both runs' divisors: a share its ceiling (TFLOP/s), an error ratio plain
    eager's error. Where ceilings or precisions differ, better is '' and why_not_judged says so. is_timed: a time or a
    rate, which the drift of step times moves, too.
    """
    by_id = {row["run_id"]: row for row in runs.astype(object).where(runs.notna(), None).to_dict("records")}
    rows = [
        _ratio(by_id[pair["run_id"]], by_id[pair["baseline_run_id"]], metric.name, samples, _may_divide(pair))
        | _divisors(by_id[pair["run_id"]], by_id[pair["baseline_run_id"]], metric.name, metric.metadata["better"])
        | {"metric": metric.name, "unit": metric.metadata["unit"], "is_timed": _is_timed(metric)}
        for pair in pairs.to_dict("records")
        for metric in fields(Metrics)
    ]
    known = [row for row in rows if row["value"] is not None or row["baseline_value"] is not None]
    return pd.DataFrame(known, columns=list(_RATIO_TYPES)).astype(_RATIO_TYPES)


def _judged(pair: Row, samples: Samples) -> tuple[float | None, float | None, stats.Verdict]:
    interval = _interval(samples, pair["baseline_run_id"], pair["run_id"], "step_ms") if _may_divide(pair) else None
    if interval is None:
        return None, None, "unknown"
    if pair["status"] != "done":
        return interval.low, interval.high, "unknown"
    drift = 0.0 if pd.isna(pair["drift"]) else pair["drift"]
    return interval.low, interval.high, stats.verdict(pair["speedup"], interval, drift)


def _ratio(run: Row, baseline: Row, metric: str, samples: Samples, may_divide: bool) -> Row:
    value, baseline_value = run[metric], baseline[metric]
    row = {"run_id": run["run_id"], "label": run["label"], "value": value, "baseline_value": baseline_value}
    if not may_divide or value is None or not baseline_value:
        return row
    interval = _interval(samples, run["run_id"], baseline["run_id"], metric)
    bounds = {"ratio_low": interval.low, "ratio_high": interval.high} if interval else {}
    return row | {"ratio": value / baseline_value} | bounds


def _divisors(run: Row, baseline: Row, metric: str, better: str) -> Row:
    """Which way is better, and what the metric is already divided by."""
    if metric not in DIVISORS:
        return {"better": better}
    one, other = run[DIVISORS[metric]], baseline[DIVISORS[metric]]
    if metric in CEILINGS:
        is_same = bool(one and other) and max(one, other) <= SAME_CEILING * min(one, other)
    else:
        is_same = run["precision"] == baseline["precision"]
    row = {"divisor": one, "baseline_divisor": other, "better": better}
    return row if is_same else row | {"better": "", "why_not_judged": WHY_NOT_JUDGED[metric]}


def _is_timed(metric: Field[Any]) -> bool:
    """Whether it is a time or a rate."""
    return metric.metadata["unit"] in TIMED_UNITS or metric.name in CEILINGS


def _interval(samples: Samples, above: str, below: str, metric: str) -> stats.Interval | None:
    if (above, metric) not in samples or (below, metric) not in samples:
        return None
    return stats.ratio_interval(samples[above, metric], samples[below, metric])


def _may_divide(pair: Row) -> bool:
    return bool(pd.isna(pair["why_not_comparable"]))
