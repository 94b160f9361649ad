"""Gather: typed events into columns, piece by piece, by kind of event."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

import numpy as np

from profiler.traces.columns import (
    DEVICE_KINDS,
    FLOATS,
    Allocations,
    Columns,
    DeviceWork,
    Floats,
    Flows,
    Ints,
    Launches,
    Messages,
    Notes,
    Ops,
    Others,
    Ranges,
    Syncs,
    Trace,
)
from profiler.traces.decode import Event
from profiler.traces.raw import Args
from profiler.traces.words import GLOO, MODULE, NCCL_MESSAGE

_KINDS = {
    **dict.fromkeys(("cpu_op", "Operator", "operator"), "ops"),
    "user_annotation": "ranges",
    **dict.fromkeys(("cuda_runtime", "cuda_driver", "Runtime", "hip_runtime", "xpu_runtime", "xpu_driver"), "launches"),
    **dict.fromkeys(("privateuse1_runtime", "privateuse1_driver", "mtia_runtime"), "launches"),
    **dict.fromkeys(("kernel", "Kernel", "gpu_memcpy", "Memcpy", "gpu_memset", "Memset"), "device"),
    **dict.fromkeys(("cuda_sync", "cuda_event"), "syncs"),
    "python_function": "modules",
}
_DEVICE_KIND = {"gpu_memcpy": 1, "Memcpy": 1, "gpu_memset": 2, "Memset": 2}
_CLASSES: dict[str, type[Columns]] = {
    "ops": Ops,
    "ranges": Ranges,
    "modules": Ranges,
    "messages": Messages,
    "launches": Launches,
    "device": DeviceWork,
    "allocations": Allocations,
    "syncs": Syncs,
    "flows": Flows,
    "others": Others,
}
_NUMBERS = {
    "ops": ("external_id", "sequence", "forward_thread"),
    "ranges": ("external_id",),
    "modules": ("external_id",),
    "messages": ("external_id", "message_elements"),
    "launches": ("external_id", "correlation"),
    "device": (
        *("external_id", "device", "stream", "correlation", "graph_node", "registers", "shared_bytes", "num_bytes"),
        *("occupancy", "blocks_per_sm", "warps_per_sm", "bandwidth_gbs", "message_elements", "group_size"),
    ),
    "allocations": ("address", "device_type", "total_allocated", "total_reserved"),
    "syncs": ("external_id", "stream", "correlation", "wait_stream", "wait_correlation"),
    "flows": (),
    "others": ("external_id",),
}
_TEXTS = {
    "ops": ("dims", "strides", "types", "concrete"),
    "messages": ("dims", "types", "collective", "dtype"),
    "device": ("grid", "block", "collective", "dtype"),
}
_ARROWS = ("ac2g", "async_cpu_to_gpu", "async_gpu")
_IGNORED = {"s": "other arrows", "t": "other arrows", "f": "other arrows", "C": "counters", "i": "instants"}


class Codes(dict[Any, int]):
    """Numbers values in the order of their first appearance."""

    def __missing__(self, key: Any) -> int:
        code = self[key] = len(self)
        return code


class Gatherer:
    """Collects the columns of every piece, and puts them in order at the end."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.names, self.texts, self.threads = Codes(), Codes(), Codes()
        self.processes: dict[int | str, dict[str, str]] = {}
        self.num_events = 0
        self._parts: dict[str, list[dict[str, np.ndarray[Any, Any]]]] = defaultdict(list)
        _ = self.texts[b""]  # number 0: nothing was said

    def add(self, events: Sequence[Event]) -> None:
        """The events of one piece."""
        self.num_events += len(events)
        by_category: dict[str, list[Event]] = defaultdict(list)
        rest = []
        num_arrows = 0
        for event in events:
            if event.ph == "X":
                by_category[event.cat].append(event)
            elif event.cat in _ARROWS:
                num_arrows += 1
            else:
                rest.append(event)
        if num_arrows:
            self.notes.add("left out: arrows from launch to kernel", count=num_arrows)
        for category, found in by_category.items():
            kind = _KINDS.get(category, "others")
            if kind == "modules":
                found = self._modules(found)
            self._gather(kind, category, found)
        self._gather("messages", "", [event for event in by_category["cpu_op"] if event.name == NCCL_MESSAGE])
        self._gather("messages", "", [event for event in by_category["user_annotation"] if event.name[:5] == GLOO])
        self._gather("allocations", "", [event for event in rest if event.name == "[memory]"])
        self._gather("flows", "", [event for event in rest if event.cat == "fwdbwd" and event.ph in "sf"])
        self._note_rest(rest)

    def trace(self, metadata: dict[str, Any]) -> Trace:
        """All that was added, by start, outer before inner, from the first event's microsecond on."""
        tables = {kind: _concatenated(kind, self._parts[kind]) for kind in _CLASSES}
        self._move_module_ranges(tables)
        starts = [table["start_ns"].min() for table in tables.values() if len(table["start_ns"])]
        origin = int(min(starts, default=0)) // 1000
        ordered = {kind: _in_order(_CLASSES[kind], table, origin * 1000) for kind, table in tables.items()}
        return Trace(
            **ordered,  # type: ignore[arg-type]
            names=list(self.names),
            texts=list(self.texts),
            threads=list(self.threads),
            metadata=metadata,
            processes=self.processes,
            origin_us=origin,
            notes=self.notes,
            num_events=self.num_events,
        )

    def _move_module_ranges(self, tables: dict[str, dict[str, np.ndarray[Any, Any]]]) -> None:
        """The ranges that our traced pass opens around modules are made the fast way, which kineto calls operators."""
        ops, ranges = tables["ops"], tables["ranges"]
        ours = np.array([name.startswith(MODULE) for name in self.names], dtype=bool)
        if ours.any():
            is_range = ours[ops["name"]]
            tables["ranges"] = {name: np.concatenate((ranges[name], ops[name][is_range])) for name in ranges}
            tables["ops"] = {name: column[~is_range] for name, column in ops.items()}

    def _modules(self, found: list[Event]) -> list[Event]:
        """Of Python's calls only those that name a module: the others are half of all rows, and no view needs them."""
        kept = [event for event in found if event.name.startswith("nn.Module: ")]
        if len(kept) < len(found):
            self.notes.add("left out: Python calls that are no module", count=len(found) - len(kept))
        return kept

    def _note_rest(self, rest: Sequence[Event]) -> None:
        for event in rest:
            if event.ph == "M":
                self._note_process(event)
            elif event.name != "[memory]" and event.cat != "fwdbwd":
                what = _IGNORED.get(event.ph, f"events of the unknown type {event.ph!r}")
                self.notes.add(f"left out: {what}", event.name)

    def _note_process(self, event: Event) -> None:
        if event.name in ("process_name", "process_labels"):
            said = event.args.name or event.args.labels
            self.processes.setdefault(event.pid, {})[event.name.removeprefix("process_")] = said

    def _gather(self, kind: str, category: str, events: list[Event]) -> None:
        if not events:
            return
        start, is_known = _start_ns(events)
        if not is_known.all():
            self.notes.add("dropped: events without a time", category, int((~is_known).sum()))
            events = [event for event, known in zip(events, is_known, strict=True) if known]
            start = start[is_known]
        args = [event.args for event in events]
        part = {
            "start_ns": start,
            "duration_ns": self._durations(events),
            "thread": _codes(self.threads, zip(_each(events, "pid"), _each(events, "tid"), strict=True), len(events)),
        }
        for name in _NUMBERS[kind]:
            part[name] = self._numbers(name, args)
        for name in _TEXTS.get(kind, ()):
            as_bytes = str.encode if name in ("collective", "dtype") else bytes
            part[name] = _codes(self.texts, map(as_bytes, _each(args, name)), len(args))
        if "name" in _CLASSES[kind].__dataclass_fields__:
            part["name"] = _codes(self.names, _each(events, "name"), len(events))
        part |= self._special(kind, category, events, args)
        self._parts[kind].append(part)

    def _special(self, kind: str, category: str, events: list[Event], args: list[Args]) -> dict[str, Any]:
        """What a kind of event has beside plain numbers and texts."""
        if kind == "device":
            return {"kind": np.full(len(events), _DEVICE_KIND.get(category, 0))}
        if kind == "others":
            return {"category": np.full(len(events), self.names[category])}
        if kind == "allocations":
            return {"num_bytes": self._numbers("allocated_bytes", args), "device": self._numbers("device_id", args)}
        if kind == "flows":
            is_end = [int(event.ph == "f") for event in events]
            flow = np.fromiter(map(_wrapped, _each(events, "id")), np.int64, len(events))
            return {"flow": flow, "is_end": np.array(is_end, np.int64)}
        return {}

    def _durations(self, events: list[Event]) -> np.ndarray[Any, Any]:
        micros = np.fromiter(_each(events, "dur"), np.float64, len(events))
        if (bad := ~(micros >= 0)).any():
            self.notes.add("repaired: durations below zero or missing set to zero", count=int(bad.sum()))
            micros[bad] = 0
        return _to_ns(micros)

    def _numbers(self, name: str, args: Sequence[Args]) -> np.ndarray[Any, Any]:
        if name in FLOATS:
            return np.fromiter(_each(args, name), np.float64, len(args))
        try:
            return np.fromiter(_each(args, name), np.int64, len(args))
        except (TypeError, ValueError, OverflowError):
            self.notes.add(f"repaired: a {name} that is no number of 64 bits")
            return np.fromiter(map(_wrapped, _each(args, name)), np.int64, len(args))


