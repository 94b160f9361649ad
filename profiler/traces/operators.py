"""Operators and kernels: one row per kind, with calls, self and total times, shapes, launch geometry and occupancy."""

import msgspec
import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Bools, Ints
from profiler.traces.groups import Groups
from profiler.traces.tables import shape_texts, words
from profiler.traces.tensor_cores import EVIDENCE, evidence_of_work


def operator_table(found: Attribution, *, by_shapes: bool = False) -> pa.Table:
    """One row per operator (and shapes of its inputs) over all steps, the costliest first.

    total counts what is inside of it, once where an operator calls itself; self is without other operators. Device
    times are of the kernels that it launched; without a GPU they are null.
    """
    kept = np.flatnonzero(found.op_step >= 0)
    ops = found.trace.ops.take(kept)
    outermost = _is_outermost_of_its_name(found)[kept]
    device_self, device_total = found.op_device_ns, found.nesting.sum_up(found.op_device_ns)
    groups = Groups.by(ops.name, *((ops.dims, ops.types) if by_shapes else ()))
    table: dict[str, pa.Array] = {"name": words(found.trace.names, ops.name[groups.first])}
    if by_shapes:
        table["shapes"] = words(shape_texts(found.trace), ops.dims[groups.first])
        table["types"] = words(_type_texts(found), ops.types[groups.first])
    table |= {
        "num_calls": pa.array(groups.counts),
        "host_self_ns": pa.array(groups.sum(found.nesting.self_ns[kept])),
        "host_total_ns": pa.array(groups.sum(np.where(outermost, ops.duration_ns, 0))),
        "device_self_ns": _or_null(found, groups.sum(device_self[kept])),
        "device_total_ns": _or_null(found, groups.sum(np.where(outermost, device_total[kept], 0))),
    }
    first = "device_self_ns" if found.on_gpu else "host_self_ns"
    return pa.table(table).sort_by([(first, "descending"), ("host_self_ns", "descending")])


def kernel_summary(found: Attribution, *, by_launch: bool = False) -> pa.Table:
    """One row per kernel name (and operator, grid and block), the costliest first.

    occupancy_percent is kineto's estimate from the launch's shape, weighted by time; it is no measurement.
    """
    work, trace = found.traced, found.trace
    op_name = np.where(work.op >= 0, trace.ops.name[work.op], -1) if len(trace.ops) else work.op
    evidence = evidence_of_work(found)
    keys: list[Ints] = [work.name, work.category, evidence]
    device = trace.device.take(work.row) if found.on_gpu else None
    if by_launch and device is not None:
        keys += [op_name, device.grid, device.block, device.registers, device.shared_bytes]
    groups = Groups.by(*keys)
    first, total = groups.first, groups.sum(work.duration_ns)
    table = {
        "name": words(trace.names, work.name[first]),
        "category": words(CATEGORIES, work.category[first]),
        "tensor_cores": words(EVIDENCE, evidence[first]),
        "num_calls": pa.array(groups.counts),
        "total_ns": pa.array(total),
        "mean_ns": pa.array(total / groups.counts),
        "min_ns": pa.array(groups.least(work.duration_ns)),
        "max_ns": pa.array(groups.most(work.duration_ns)),
    }
    if device is not None:
        weights = work.duration_ns
        table["occupancy_percent"] = pa.array(groups.mean(device.occupancy, weights), from_pandas=True)
        table["blocks_per_sm"] = pa.array(groups.mean(device.blocks_per_sm, weights), from_pandas=True)
        if by_launch:
            table["op"] = words(trace.names, op_name[first])
            table["grid"] = words(_sizes(trace.texts), device.grid[first])
            table["block"] = words(_sizes(trace.texts), device.block[first])
            table["registers"] = pa.array(device.registers[first], mask=device.registers[first] < 0)
            table["shared_bytes"] = pa.array(device.shared_bytes[first], mask=device.shared_bytes[first] < 0)
    return pa.table(table).sort_by([("total_ns", "descending"), ("num_calls", "descending")])


def _is_outermost_of_its_name(found: Attribution) -> Bools:
    """Whether no operator around has the same name."""
    name, parent = found.trace.ops.name, found.nesting.parent
    above, outermost = parent.copy(), np.ones(len(name), dtype=bool)
    while len(rows := np.flatnonzero(above >= 0)):
        outermost[rows[name[above[rows]] == name[rows]]] = False
        above[rows] = parent[above[rows]]
    return outermost


def _or_null(found: Attribution, values: Ints) -> pa.Array:
    return pa.array(values) if found.on_gpu else pa.nulls(len(values), pa.int64())


def _type_texts(found: Attribution) -> list[str]:
    used = set(np.unique(found.trace.ops.types).tolist()) - {0}
    return [_joined(text) if code in used else "" for code, text in enumerate(found.trace.texts)]


def _joined(text: bytes) -> str:
    types = msgspec.json.decode(text)
    return ", ".join(str(one) for one in types if one) if isinstance(types, list) else ""


def _sizes(texts: list[bytes]) -> list[str]:
    """'[128, 2, 1]' as 128x2x1."""
    return [text.decode(errors="replace").strip("[]").replace(" ", "").replace(",", "x") for text in texts]
