"""Learning: whose loss leaves that of the other runs of its study in the first steps of training.

Runs that start from the same weights and see the same batches in the same order have equal losses but for rounding,
until something learns otherwise. The others are those that keep their weights in fp32, do not quantize and keep the
optimizer's state in 32 bits; how far these lie apart is the noise that accuses nobody. Later the few batches are known
by heart: the losses are next to nothing, and rounding alone drives them apart.
"""

from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

import pandas as pd

from profiler.record import TREND_STEPS

Row = dict[str, Any]
Curve = Mapping[int, float]  # loss by step, from 1

FIRST = 12  # steps that are looked at: each of the three batches four times
FLOOR = 0.005  # relative distance from the others below which nobody leaves them
FLOOR_OF_FEW = 0.02  # the same where fewer than PEERS others are there at some step, whose spread says little
NOISE = 4  # times the farthest that one of the others has been from their median
LEAVES = 3  # steps beyond; one or two are an outlier
BATCHES = 3  # that the steps take in turn
PEERS = 3  # others that show a spread, and make a middle where the baseline's curve has ended

TYPES = {
    **{"run_id": "str", "combo_label": "str", "num_peers": "int64", "num_steps": "int64", "num_beyond": "int64"},
    **{"floor": "float64", "step": "int64", "loss": "float64", "peers_loss": "float64", "end_change": "float64"},
}


def departures(runs: pd.DataFrame, curves: Mapping[str, Curve]) -> pd.DataFrame:
    """One row per run whose loss leaves the others': at LEAVES steps or more of the FIRST it is farther from their
    median than floor (relative), and than NOISE times their own spread up to there; TREND_STEPS must be comparable.

    runs: one study of store/sql/same_training.sql; curves: run_id to its finite losses by step. step is where it was
    farthest away, end_change how far the last three of the steps (every batch once) are from the others' in the mean.
    Baselines are not judged: the others hold them.
    """
    rows = [row for run in runs.to_dict("records") if (row := _departure(run, runs, curves)) is not None]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def _departure(run: Row, runs: pd.DataFrame, curves: Mapping[str, Curve]) -> Row | None:
    if run["role"] != "candidate":
        return None
    own, others = curves[run["run_id"]], runs[(runs["run_id"] != run["run_id"]) & runs["keeps_fp32"]]
    peers = {run_id: curves[run_id] for run_id in others["run_id"] if curves[run_id]}
    baselines = set(others.loc[others["role"] != "candidate", "run_id"])
    floor, spread = FLOOR, 0.0
    middles, away, noise = dict[int, float](), dict[int, float](), dict[int, float]()  # by step
    for step in sorted(own.keys() & set(range(1, FIRST + 1))):
        at = {run_id: curve[step] for run_id, curve in peers.items() if step in curve}
        if len(at) < PEERS:
            if not baselines & at.keys():
                continue
            floor = FLOOR_OF_FEW
        middle = middles[step] = median(at.values())
        spread = max(spread, *(abs(loss / middle - 1) for loss in at.values()))
        away[step], noise[step] = abs(own[step] / middle - 1), NOISE * spread
    beyond = [step for step in middles if away[step] > max(floor, noise[step])]
    if len(middles) < TREND_STEPS or len(beyond) < LEAVES:
        return None
    farthest, last = max(beyond, key=away.__getitem__), list(middles)[-BATCHES:]
    return run | {
        **{"num_peers": len(peers), "num_steps": len(middles), "num_beyond": len(beyond), "step": farthest},
        **{"floor": floor, "loss": own[farthest], "peers_loss": middles[farthest]},
        "end_change": fmean(own[step] for step in last) / fmean(middles[step] for step in last) - 1,
    }
