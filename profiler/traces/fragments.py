"""Fragments: what CUDA's caching allocator held over a step, replayed from its snapshot and its history.

- requested: bytes that somebody asked for and still has;
- reserved: bytes taken from the device, in segments;
- stuck: bytes of segments in use that nobody asked for: rounding, remainders and gaps between storages. They serve
  smaller requests only, and cannot go back to the device; reserved less requested less stuck is whole free segments.

Both are Python objects of torch.cuda.memory._snapshot, made in this process.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

MOST_ROWS = 600  # of allocator.parquet: as many as a chart is wide
_MAPPED = ("segment_map", "segment_unmap")


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes after one event; stuck is None with expandable segments, which give pages back one by one."""

    time_ns: int
    requested: int
    reserved: int
    stuck: int | None


@dataclass(slots=True)
class _Segments:
    """The segments by address, and the storages in them."""

    starts: list[int] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)  # bytes asked for, by segment
    storages: dict[int, tuple[int, int]] = field(default_factory=dict)  # address -> segment, bytes
    requested: int = 0
    reserved: int = 0
    stuck: int = 0

    def add(self, address: int, size: int) -> None:
        insort(self.starts, address)
        self.sizes[address], self.used[address] = size, 0
        self.reserved += size

    def remove(self, address: int) -> None:
        self.starts.remove(address)
        self.reserved -= self.sizes.pop(address)
        del self.used[address]

    def ask(self, address: int, size: int) -> None:
        segment = self._segment_of(address)
        self.storages[address] = segment, size
        self._use(segment, size)

    def give_back(self, address: int) -> None:
        if address in self.storages:  # else it was given out before the snapshot, by another pool
            segment, size = self.storages.pop(address)
            self._use(segment, -size)

    def _segment_of(self, address: int) -> int:
        index = bisect_right(self.starts, address) - 1
        start = self.starts[index] if index >= 0 else address
        return start if address < start + self.sizes.get(start, 0) else -1

    def _use(self, segment: int, size: int) -> None:
        self.requested += size
        if segment >= 0:
            self.stuck -= self._stuck_in(segment)
            self.used[segment] += size
            self.stuck += self._stuck_in(segment)

    def _stuck_in(self, segment: int) -> int:
        return self.sizes[segment] - self.used[segment] if self.used[segment] else 0


def replay(segments: Iterable[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], start_us: int) -> list[Moment]:
    """The state before the events and after each; `segments` is the snapshot before them."""
    held = _Segments()
    for segment in segments:
        held.add(segment["address"], segment["total_size"])
        for block in segment["blocks"]:
            if block["state"] != "inactive":
                held.ask(block["address"], block["requested_size"])
    is_mapped = any(event["action"] in _MAPPED for event in events)
    moments = [_moment(0, held, is_mapped)]
    for event in events:
        if _follow(held, event):
            moments.append(_moment(max(0, event["time_us"] - start_us) * 1000, held, is_mapped))
    return moments


def _follow(held: _Segments, event: Mapping[str, Any]) -> bool:
    """Apply an event; whether it changes anything."""
    match event["action"]:
        case "alloc":
            held.ask(event["addr"], event["size"])
        case "free_completed":
            held.give_back(event["addr"])
        case "segment_alloc":
            held.add(event["addr"], event["size"])
        case "segment_free":
            held.remove(event["addr"])
        case "segment_map":
            held.reserved += event["size"]
        case "segment_unmap":
            held.reserved -= event["size"]
        case _:
            return False
    return True


def _moment(time_ns: int, held: _Segments, is_mapped: bool) -> Moment:
    return Moment(time_ns, held.requested, held.reserved, None if is_mapped else held.stuck)


def allocator_table(moments: Sequence[Moment]) -> pa.Table:
    """One row per moment; of more than MOST_ROWS, the fullest of each stretch, and the one with most stuck."""
    size = -(-len(moments) // MOST_ROWS)
    kept = [max(moments[at : at + size], key=lambda one: one.requested) for at in range(0, len(moments), size or 1)]
    kept += [max(moments, key=lambda one: one.stuck or 0)] if moments and size > 1 else []
    kept.sort(key=lambda one: one.time_ns)
    return pa.table(
        {
            "time_ns": pa.array([one.time_ns for one in kept], pa.int64()),
            "requested_bytes": pa.array([one.requested for one in kept], pa.int64()),
            "reserved_bytes": pa.array([one.reserved for one in kept], pa.int64()),
            "stuck_bytes": pa.array([one.stuck for one in kept], pa.int64()),
        }
    )
