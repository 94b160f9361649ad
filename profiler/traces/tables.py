"""Tables: the rows that a run folder keeps of its trace, as Arrow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Bools, Ints, Trace
from profiler.traces.counted import op_flop
from profiler.traces.vectors import wrapped


def kernel_table(found: Attribution) -> pa.Table:
    """One row per piece of device work of the steps (on a CPU per operator with self time)."""
    trace, work = found.trace, found.traced
    op_name = np.where(work.op >= 0, trace.ops.name[work.op], -1) if len(trace.ops) else np.full(len(work), -1)
    return pa.table(
        {
            "step": pa.array(work.step, pa.int32()),
            "start_ns": pa.array(work.start_ns - found.origin_ns, pa.int64()),
            "duration_ns": pa.array(work.duration_ns, pa.int64()),
            "name": words(trace.names, work.name),
            "category": words(CATEGORIES, work.category),
            "stream": numbers(work.stream, pa.int64()),
            "correlation": numbers(work.correlation, pa.int64()),
            "op": words(trace.names, op_name),
            "phase": words(found.phases.names, work.phase),
            "module": words(found.modules.paths, work.module),
        }
    )


def op_table(found: Attribution) -> pa.Table:
    """One row per operator of the steps."""
    trace, kept = found.trace, np.flatnonzero(found.op_step >= 0)
    ops = trace.ops.take(kept)
    shapes = shape_texts(trace)
    threads = np.array([wrapped(tid) for _, tid in trace.threads] or [0], np.int64)
    device_ns = pa.array(found.op_device_ns[kept]) if found.on_gpu else pa.nulls(len(kept), pa.int64())
    return pa.table(
        {
            "step": pa.array(found.op_step[kept], pa.int32()),
            "start_ns": pa.array(ops.start_ns - found.origin_ns, pa.int64()),
            "duration_ns": pa.array(ops.duration_ns, pa.int64()),
            "self_ns": pa.array(found.nesting.self_ns[kept], pa.int64()),
            "device_self_ns": device_ns,
            "name": words(trace.names, ops.name),
            "module": words(found.modules.paths, found.modules.of_ops[kept]),
            "phase": words(found.phases.names, found.phases.of_ops[kept]),
            "shapes": words(shapes, np.where([bool(shapes[code]) for code in ops.dims.tolist()], ops.dims, -1)),
            "flops": numbers(op_flop(found)[kept], pa.int64()),
            "thread": pa.array(threads[ops.thread], pa.int64()),
        }
    )


def write_table(table: pa.Table, file: Path) -> None:
    """Write Parquet, packed tightly: run folders are kept for years."""
    # times and counters pack better by differences, and no whole numbers much worse
    whole = [one.name for one in table.schema if pa.types.is_integer(one.type)]
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=9,  # 19 takes five times as long for 2% less
        use_dictionary=[name for name in table.column_names if name not in whole],
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
        write_statistics=False,  # they help to skip parts of large files, and take an eighth of a small one
    )


def words(values: Sequence[str], codes: Ints) -> pa.Array:
    """Dictionary-encoded text; a code of -1 is null. Only the words that occur are kept."""
    used, compact = np.unique(codes, return_inverse=True)
    texts = [values[code] if code >= 0 else "" for code in used.tolist()]
    numbered = {text: number for number, text in enumerate(dict.fromkeys(texts))}  # two codes may read the same
    indices = np.array([numbered[text] for text in texts], np.int32)[compact.reshape(-1)]
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, pa.int32(), mask=codes < 0), pa.array(list(numbered), pa.string())
    )


def numbers(values: Ints, kind: Any) -> pa.Array:
    """Numbers of which -1 is null."""
    mask: Bools = values < 0
    return pa.array(values, kind, mask=mask)


def shape_texts(trace: Trace) -> list[str]:
    """Each text of the trace as shapes, e.g. '2x320x64x64, 320x320x3x3', without those that are empty."""
    used = set(np.unique(trace.ops.dims).tolist())
    return [_shapes(text) if code in used else "" for code, text in enumerate(trace.texts)]


def _shapes(text: bytes) -> str:
    dims = msgspec.json.decode(text) if text else None
    if not isinstance(dims, list):
        return ""
    return ", ".join("x".join(map(str, dim)) for dim in dims if isinstance(dim, list) and dim)
