"""Roofline: what each operator achieved, beside what its device could do at best.

The floor of a call's time is the longer of FLOP over the peak of its dtype and bytes over the memory bandwidth. Counted
FLOP are exact; where an operator is no product its bytes alone are known, as an estimate from its inputs.
"""

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.ceilings import ceilings
from profiler.traces.columns import Bools, Floats, Ints
from profiler.traces.counted import innermost_products
from profiler.traces.groups import Groups
from profiler.traces.products import Work, work_of
from profiler.traces.tables import shape_texts, words
from profiler.traces.tensor_cores import EVIDENCE, evidence_of_work

_RATES = {"c10::BFloat16": "half", "c10::Half": "half", "signed char": "fp8"}


def roofline(found: Attribution, peaks: dict[str, float] | None = None) -> pa.Table:
    """One row per operator and shapes that launched device work, the costliest first.

    `peaks` (TFLOP/s per rate, and gbs) are the device's datasheet's unless given. roof_share is the floor over the
    time, null where the device or the shapes are unknown. Empty without a GPU or without recorded shapes.
    """
    peaks = peaks if peaks is not None else ceilings(found.trace.device_name) or {}
    trace = found.trace
    rows, is_counted = _rows(found)
    ops = trace.ops.take(rows)
    device = np.where(is_counted, found.nesting.sum_up(found.op_device_ns)[rows], found.op_device_ns[rows])
    cores = _uses_tensor_cores(found)[rows]
    groups = Groups.by(ops.name, ops.dims, ops.types, ops.concrete, cores.astype(np.int64))
    first, total = groups.first, groups.sum(device)
    texts = trace.texts
    works = [
        work_of(trace.names[name], texts[dims], texts[types], texts[concrete])
        for name, dims, types, concrete in zip(
            *(column[first].tolist() for column in (ops.name, ops.dims, ops.types, ops.concrete)), strict=True
        )
    ]
    counts = groups.counts
    seconds = total / counts / 1e9
    floors = [_floor_s(work, bool(core), peaks) for work, core in zip(works, cores[first].tolist(), strict=True)]
    flop, num_bytes = _column([work.flop for work in works]), _column([work.num_bytes for work in works])
    return pa.table(
        {
            "name": words(trace.names, ops.name[first]),
            "shapes": words(shape_texts(trace), ops.dims[first]),
            "dtype": pa.array([work.dtype or None for work in works], pa.string()),
            "num_calls": pa.array(counts),
            "device_ns": pa.array(total),
            "flop": pa.array([work.flop for work in works], pa.int64()),
            "num_bytes": pa.array([work.num_bytes for work in works], pa.int64()),
            "flop_per_byte": _ratio(flop, num_bytes),
            "tflops": _ratio(flop / 1e12, seconds),
            "gbs": _ratio(num_bytes / 1e9, seconds),
            "bound": pa.array([bound for _, bound in floors], pa.string()),
            "roof_share": _ratio(_column([floor for floor, _ in floors]), seconds),
            "tensor_cores": pa.array(_verdicts(flop / 1e12 / seconds, cores[first], peaks)),
        }
    ).sort_by([("device_ns", "descending")])


def _rows(found: Attribution) -> tuple[Ints, Bools]:
    """The operators of the table: products with all that they launched, and whatever else launched by itself."""
    products = innermost_products(found)
    inside = found.nesting.nearest(products) >= 0
    alone = ~inside & (found.op_device_ns > 0) & (found.trace.ops.dims > 0)
    has_time = products & (found.nesting.sum_up(found.op_device_ns) > 0)
    rows = np.flatnonzero((has_time | alone) & (found.op_step >= 0))
    return rows, products[rows]


def _uses_tensor_cores(found: Attribution) -> Bools:
    """Operators with a kernel, their own or below, whose name says Tensor Cores."""
    work, marked = found.traced, np.zeros(len(found.trace.ops), np.int64)
    says = evidence_of_work(found) <= EVIDENCE.index("library")
    marked[work.op[says & (work.op >= 0)]] = 1
    cores: Bools = found.nesting.sum_up(marked) > 0
    return cores


def _floor_s(work: Work, cores: bool, peaks: dict[str, float]) -> tuple[float | None, str | None]:
    """Seconds at best, and what sets them: compute or memory."""
    if work.num_bytes is None or "gbs" not in peaks:
        return None, None
    memory = work.num_bytes / peaks["gbs"] / 1e9
    rate = _RATES.get(work.dtype, "fp8" if work.dtype.startswith("c10::Float8") else "tf32" if cores else "fp32")
    if work.flop is None:
        return memory, "memory"
    if rate not in peaks:
        return None, None
    compute = work.flop / peaks[rate] / 1e12
    return (compute, "compute") if compute > memory else (memory, "memory")


def _verdicts(tflops: Floats, cores: Bools, peaks: dict[str, float]) -> list[str | None]:
    """Tensor Cores: certain where the rate is beyond what CUDA cores can do, else by the kernels' names."""
    beyond = tflops > peaks.get("fp32", np.inf)
    by_name = [("by name" if core else "none by name") for core in cores.tolist()]
    return [
        None if np.isnan(rate) else "by rate" if fast else name
        for rate, fast, name in zip(tflops.tolist(), beyond.tolist(), by_name, strict=True)
    ]


def _column(values: list[int | None] | list[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _ratio(over: Floats, under: Floats) -> pa.Array:
    found = np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)
    return pa.array(found, from_pandas=True)
