"""Messages: what a rank sent in its traced steps, and how much of that time nothing else was done.

NCCL's transfers are kernels, its messages the record_param_comms operators that launch them; gloo's are named ranges
(gloo:all_reduce) that hold both. Exposed is what the union of transfers adds to the union of all other work. Wait is
the exposed part of a transfer before the last rank joined it: its duration above that of the rank where it took the
least (the definition of torch-tb-profiler's distributed view), since a transfer ends on all ranks at about once.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Bools, Ints, Trace
from profiler.traces.intervals import Union
from profiler.traces.products import item_bytes
from profiler.traces.words import GLOO

COMMUNICATION = CATEGORIES.index("communication")
_ON_HOST = re.compile(r"^_?c10d")  # operators that start transfers or wait for them
_KINDS = (
    ("all_reduce", re.compile(r"all_?reduce", re.I)),
    ("all_gather", re.compile(r"all_?gather", re.I)),
    ("reduce_scatter", re.compile(r"reduce_?scatter", re.I)),
    ("broadcast", re.compile(r"broadcast", re.I)),
    ("send_recv", re.compile(r"SendRecv")),  # NCCL's kernel; both ends of a message have the same
    ("send", re.compile(r"^send$")),
    ("recv", re.compile(r"^recv$")),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One collective, send or receive of this rank; num_bytes is what this rank gives to it (recv: gets), if known."""

    kind: str
    num_bytes: int | None
    phase: str | None = None

    def sent_bytes(self, world_size: int) -> float | None:
        """Bytes that a rank sends for it in a ring of world_size."""
        return None if self.num_bytes is None else self.num_bytes * (ring_share(self.kind, world_size) or 0.0)


def ring_share(kind: str | None, world_size: int) -> float | None:
    """Bytes that a rank sends in a ring per byte that it gives; None for what is no such message (recv, a wait)."""
    others = world_size - 1
    share = {
        "all_reduce": 2 * others / world_size,  # reduce-scatter, then all-gather
        "reduce_scatter": others / world_size,
        "all_gather": others,  # of its own part
        "broadcast": others / world_size,
        "send": 1.0,
    }
    return share.get(kind or "")


@dataclass(frozen=True)
class Transfers:
    """The stretches of time in which messages were under way on this rank, in order of start."""

    kinds: tuple[str, ...]
    start_ns: Ints
    end_ns: Ints

    @property
    def durations(self) -> list[tuple[str, int]]:
        """What the other ranks must know to judge who waited."""
        return list(zip(self.kinds, (self.end_ns - self.start_ns).tolist(), strict=True))


def messages_of(found: Attribution) -> list[Message]:
    """What this rank sent and received in the traced steps, in order of time."""
    trace = found.trace
    inside = trace.messages.take(found.steps.at(trace.messages.start_ns) >= 0)
    phases = found.phases.outer(inside.start_ns).tolist()
    columns = (inside.name, inside.dims, inside.types, inside.collective, inside.dtype, inside.message_elements)
    messages = []
    for phase, name, dims, types, collective, dtype, elements in zip(
        phases, *(column.tolist() for column in columns), strict=True
    ):
        said = trace.names[name]
        if said.startswith(GLOO):
            kind, size = kind_of(said.removeprefix(GLOO)), _gloo_bytes(trace, dims, types)
        else:
            kind = kind_of(trace.texts[collective].decode())
            size = elements * item_bytes(trace.texts[dtype].decode()) or None
        if kind is not None:
            messages.append(Message(kind, size, found.phases.names[phase] if phase >= 0 else None))
    return messages


def transfers_of(found: Attribution) -> Transfers:
    """The time that messages took on this rank, from NCCL's kernels or gloo's ranges."""
    trace, work = found.trace, found.traced
    if found.on_gpu:
        own = work.take(work.category == COMMUNICATION)
        names = [trace.names[code] for code in own.name.tolist()]
        kinds, start, end = [kind_of(name) or "other" for name in names], own.start_ns, own.end_ns
    else:
        messages = trace.messages.take(found.steps.at(trace.messages.start_ns) >= 0)
        names = [trace.names[code].removeprefix(GLOO) for code in messages.name.tolist()]
        kinds, start, end = [kind_of(name) or "other" for name in names], messages.start_ns, messages.end_ns
    order = np.argsort(start, kind="stable")
    return Transfers(tuple(kinds[index] for index in order.tolist()), start[order], end[order])


def work_of(found: Attribution) -> Union:
    """When this rank computed: its kernels but for messages and copies; on a CPU its outermost operators less those
    about messages."""
    if found.on_gpu:
        work = found.traced
        work = work.take((work.category != COMMUNICATION) & (work.category != CATEGORIES.index("memcpy")))
        return Union.of(work.start_ns, work.end_ns)
    ops, inside = found.trace.ops, found.op_step >= 0
    about_messages = _named(found.trace, _ON_HOST)[ops.name] if len(ops) else inside
    outer = ops.take(inside & (found.nesting.parent < 0) & ~about_messages)
    talk = ops.take(inside & about_messages)
    return Union.of(outer.start_ns, outer.end_ns).minus(Union.of(talk.start_ns, talk.end_ns))


def exposed_ns(start: Ints, end: Ints, work: Union) -> int:
    """Length of the stretches' union outside of work."""
    return Union.of(start, end).minus(work).total_ns


def joined_ns(own: Transfers, of_all_ranks: Sequence[Sequence[tuple[str, int]]]) -> Ints | None:
    """When the last rank joined each own transfer; None where the ranks' transfers do not match.

    of_all_ranks: every rank's Transfers.durations; the n-th of a kind is the same one everywhere.
    """
    per_rank = [_by_kind(durations) for durations in of_all_ranks]
    counts = [{kind: len(found) for kind, found in one.items()} for one in per_rank]
    if any(one != counts[0] for one in counts):
        return None
    seen: dict[str, int] = {}
    least = []
    for kind in map(_pair, own.kinds):
        index = seen[kind] = seen.get(kind, -1) + 1
        least.append(min(one[kind][index] for one in per_rank))
    return own.end_ns - np.array(least, np.int64)


def _by_kind(durations: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for kind, duration in durations:
        found.setdefault(_pair(kind), []).append(duration)
    return found


def _pair(kind: str) -> str:
    """What one rank sends another receives: the same transfer."""
    return "send_recv" if kind in ("send", "recv") else kind


def kind_of(name: str) -> str | None:
    """What a collective or its kernel does, by its name; None for what sends nothing (a wait, a barrier)."""
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), None)


def _named(trace: Trace, pattern: re.Pattern[str]) -> Bools:
    return np.array([bool(pattern.search(name)) for name in trace.names], dtype=bool)


def _gloo_bytes(trace: Trace, dims: int, types: int) -> int | None:
    shapes, kinds = (msgspec.json.decode(trace.texts[code]) if code else [] for code in (dims, types))
    known = [(shape, item_bytes(str(kind))) for shape, kind in zip(shapes, kinds, strict=False)]
    sizes = [math.prod(shape) * size if size else 0 for shape, size in known]
    return sum(sizes) if all(sizes) else None
