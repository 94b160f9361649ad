"""Communication: how long collectives take, and how much of it no computation hides."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.groups import Groups
from profiler.traces.intervals import Union
from profiler.traces.tables import words

_COMMUNICATION = CATEGORIES.index("communication")
_COPY = CATEGORIES.index("memcpy")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Nanoseconds over all steps. hidden_share is None where nothing was communicated."""

    communication_ns: int
    exposed_ns: int
    compute_ns: int

    @property
    def hidden_share(self) -> float | None:
        return 1 - self.exposed_ns / self.communication_ns if self.communication_ns else None


def overlap(found: Attribution) -> Overlap:
    """Unions over all streams: what runs side by side counts once."""
    work = found.traced
    told = work.category == _COMMUNICATION
    computes = ~told & (work.category != _COPY)
    communication = Union.of(work.start_ns[told], work.end_ns[told])
    compute = Union.of(work.start_ns[computes], work.end_ns[computes])
    return Overlap(
        communication_ns=communication.total_ns,
        exposed_ns=communication.minus(compute).total_ns,
        compute_ns=compute.total_ns,
    )


def collectives(found: Attribution) -> pa.Table:
    """One row per collective, type and size. bus_gbs is algorithm bandwidth x the factor of NCCL's own tests."""
    work = found.traced.take(found.traced.category == _COMMUNICATION)
    if not found.on_gpu:
        work = work.take(np.zeros(len(work), dtype=bool))
    device = found.trace.device.take(work.row)
    groups = Groups.by(device.collective, device.dtype, device.message_elements, device.group_size)
    first, total = groups.first, groups.sum(work.duration_ns)
    texts = [text.decode(errors="replace") for text in found.trace.texts]
    names, types = ([texts[code] for code in column[first].tolist()] for column in (device.collective, device.dtype))
    sizes = device.message_elements[first] * np.array([_ITEM_BYTES.get(kind, -1) for kind in types], np.int64)
    bandwidth = [
        size * _bus_factor(name, ranks) / (ns / count) if size > 0 and ranks > 1 and ns else None
        for name, ranks, size, ns, count in zip(
            *(names, device.group_size[first].tolist(), sizes.tolist(), total.tolist(), groups.counts.tolist()),
            strict=True,
        )
    ]
    return pa.table(
        {
            "collective": pa.array([name or None for name in names], pa.string()),
            "kernel": words(found.trace.names, work.name[first]),
            "dtype": pa.array([kind or None for kind in types], pa.string()),
            "num_ranks": pa.array(device.group_size[first], mask=device.group_size[first] < 0),
            "message_bytes": pa.array(sizes, mask=sizes <= 0),
            "num_calls": pa.array(groups.counts),
            "total_ns": pa.array(total),
            "bus_gbs": pa.array(bandwidth, pa.float64()),
        }
    ).sort_by([("total_ns", "descending")])


_ITEM_BYTES = {"Float": 4, "Half": 2, "BFloat16": 2, "Double": 8, "Long": 8, "Int": 4, "Byte": 1, "Char": 1, "Bool": 1}


def _bus_factor(name: str, ranks: int) -> float:
    """Bytes over the busiest link per byte of the message: github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md."""
    if "allreduce" in name.replace("_", "").lower():
        return 2 * (ranks - 1) / ranks
    return 1.0 if "broadcast" in name or name == "reduce" else (ranks - 1) / ranks
