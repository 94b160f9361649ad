"""Gather: typed events into columns, piece by piece, by kind of event."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from profiler.traces.columns import (
    DEVICE_KINDS,
    FLOATS,
    Allocations,
    Columns,
    DeviceWork,
    Flows,
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
from profiler.traces.vectors import LONGEST_US, Codes, codes, each, start_ns, to_ns, wrapped
from profiler.traces.words import GLOO, MODULE, NCCL_MESSAGE

KINDS = {
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
    "syncs": (
        *("external_id", "device", "stream", "correlation", "wait_stream", "wait_correlation", "wait_event", "event"),
    ),
    "flows": (),
    "others": ("external_id",),
}
_TEXTS = {
    "ops": ("dims", "strides", "types", "concrete"),
    "messages": ("dims", "types", "collective", "dtype"),
    "device": ("grid", "block", "collective", "dtype"),
}
ARROWS = ("ac2g", "async_cpu_to_gpu", "async_gpu")
_IGNORED = {"s": "other arrows", "t": "other arrows", "f": "other arrows", "C": "counters", "i": "instants"}


Table = dict[str, np.ndarray[Any, Any]]  # a column per name


class Gatherer:
    """Collects the columns of every piece, and puts them in order at the end."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.names, self.texts, self.threads = Codes(), Codes(), Codes()
        self.processes: dict[int | str, dict[str, str]] = {}
        self.num_events = 0
        self._parts: dict[str, list[Table]] = defaultdict(list)
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
            elif event.cat in ARROWS:
                num_arrows += 1
            else:
                rest.append(event)
        if num_arrows:
            self.notes.add("left out: arrows from launch to kernel", count=num_arrows)
        for category, found in by_category.items():
            kind = KINDS.get(category, "others")
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
        starts = [part["start_ns"].min() for parts in self._parts.values() for part in parts]
        origin = int(min(starts, default=0)) // 1000
        ordered, module_ranges = {}, _concatenated("ranges", [])
        for kind, columns in _CLASSES.items():  # one by one: the pieces of a table and the whole are there at a time
            table = _concatenated(kind, self._parts.pop(kind, []))
            if kind == "ops":
                table, module_ranges = self._without_module_ranges(table)
            elif kind == "ranges":
                table = {name: np.concatenate((table[name], module_ranges[name])) for name in table}
            ordered[kind] = _in_order(columns, table, origin * 1000)
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

    def _without_module_ranges(self, ops: Table) -> tuple[Table, Table]:
        """Operators, and the ranges that our traced pass opens around modules: kineto calls the fast kind operators."""
        ours = np.array([name.startswith(MODULE) for name in self.names] or [False], dtype=bool)
        is_range = ours[ops["name"]]
        ranges = {name: ops[name][is_range] for name in Ranges.__dataclass_fields__}
        return {name: column[~is_range] for name, column in ops.items()} if len(ranges["name"]) else ops, ranges

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
                if event.cat not in ("", "__metadata"):
                    self.notes.add("left out: metadata that says it is an event", f"{event.cat}: {event.name}")
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
        start, is_known = start_ns(events)
        if not is_known.all():
            self.notes.add("dropped: events without a time", category, int((~is_known).sum()))
            events = [event for event, known in zip(events, is_known, strict=True) if known]
            start = start[is_known]
            if not events:
                return
        args = [event.args for event in events]
        part = {
            "start_ns": start,
            "duration_ns": self._durations(events),
            "thread": codes(self.threads, zip(each(events, "pid"), each(events, "tid"), strict=True), len(events)),
        }
        for name in _NUMBERS[kind]:
            part[name] = self._numbers(name, args)
        for name in _TEXTS.get(kind, ()):
            as_bytes = str.encode if name in ("collective", "dtype") else bytes
            part[name] = codes(self.texts, map(as_bytes, each(args, name)), len(args))
        if "name" in _CLASSES[kind].__dataclass_fields__:
            part["name"] = codes(self.names, each(events, "name"), len(events))
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
            flow = np.fromiter(map(wrapped, each(events, "id")), np.int64, len(events))
            return {"flow": flow, "is_end": np.array(is_end, np.int64)}
        return {}

    def _durations(self, events: list[Event]) -> np.ndarray[Any, Any]:
        micros = np.fromiter(each(events, "dur"), np.float64, len(events))
        if (bad := ~((micros >= 0) & (micros < LONGEST_US))).any():
            self.notes.add("repaired: durations that cannot be (below zero, missing) set to zero", count=int(bad.sum()))
            micros[bad] = 0
        return to_ns(micros)

    def _numbers(self, name: str, args: Sequence[Args]) -> np.ndarray[Any, Any]:
        if name in FLOATS:
            return np.fromiter(each(args, name), np.float64, len(args))
        try:
            return np.fromiter(each(args, name), np.int64, len(args))
        except (TypeError, ValueError, OverflowError):
            self.notes.add(f"repaired: a {name} that is no number of 64 bits")
            return np.fromiter(map(wrapped, each(args, name)), np.int64, len(args))


def _concatenated(kind: str, parts: Sequence[Table]) -> Table:
    names = list(_CLASSES[kind].__dataclass_fields__)
    if not parts:
        return {name: np.empty(0, np.float64 if name in FLOATS else np.int64) for name in names}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _in_order(table: type[Columns], columns: Table, origin_ns: int) -> Columns:
    order = np.lexsort((-columns["duration_ns"], columns["start_ns"]))  # stable: ties stay in the file's order
    ordered = {name: column[order] for name, column in columns.items()}
    ordered["start_ns"] = ordered["start_ns"] - origin_ns
    return table(**ordered)


assert len(DEVICE_KINDS) == 1 + max(_DEVICE_KIND.values())
