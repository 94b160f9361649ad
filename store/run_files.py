"""What a run's own files say of its traced step: its memory, modules, telemetry and curves. store.frames hands them on.

The index names the folder; each frame has the same columns when the run has no such file. Raises StoreError as
store.frames does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from store import db, folders

MEMORY_CATEGORIES = ("parameters", "gradients", "optimizer_state", "activations", "workspace", "other")
NUM_MOMENTS = 2000  # more than a screen is wide

_MEMORY = {"time_ns": pa.int64()} | {f"{category}_bytes": pa.int64() for category in MEMORY_CATEGORIES}
_TELEMETRY = {"time_ns": pa.int64()} | {
    name: pa.float64() for name in ("power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "utilisation")
}
_ALIVE = {"moment": pa.string(), "time_ns": pa.int64()} | dict.fromkeys(("category", "module", "block"), pa.string())
_ALIVE |= {"bytes": pa.int64(), "num_storages": pa.int64()}
_ALLOCATOR = dict.fromkeys(("time_ns", "requested_bytes", "reserved_bytes", "stuck_bytes"), pa.int64())
_WORDS = pa.dictionary(pa.int32(), pa.string())  # as files have them: of a million rows spelling out takes 40 ms
_RECOMPUTED = {"step": pa.int32(), "duration_ns": pa.int64(), "phase": _WORDS, "module": _WORDS}
_RUN_BY = {"step": pa.int32(), "start_ns": pa.int64(), "module": _WORDS}
_UNIT = r"^(.*?\b(?:resnets|transformer_blocks)\.\d+)"  # what checkpointing wraps
_CURVES = {"name": pa.string(), "x": pa.float64(), "y": pa.float64()}


def memory_timeline(run_id: str, *, max_points: int = NUM_MOMENTS, database: Path | None = None) -> pd.DataFrame:
    """One row per moment and category of the traced step; of more moments than max_points the fullest are kept."""
    rows = _rows_of(run_id, "memory", _MEMORY, database)
    return _query_rows("memory_timeline", rows, table="memory", max_points=max_points)


def peak_parts(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run and part of its peak: what was alive at the fullest moment of the traced step, time_ms into it.

    untraced is what peak_gib, the peak without the profiler, has beyond that. Runs without a timeline are left out.
    """
    run_ids = list(dict.fromkeys(run_ids))
    with db.reading(db.chosen(database)) as connection:
        known = db.query(connection, "runs_by_id", run_ids=run_ids)[["run_id", "combo_label", "peak_allocated_gib"]]
    rows = db.of_runs({run_id: _rows_of(run_id, "memory", _MEMORY, database) for run_id in known["run_id"]}, _MEMORY)
    with db.scratch() as connection:
        return db.query(connection, "peak_parts", {"memory": rows, "run": pa.Table.from_pandas(known)}, run_ids=run_ids)


def alive(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per category and module of what is alive at the peak of the traced step, and at the end of forward."""
    return _query_rows("alive", _rows_of(run_id, "alive", _ALIVE, database))


def allocator(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per moment of a step: GiB asked for, reserved, and stuck between storages; empty on a CPU."""
    return _query_rows("allocator", _rows_of(run_id, "allocator", _ALLOCATOR, database))


def recompute_ledger(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per block: ms that checkpointing runs again against GiB that it spares until the backward.

    What it spares is null without a run that differs in checkpointing alone. Empty where nothing is recomputed.
    """
    kernels = _rows_of(run_id, "kernels", _RECOMPUTED, database)
    if "recompute" not in kernels["phase"].unique().to_pylist():
        kernels = kernels.slice(0, 0)
    alive = plain = pa.schema(_ALIVE).empty_table()
    if len(kernels):
        alive = _rows_of(run_id, "alive", _ALIVE, database)
        with db.reading(db.chosen(database)) as connection:
            twin = db.rows(connection, "plain_twin", run_id=run_id)
        if twin:
            plain = _rows_of(str(twin[0][0]), "alive", _ALIVE, database)
    with db.scratch() as connection:
        tables = {"kernels": kernels, "alive": alive, "plain": plain}
        return db.query(connection, "recompute_ledger", tables, unit=_UNIT)


def telemetry(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per sample of the GPU's power, clocks, temperature and utilisation; empty on a CPU."""
    return _query_rows("telemetry", _rows_of(run_id, "telemetry", _TELEMETRY, database))


def curves(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per point of the run's curves, e.g. loss."""
    return _query_rows("curves", _rows_of(run_id, "curves", _CURVES, database))


def trace_modules(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per step and module of a run's trace, those around others included, in the order they first run.

    num_ops counts the operators of the module and of all in it. Empty where the trace names no modules.
    """
    rows = _rows_of(run_id, "ops", _RUN_BY, database)
    with db.scratch() as connection:
        return db.query(connection, "trace_modules", {"ops": rows})


def losses(run_id: str, *, database: Path | None = None) -> dict[int, float]:
    """The loss by step, from 1, of a run's curve: the finite ones; empty where it has none."""
    rows = _rows_of(run_id, "curves", _CURVES, database).to_pylist()
    return {round(row["x"]): row["y"] for row in rows if row["name"] == "loss" and row["y"] is not None}


def _rows_of(run_id: str, name: str, columns: dict[str, pa.DataType], database: Path | None) -> pa.Table:
    """A Parquet file of a run folder; no rows where the run has none."""
    path, schema = folders.of_run(run_id, db.chosen(database)) / f"{name}.parquet", pa.schema(columns)
    if not path.exists():
        return schema.empty_table()
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns)).select(list(columns)).cast(schema)


def _query_rows(name: str, rows: pa.Table, *, table: str = "", **parameters: Any) -> pd.DataFrame:
    """Query one of the files that stay in the run folder; the SQL names its table as the query is named, or `table`."""
    with db.scratch() as connection:
        return db.query(connection, name, {table or name: rows}, **parameters)
