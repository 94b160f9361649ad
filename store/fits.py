"""Fits: the largest batch that fits, from a line through two measured peaks, and whether that is so.

A step's peak is the highest of several instants (end of forward, optimizer), each of which grows with the batch by its
own line; the line through the two largest measured batches is the one that goes on. It knows nothing of workspace that
a library takes by leaps: so each measured batch is also predicted from the two below it, and the error is shown.

Where the largest measured batch is at or above what the two below it predict, it is their check and not part of a line
of its own, as are the predicted batch and the next one up where both fit: otherwise every prediction would move to
agree with what refutes it.
"""

import math

import pandas as pd

from store.ratios import Row

_TYPES = {
    **dict.fromkeys(("anchor_run_id", "run_id", "combo_label"), "str"),
    **{"batch": "Int64", "status": "str", "cause": "str"},
    **dict.fromkeys(("peak_gib", "predicted_gib", "error"), "float64"),
    **dict.fromkeys(("per_sample_gib", "fixed_gib", "capacity_gib"), "float64"),
    **{"basis": "str", "largest_batch": "Int64", "verdict": "str", "refutes": "bool"},
}


def largest_batch(siblings: pd.DataFrame) -> pd.DataFrame:
    """The rows of same_but_batch.sql with predictions; unknown is null. Of a line over one batch nothing is known.

    refutes marks what contradicts largest_batch: a batch above it that fits, or one at or below it that does not.
    verdict is unknown; refuted; borne out (it fits, and the next one up does not); else unchecked.
    """
    series = siblings.to_dict("records")
    anchors = dict.fromkeys(row["anchor_run_id"] for row in series)
    rows = [row for anchor in anchors for row in _fitted([one for one in series if one["anchor_run_id"] == anchor])]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def to_try(rows: pd.DataFrame) -> list[int]:
    """Of the predicted batch and the next one up, those that nobody has run yet. rows: one series of largest_batch."""
    largest = rows["largest_batch"].iloc[0]
    if pd.isna(largest) or rows["verdict"].iloc[0] == "refuted":
        return []
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
    if num_measured < 2:
        return f"it takes two measured batches of one combo to predict others, and here is {num_measured or 'none'}"
    if first["per_sample_gib"] <= 0:
        return f"the peaks of batches {first['basis']} do not grow"
    if pd.isna(first["capacity_gib"]):
        return "how much memory the device has for it is not known (of a CPU it never is)"
    return ""


def _fitted(rows: list[Row]) -> list[Row]:
    """One series, its batches ascending."""
    measured = [row for row in rows if pd.notna(row["peak_gib"])]
    capacity = _capacity(measured)
    basis = _basis(measured, capacity)
    line = _line(basis)
    fit: Row = {"per_sample_gib": line[0], "fixed_gib": line[1]} if line else {}
    fit |= {"basis": " and ".join(str(row["batch"]) for row in basis) if line else None}
    largest = _largest(line, capacity)
    refuting = [row for row in rows if largest is not None and _fits(row) != (row["batch"] <= largest)]
    fit |= {"capacity_gib": capacity, "largest_batch": largest, "verdict": _verdict(rows, largest, refuting)}
    return [row | fit | {"refutes": row in refuting} | _predicted(row, measured) for row in rows]


def _basis(measured: list[Row], capacity: float | None) -> list[Row]:
    """The two batches that predict: the largest two, but for the largest ones that check the two below them."""
    for two, beyond in ((measured[-4:-2], measured[-2:]), (measured[-3:-1], measured[-1:])):
        below = _largest(_line(two), capacity)
        checks = [row["batch"] for row in beyond]
        if below is not None and (checks == [below, below + 1] or (len(checks) == 1 and checks[0] >= below)):
            return two
    return measured[-2:]


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


def _largest(line: tuple[float, float] | None, capacity: float | None) -> int | None:
    if line is None or capacity is None or line[0] <= 0:
        return None
    return max(0, math.floor((capacity - line[1]) / line[0]))


def _fits(row: Row) -> bool:
    return bool(pd.notna(row["peak_gib"]))


def _verdict(rows: list[Row], largest: int | None, refuting: list[Row]) -> str:
    if largest is None:
        return "unknown"
    if refuting:
        return "refuted"
    return "borne out" if {row["batch"] for row in rows} >= {largest, largest + 1} - {0} else "unchecked"
