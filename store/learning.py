"""Learning: whose loss leaves that of the other runs of its study in the first steps of training.

All runs of one workload start from the same weights and see the same batches in the same order, so their losses are
equal but for rounding until something learns otherwise. The others are those that keep their weights in fp32, do not
quantize and keep the optimizer's state in 32 bits; how far these lie apart is the noise that accuses nobody.
"""

from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd

Row = dict[str, Any]
Curve = Mapping[int, float]  # loss by step

FLOOR = 0.005  # relative distance from the others below which nobody leaves them
FLOOR_OF_FEW = 0.02  # the same where fewer than PEERS others are there, whose spread says little
NOISE = 4  # times the farthest that one of the others lies from their median
FEW = 6  # steps: each of the three batches twice; fewer are no trend
LEAVES = 3  # steps beyond; one or two are an outlier
BATCHES = 3  # that the steps take in turn
PEERS = 3  # others that show a spread, and make a middle where the baseline's curve has ended

TYPES = {
    **{"run_id": "str", "combo_label": "str", "num_peers": "int64", "num_steps": "int64", "num_beyond": "int64"},
    **{"floor": "float64", "step": "int64", "loss": "float64", "peers_loss": "float64", "end_change": "float64"},
}


def departures(runs: pd.DataFrame, curves: Mapping[str, Curve]) -> pd.DataFrame:
    """One row per run of one study and workload whose loss leaves the others': more than floor (relative) and than
    NOISE times their own spread away at LEAVES steps or more, of at least FEW that can be compared.

    runs: store/sql/same_training.sql; curves: run_id to its loss by step. step is where it was farthest away,
    end_change how far the last three steps (every batch once) are from the others' in the mean; infinite where the
    loss is no number. Baselines are not judged: the others hold them.
    """
    rows = [row for run in runs.to_dict("records") if (row := _departure(run, runs, curves)) is not None]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def _departure(run: Row, runs: pd.DataFrame, curves: Mapping[str, Curve]) -> Row | None:
    own = curves.get(run["run_id"], {})
    if run["role"] != "candidate" or len(own) < FEW:
        return None
    others = runs[(runs["run_id"] != run["run_id"]) & runs["keeps_fp32"]]
    peers = {one.run_id: curves[one.run_id] for one in others.itertuples() if one.run_id in curves}
    baselines = set(others.loc[others["role"] != "candidate", "run_id"])
    middles: dict[int, float] = {}
    beyond: dict[int, float] = {}  # how far, by step
    floor = FLOOR_OF_FEW if len(peers) < PEERS else FLOOR
    for step in sorted(own):
        at = {run_id: curve[step] for run_id, curve in peers.items() if np.isfinite(curve.get(step, np.nan))}
        if len(at) < PEERS and not baselines & at.keys():
            continue
        middle = middles[step] = median(at.values())
        spread = max(abs(loss / middle - 1) for loss in at.values())
        away = abs(own[step] / middle - 1) if np.isfinite(own[step]) else np.inf
        if away > max(floor, NOISE * spread):
            beyond[step] = away
    if len(middles) < FEW or len(beyond) < LEAVES:
        return None
    farthest, last = max(beyond, key=beyond.__getitem__), list(middles)[-BATCHES:]
    change = fmean(own[step] for step in last) / fmean(middles[step] for step in last) - 1
    return run | {
        **{"num_peers": len(peers), "num_steps": len(middles), "num_beyond": len(beyond), "step": farthest},
        **{"floor": floor, "loss": own[farthest], "peers_loss": middles[farthest]},
        "end_change": change if np.isfinite(change) else np.inf,
    }
