"""A run folder as rows of the index: what of record.json goes into which column."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from profiler.combo import FAMILIES, Combo
from profiler.evidence import facts_in_words
from profiler.record import Evidence, Metrics, Record
from profiler.workload import Workload
from store import db

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """One run's rows."""

    run_id: str
    run: Row
    sample: list[Row]
    evidence: list[Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The rows of many runs in Arrow, as DuckDB takes them fast."""

    run: pa.Table
    sample: pa.Table
    evidence: pa.Table


def rows_of(record: Record, *, root: str, folder: str, record_mtime_ns: int) -> Rows:
    """What the index keeps of a record."""
    place = {"root": root, "folder": folder, "record_mtime_ns": record_mtime_ns}
    return Rows(
        run_id=record.run_id,
        run=_run(record) | place,
        sample=[row for metric, values in record.samples.items() for row in _samples(record.run_id, metric, values)],
        evidence=[_evidence(record.run_id, evidence) for evidence in record.evidence],
    )


def tables_of(runs: Sequence[Rows]) -> Tables:
    """Raises pyarrow.ArrowException, TypeError, ValueError or OverflowError for a value that its column cannot hold."""
    return Tables(
        run=table_of("run", [rows.run for rows in runs]),
        sample=table_of("sample", [row for rows in runs for row in rows.sample]),
        evidence=table_of("evidence", [row for rows in runs for row in rows.evidence]),
    )


def _run(record: Record) -> Row:
    machine, sweep = record.machine, record.sweep
    on_gpu = machine is not None and record.workload is not None and record.workload.device == "cuda"
    return {
        **_choices(record.combo),
        **_shape(record.workload),
        **{metric.name: _known(getattr(record.metrics, metric.name)) for metric in fields(Metrics)},
        "run_id": record.run_id,
        "status": record.status,
        "cause": record.cause,
        "contaminated": record.contaminated,
        "started_at": _time(record.started_at),
        "ended_at": _time(record.ended_at),
        "duration_s": record.duration_s,
        "sweep_id": sweep and sweep.sweep_id,
        "sweep_name": sweep and sweep.name,
        "sweep_position": sweep and sweep.position,
        "sweep_role": sweep and sweep.role,
        "num_jobs": sweep and sweep.num_jobs,
        "combo_label": record.label,
        "workload_label": record.workload_label,
        "machine_label": record.device_name or None,
        "device_key": machine and (machine.gpu_uuid if on_gpu else machine.cpu_name),
        "gpu_name": machine.gpu_name if machine else record.imported and record.imported.device_name,
        "gpu_uuid": machine and machine.gpu_uuid,
        "gpu_memory_gib": machine and machine.gpu_memory_gib,
        "boot_id": machine and machine.boot_id,
        "torch": machine and machine.torch,
        "cuda": machine and machine.cuda,
        "launch_verdict": record.launch_verdict,
        "attention_observed": _calls(record.attention_observed) or None,
        "trace_file": record.trace_file,
        "of_whole_trace": record.of_whole_trace,
        "schema_version": record.schema_version,
    }


_WORKLOAD_COLUMNS = (
    *("model", "model_label", "mode", "batch", "resolution", "device", "world_size"),
    *("num_inference_steps", "guidance_scale", "dataset_size", "seed"),
)


def _choices(combo: Combo | None) -> Row:
    """The columns of a combo, all null for an imported trace: such a run pairs with nothing."""
    if combo is None:
        return dict.fromkeys((*FAMILIES, "combo_key", "eager_key"))
    return {**combo.to_dict(), "combo_key": combo.key, "eager_key": replace(combo, compilation="eager").key}


def _shape(workload: Workload | None) -> Row:
    """The columns of a workload, all null for an imported trace."""
    if workload is None:
        return dict.fromkeys((*_WORKLOAD_COLUMNS, "workload_key"))
    return {name: getattr(workload, name) for name in _WORKLOAD_COLUMNS} | {"workload_key": _workload_key(workload)}


def _workload_key(workload: Workload) -> str:
    """Equal for workloads whose step times may be divided by one another.

    The batch is that of all processes together, so that world_size is how the work is done, not what it is.
    """
    parts = [workload.model, workload.mode, workload.batch, workload.resolution, workload.device]
    if workload.mode == "sample":
        parts += [workload.num_inference_steps, workload.guidance_scale]
    return " ".join(str(part) for part in parts)


def _samples(run_id: str, metric: str, values: Sequence[float]) -> list[Row]:
    return [{"run_id": run_id, "metric": metric, "index": index, "value": value} for index, value in enumerate(values)]


def _evidence(run_id: str, evidence: Evidence) -> Row:
    return {
        "run_id": run_id,
        "family": evidence.family,
        "choice": evidence.choice,
        "confirmed": evidence.confirmed,
        "facts": facts_in_words(evidence.facts),
        "must_appear": _patterns(evidence.must_appear),
        "must_not_appear": _patterns(evidence.must_not_appear),
        "observed": facts_in_words(evidence.observed),
        "finding": evidence.finding,
    }


def table_of(name: str, rows: Sequence[Row]) -> pa.Table:
    """Rows of a table of schema.sql, every column named."""
    schema = db.table_schema(name)
    return pa.table([pa.array([row[field.name] for row in rows], field.type) for field in schema], schema=schema)


def _calls(observed: Mapping[str, int]) -> str:
    """The most first, e.g. 'cudnn 30, math 2'."""
    return ", ".join(f"{name} {calls}" for name, calls in sorted(observed.items(), key=lambda item: -item[1]))


def _patterns(patterns: Mapping[str, str]) -> str:
    """E.g. 'a flash kernel: flash_fwd; ...'."""
    return "; ".join(f"{what}: {pattern}" for what, pattern in patterns.items())


def _time(text: str) -> datetime | None:
    """UTC without a zone, as DuckDB's TIMESTAMP has it."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _known(value: float | None) -> float | None:
    """Unknown is null: a quotient by zero must not spread into ratios."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