def _each(items: Sequence[Any], name: str) -> Iterable[Any]:
    return map(attrgetter(name), items)


def _codes(codes: Codes, values: Iterable[Any], count: int) -> np.ndarray[Any, Any]:
    lookup: Callable[[Any], int] = codes.__getitem__
    return np.fromiter(map(lookup, values), np.int64, count)


def _wrapped(value: Any) -> int:
    """A number's lower 64 bits, which still tell ids apart; -1 for what is no number (as the legacy stream's name)."""
    try:
        return (int(value) + 2**63) % 2**64 - 2**63
    except (TypeError, ValueError, OverflowError):
        return -1


def _start_ns(events: Sequence[Event]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Starts in nanoseconds, and which of them are known."""
    if isinstance(events[0].ts, Decimal):
        known = np.array([event.ts.is_finite() for event in events])  # type: ignore[union-attr]
        exact = (int(event.ts * 1000) if fine else 0 for event, fine in zip(events, known, strict=True))
        return np.fromiter(exact, np.int64, len(events)), known
    micros = np.fromiter(_each(events, "ts"), np.float64, len(events))
    known = np.isfinite(micros) & (np.abs(micros) < 9e15)
    return _to_ns(np.where(known, micros, 0)), known


def _to_ns(micros: Floats) -> Ints:
    """Exact: a double holds the thousandths of microseconds that kineto writes, but not a thousand times the number."""
    whole = np.floor(micros)
    nanos: Ints = whole.astype(np.int64) * 1000 + np.rint((micros - whole) * 1000).astype(np.int64)
    return nanos


def _concatenated(kind: str, parts: Sequence[dict[str, np.ndarray[Any, Any]]]) -> dict[str, np.ndarray[Any, Any]]:
    names = list(_CLASSES[kind].__dataclass_fields__)
    if not parts:
        return {name: np.empty(0, np.float64 if name in FLOATS else np.int64) for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _in_order(table: type[Columns], columns: dict[str, np.ndarray[Any, Any]], origin_ns: int) -> Columns:
    order = np.lexsort((-columns["duration_ns"], columns["start_ns"]))  # stable: ties stay in the file's order
    ordered = {name: column[order] for name, column in columns.items()}
    ordered["start_ns"] = ordered["start_ns"] - origin_ns
    return table(**ordered)


assert len(DEVICE_KINDS) == 1 + max(_DEVICE_KIND.values())
