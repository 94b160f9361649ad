"""Fits: the largest batch that fits, from a line through two measured peaks, and what runs say of it.

A step's peak is the highest of several instants (end of forward, optimizer), each of which grows with the batch by its
own line; the line through the two largest measured batches is the one that goes on. It knows nothing of workspace that
a library takes by leaps: so each measured batch is also predicted from the two below it, and the error is shown.

What was measured stands above the line: what is told is never below a batch that fitted, nor at or above a larger one
that did not. A prediction that a larger batch has met or passed is history, and is told as that.
"""

import math

import pandas as pd

from store.ratios import Row

_TYPES = {
    **dict.fromkeys(("anchor_run_id", "run_id", "combo_label"), "str"),
    **{"batch": "Int64", "status": "str", "cause": "str"},
    **dict.fromkeys(("peak_gib", "predicted_gib", "error"), "float64"),
    **dict.fromkeys(("per_sample_gib", "fixed_gib", "capacity_gib"), "float64"),
    **{"basis": "str", "line_batch": "Int64", "largest_batch": "Int64", "verdict": "str", "refutes": "bool"},
    **{"earlier_basis": "str", "earlier_batch": "Int64"},
}


def largest_batch(siblings: pd.DataFrame) -> pd.DataFrame:
    """The rows of same_but_batch.sql with predictions; unknown is null. Of a line over one batch nothing is known.

    line_batch is where the line of basis meets the device's memory; largest_batch is that within what was measured:
    no batch that fits is above it, and it is below every larger one that does not. refutes marks those that do not,
    though line_batch says so. verdict is unknown; measured (it fits, and the next one up does not); refuted (a batch
    beyond those that fit does not, where the line goes on: largest_batch is an upper bound); else unchecked.
    earlier_batch is what the two batches of earlier_basis predicted before the next measured one was found to fit
    there or beyond; mostly null.
    """
    series = siblings.to_dict("records")
    anchors = dict.fromkeys(row["anchor_run_id"] for row in series)
    rows = [row for anchor in anchors for row in _fitted([one for one in series if one["anchor_run_id"] == anchor])]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def to_try(rows: pd.DataFrame) -> list[int]:
    """The batches to run next: the predicted one and the next one up, those that nobody has run; where the line is
    refuted, the middle between what fits and what does not. rows: one series of largest_batch.
    """
    largest, verdict = rows["largest_batch"].iloc[0], rows["verdict"].iloc[0]
    if verdict in ("unknown", "measured"):
        return []
    if verdict == "refuted":
        fits = int(rows.loc[rows["peak_gib"].notna(), "batch"].max())
        return [(fits + int(largest) + 1) // 2]
    return [batch for batch in (int(largest), int(largest) + 1) if batch > 0 and batch not in set(rows["batch"])]


def to_measure(rows: pd.DataFrame) -> int | None:
    """Of one measured batch, which does for no line, the one to measure beside it: the double, or where nothing that
    large fits, the half; else null. rows: one series of largest_batch.
    """
    measured, gone = rows.loc[rows["peak_gib"].notna(), "batch"], rows.loc[rows["peak_gib"].isna(), "batch"]
    if len(measured) != 1:
        return None
    double, half = 2 * int(measured.iloc[0]), int(measured.iloc[0]) // 2
    return double if gone.empty or double < gone.min() else half or None


def why_unknown(rows: pd.DataFrame) -> str:
    """Why no largest batch is predicted, in words; empty where one is. rows: one series of largest_batch."""
    first, num_measured = rows.iloc[0], int(rows["peak_gib"].notna().sum())
    if pd.notna(first["largest_batch"]):
        return ""
    if num_measured < 2:
        return f"it takes two measured batches of one combo to predict others, and here is {num_measured or 'none'}"
    if first["per_sample_gib"] <= 0:
        return f"the peaks of batches {first['basis']} do not grow"
    return "how much memory the device has for it is not known (of a CPU it never is)"


def _fitted(rows: list[Row]) -> list[Row]:
    """One series, its batches ascending."""
    measured = [row for row in rows if _fits(row)]
    gone = [row for row in rows if not _fits(row)]
    capacity, basis = _capacity(measured), measured[-2:]
    line = _line(basis)
    at_line = _meets(line, capacity)
    fit: Row = {"per_sample_gib": line[0], "fixed_gib": line[1], "basis": _batches(basis)} if line else {}
    fit |= {"capacity_gib": capacity, "line_batch": at_line} | _bounded(measured, gone, at_line)
    fit |= _earlier(measured, capacity)
    refuting = [row for row in gone if at_line is not None and row["batch"] <= at_line]
    return [row | fit | {"refutes": row in refuting} | _predicted(row, measured) for row in rows]


def _bounded(measured: list[Row], gone: list[Row], at_line: int | None) -> Row:
    """The line's batch within what was measured, and what runs say of it."""
    fitting = measured[-1]["batch"] if measured else 0
    beyond = min((row["batch"] for row in gone if row["batch"] > fitting), default=math.inf)
    if measured and beyond == fitting + 1:
        return {"largest_batch": fitting, "verdict": "measured"}
    if at_line is None:
        return {"largest_batch": None, "verdict": "unknown"}
    verdict = "refuted" if at_line >= beyond else "unchecked"
    return {"largest_batch": int(max(fitting, min(at_line, beyond - 1))), "verdict": verdict}


def _earlier(measured: list[Row], capacity: float | None) -> Row:
    """What was predicted before one of the two largest batches, where that was found to fit there or beyond."""
    for two, then in ((measured[-3:-1], measured[-1:]), (measured[-4:-2], measured[-2:-1])):
        predicted = _meets(_line(two), capacity)
        if predicted is not None and then[0]["batch"] >= predicted:
            return {"earlier_basis": _batches(two), "earlier_batch": predicted}
    return {}


def _batches(two: list[Row]) -> str:
    return " and ".join(str(row["batch"]) for row in two)


def _predicted(row: Row, measured: list[Row]) -> Row:
    """The peak as the two measured batches below it have it, over what it was."""
    line = _line([one for one in measured if one["batch"] < row["batch"]][-2:])
    if line is None:
        return {}
    predicted = line[0] * row["batch"] + line[1]
    known = pd.notna(row["peak_gib"])
    return {"predicted_gib": predicted, "error": predicted / row["peak_gib"] - 1 if known else None}


def _line(two: list[Row]) -> tuple[float, float] | None:
    """GiB per sample and GiB at no sample at all."""
    if len(two) < 2:
        return None
    one, other = two
    slope = (other["peak_gib"] - one["peak_gib"]) / (other["batch"] - one["batch"])
    return slope, one["peak_gib"] - slope * one["batch"]


def _capacity(measured: list[Row]) -> float | None:
    """The device's memory less what lies outside of the allocator (CUDA's context, libraries); null on a CPU."""
    known = [row for row in measured if pd.notna(row["device_gib"]) and pd.notna(row["overhead_gib"])]
    return min((row["device_gib"] - max(0.0, row["overhead_gib"]) for row in known), default=None)


def _meets(line: tuple[float, float] | None, capacity: float | None) -> int | None:
    if line is None or capacity is None or line[0] <= 0:
        return None
    return max(0, math.floor((capacity - line[1]) / line[0]))


def _fits(row: Row) -> bool:
    return bool(pd.notna(row["peak_gib"]))
