"""Communication: how long collectives take, and how much of it no computation hides."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from profiler.traces.attribute import Attribution
from profiler.traces.groups import Groups
from profiler.traces.intervals import Union
from profiler.traces.messages import COMMUNICATION, exposed_ns, kind_of, ring_share, transfers_of, work_of
from profiler.traces.products import item_bytes
from profiler.traces.tables import words


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
    transfers, compute = transfers_of(found), work_of(found)
    return Overlap(
        communication_ns=Union.of(transfers.start_ns, transfers.end_ns).total_ns,
        exposed_ns=exposed_ns(transfers.start_ns, transfers.end_ns, compute),
        compute_ns=compute.total_ns,
    )


def collectives(found: Attribution) -> pa.Table:
    """One row per collective, type and size; message_bytes is what a rank gives to it, null where that is unknown.

    bus_gbs is bytes over the busiest link by time, as NCCL's own tests define it (github.com/NVIDIA/nccl-tests,
    doc/PERFORMANCE.md): what a ring's rank sends.
    """
    work = found.traced.take(found.traced.category == COMMUNICATION)
    if not found.on_gpu:
        work = work.take(np.zeros(len(work), dtype=bool))
    device = found.trace.device.take(work.row)
    groups = Groups.by(device.collective, device.dtype, device.message_elements, device.group_size)
    first, total = groups.first, groups.sum(work.duration_ns)
    texts = [text.decode(errors="replace") for text in found.trace.texts]
    names, types = ([texts[code] for code in column[first].tolist()] for column in (device.collective, device.dtype))
    sizes = device.message_elements[first] * np.array([item_bytes(kind) for kind in types], np.int64)
    bandwidth = [
        size * share / (ns / count) if size > 0 and ranks > 1 and ns and (share := _bus_share(name, ranks)) else None
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


def _bus_share(name: str, ranks: int) -> float | None:
    """As ring_share, but for messages that pass every link whole. None for what NCCL's tests do not define."""
    kind = kind_of(name)
    if kind in ("broadcast", "send", "recv") or name == "reduce":
        return 1.0
    return (ranks - 1) / ranks if "all_to_all" in name else ring_share(kind, ranks)
