"""Views: what a run folder keeps of a trace's analyses, so that pages show them without reading the trace again.

    views/summary.json      steps, device and its ceilings, health card, launches, overlap, and which tables were cut
    views/steps.parquet     each step's parts (breakdown.py)
    views/ledger.parquet    the step of median length, by class, phase and module (ledger.py)
    views/*.parquet         kernel kinds, operators, roofline, critical path, attention, collectives, forwards

Some tens of kilobytes per run; everything else can be made again from the trace.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.breakdown import breakdown
from profiler.traces.ceilings import ceilings
from profiler.traces.communication import collectives, overlap
from profiler.traces.critical import critical_path
from profiler.traces.health import health
from profiler.traces.launches import launch_statistics
from profiler.traces.ledger import knows_modules, ledger, median_step, pieces_of, walls
from profiler.traces.operators import kernel_summary, operator_table
from profiler.traces.roofline import roofline
from profiler.traces.tables import write_table
from profiler.traces.unet import attention_by_resolution, denoising_steps

FOLDER = "views"
VERSION = 1
MOST_ROWS = 500  # of a table of kinds; what is left out is counted in the summary
MOST_STEPS = 200


def write_views(found: Attribution, folder: Path) -> None:
    """Write folder/views. A trace without any step leaves none: there is nothing to show of it."""
    wall_ns = walls(found)
    if not len(wall_ns):
        return
    step = median_step(wall_ns)
    (folder / FOLDER).mkdir(exist_ok=True)
    cut: dict[str, dict[str, int]] = {}
    for name, table in _tables(found, step).items():
        if table.num_rows > MOST_ROWS and name in _TIME:
            time = _TIME[name] if found.on_gpu else "host_self_ns" if name == "operators" else _TIME[name]
            cut[name] = {"num_rows": table.num_rows, "left_out_ns": _sum(table, time, MOST_ROWS)}
            table = table.slice(0, MOST_ROWS)
        write_table(table, folder / FOLDER / f"{name}.parquet")
    summary = json.dumps(_summary(found, step) | {"cut": cut}, indent=1)
    (folder / FOLDER / "summary.json").write_text(summary + "\n", encoding="utf-8")


# Tables that can be long, the costliest rows first, and the column that says so.
_TIME = {"kernel_kinds": "total_ns", "operators": "device_self_ns", "roofline": "device_ns"}


def _tables(found: Attribution, step: int) -> dict[str, pa.Table]:
    steps = breakdown(found)
    return {
        "steps": steps.filter(pa.array(np.asarray(steps["step"]) < MOST_STEPS)),
        "ledger": ledger(found, step),
        "kernel_kinds": kernel_summary(found, by_launch=True),
        "operators": operator_table(found, by_shapes=True),
        "roofline": roofline(found),
        "critical_path": _critical(found, step),
        "attention": attention_by_resolution(found),
        "collectives": collectives(found),
        "forwards": denoising_steps(found),
    }


def _critical(found: Attribution, step: int) -> pa.Table:
    """The critical path's segments of one step, added up by kind and kernel."""
    path = critical_path(found)
    own = path.filter(pa.array(np.asarray(path["step"]) == step)).drop_columns(["step", "start_ns"])
    sums = own.group_by(["kind", "category", "name"]).aggregate([("duration_ns", "sum"), ("duration_ns", "count")])
    names = {"duration_ns_sum": "duration_ns", "duration_ns_count": "num_segments"}
    return sums.rename_columns([names.get(name, name) for name in sums.column_names]).sort_by(
        [("duration_ns", "descending")]
    )


def _summary(found: Attribution, step: int) -> dict[str, Any]:
    wall_ns, statistics, work = walls(found), launch_statistics(found), found.traced
    per_step = np.bincount(work.step, work.duration_ns, found.num_steps)
    return {
        "version": VERSION,
        "num_steps": found.num_steps,
        "step": step,
        "wall_ns": int(wall_ns[step]),
        "walls_ns": wall_ns[:MOST_STEPS].tolist(),
        "device_ns": int(per_step[step]),
        "on_gpu": found.on_gpu,
        "device_name": found.trace.device_name,
        "is_one_module": found.trace.only_module is not None,
        "peaks": ceilings(found.trace.device_name) or {},
        "knows_modules": knows_modules(found, pieces_of(found, step)),
        "health": asdict(health(found)),
        "launches": asdict(statistics) if statistics else None,
        "overlap": asdict(overlap(found)),
    }


def _sum(table: pa.Table, column: str, first: int) -> int:
    return sum(value or 0 for value in table[column].slice(first).to_pylist())
