"""What a run folder's views/ says of its trace (profiler/traces/views.py writes it): one function per question.

Times are milliseconds per traced step; those from the ledger are of the step of median length, and add up to its wall
time. Every frame has the same columns when it is empty. Raises StoreError when there is no index.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from store import db, folders, module_tree
from store.db import StoreError

VERSION = 1  # of the tables that this code reads

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "steps": {"step": _WHOLE, "part": _TEXT, "duration_ns": _WHOLE},
    "ledger": {
        **dict.fromkeys(("part", "phase", "module", "block"), _TEXT),
        **dict.fromkeys(("duration_ns", "num_pieces"), _WHOLE),
    },
    "kernel_kinds": {
        **dict.fromkeys(("name", "category", "tensor_cores", "op", "grid", "block"), _TEXT),
        **dict.fromkeys(("num_calls", "total_ns", "min_ns", "max_ns", "registers", "shared_bytes"), _WHOLE),
        "occupancy_percent": _REAL,
    },
    "operators": {
        **dict.fromkeys(("name", "shapes", "types"), _TEXT),
        **dict.fromkeys(("num_calls", "host_self_ns", "host_total_ns", "device_self_ns", "device_total_ns"), _WHOLE),
    },
    "roofline": {
        **dict.fromkeys(("name", "shapes", "dtype", "bound", "tensor_cores"), _TEXT),
        **dict.fromkeys(("num_calls", "device_ns", "flop", "num_bytes"), _WHOLE),
        **dict.fromkeys(("flop_per_byte", "tflops", "gbs", "roof_share"), _REAL),
    },
    "critical_path": {
        **dict.fromkeys(("kind", "category", "name"), _TEXT),
        **dict.fromkeys(("duration_ns", "num_segments"), _WHOLE),
    },
    "attention": {
        **dict.fromkeys(("resolution", "phase"), _TEXT),
        **dict.fromkeys(("query_tokens", "key_tokens", "num_heads", "head_dim", "num_calls", "duration_ns"), _WHOLE),
    },
    "forwards": dict.fromkeys(("step", "forward", "busy_ns"), _WHOLE),
    "collectives": {
        **dict.fromkeys(("collective", "kernel", "dtype"), _TEXT),
        **dict.fromkeys(("num_ranks", "message_bytes", "num_calls", "total_ns"), _WHOLE),
        "bus_gbs": _REAL,
    },
}

_AS_THEY_ARE = ("ledger", "steps", "critical_path", "forwards")  # the others are divided by the number of steps


def summary(run_id: str, *, database: Path | None = None) -> dict[str, Any] | None:
    """Steps, device, ceilings, health card, launches and overlap of a run's trace; None where there are no views."""
    return _summary(_place(run_id, database))


def step_parts(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per traced step and part of its time (a kernel class, or idle with its reason)."""
    return _query(run_id, "steps", "step_parts", database)


def phase_parts(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per phase and part of the step of median length; idle time has no phase."""
    return _query(run_id, "ledger", "phase_parts", database)


def modules(run_id: str, phase: str | None = None, *, database: Path | None = None) -> pd.DataFrame:
    """One row per module: own time and time with the modules inside of it, and the module around it.

    The root is the whole step (or one phase of it): beside the model it holds what no module did (optimizer, idle).
    """
    with db.scratch() as connection:
        rows = db.query(connection, "module_times", {"ledger": _rows(_place(run_id, database), "ledger")}, phase=phase)
    return module_tree.module_tree(rows)


def blocks(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per UNet block and kernel class, blocks in the order of the network; idle time is left out."""
    return module_tree.in_network_order(_query(run_id, "ledger", "block_times", database))


def kernel_kinds(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per kernel, operator that launched it and launch geometry, the longest first."""
    return _query(run_id, "kernel_kinds", "kernel_kinds", database)


def operators(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per operator and shapes of its inputs; the costliest on the device (on a CPU: of the host) first."""
    return _query(run_id, "operators", "operators", database)


def roofline(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per operator and shapes with what it achieved beside what its device allows."""
    return _query(run_id, "roofline", "roofline", database)


def tensor_cores(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per kernel class that multiplies matrices and level of evidence for Tensor Cores."""
    return _query(run_id, "kernel_kinds", "tensor_cores", database)


def critical_path(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per kind of segment and kernel; they add up to the wall time."""
    return _query(run_id, "critical_path", "critical_path", database)


def attention(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per attention shape and phase: the resolution of its image tokens, self or cross."""
    return _query(run_id, "attention", "attention_shapes", database)


def forwards(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per traced step and forward of it: a sampling loop's denoising steps."""
    return _query(run_id, "forwards", "forwards", database)


def collectives(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per collective, type and size."""
    return _query(run_id, "collectives", "collectives", database)


def waterfall(before: str, after: str, cut: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per part whose time differs between two runs; the changes add up to the difference in wall time exactly.

    cut: 'class' (kernel classes and idle reasons), 'place' (module x phase) or 'phase' (class x phase).
    """
    places = {"before": _place(before, database), "after": _place(after, database)}
    tables = {side: _rows(place, "ledger") for side, place in places.items()}
    with db.scratch() as connection:
        return db.query(connection, "waterfall", tables, cut=cut)


def part_matrix(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run and part of its step, for the runs that have views; a run's rows add up to its wall time."""
    tables = {run_id: _rows(_place(run_id, database), "ledger") for run_id in run_ids}
    with db.scratch() as connection:
        return db.query(connection, "part_matrix", {"ledger": db.of_runs(tables, SCHEMAS["ledger"])})


def _query(run_id: str, table: str, query: str, database: Path | None) -> pd.DataFrame:
    place = _place(run_id, database)
    per_step = {} if table in _AS_THEY_ARE else {"num_steps": (_summary(place) or {}).get("num_steps", 1)}
    with db.scratch() as connection:
        return db.query(connection, query, {table: _rows(place, table)}, **per_step)


def _place(run_id: str, database: Path | None) -> Path:
    return place_of(run_id, folders.of_run(run_id, db.chosen(database)))


def place_of(run_id: str, folder: Path) -> Path:
    """A run's views: what was made later from its trace (python -m runs views), else those in its folder."""
    made = db.home() / "views" / run_id
    return made if made.is_dir() else folder / "views"


def parts_and_roofline(place: Path) -> tuple[dict[str, Any] | None, pd.DataFrame, pd.DataFrame]:
    """summary, phase_parts and roofline of a place, at the price of one query."""
    found = _summary(place)
    tables = {name: _rows(place, name) for name in ("ledger", "roofline")}
    with db.scratch() as connection:
        parts = db.query(connection, "phase_parts", tables)
        return found, parts, db.query(connection, "roofline", tables, num_steps=(found or {}).get("num_steps", 1))


def _summary(place: Path) -> dict[str, Any] | None:
    file = place / "summary.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read ({error}): copy the run folder again") from error
    return found if found.get("version") == VERSION else None


def _rows(place: Path, name: str) -> pa.Table:
    """A table of a run's views; no rows where it has none, nulls where its device has no such column."""
    path, schema = place / f"{name}.parquet", pa.schema(SCHEMAS[name])
    if _summary(place) is None or not path.exists():
        return schema.empty_table()
    with pq.ParquetFile(path) as file:
        there = [column for column in schema.names if column in file.schema_arrow.names]
        rows = file.read(columns=there)
    columns = [rows[one.name].cast(one.type) if one.name in there else pa.nulls(len(rows), one.type) for one in schema]
    return pa.table(columns, schema=schema)
