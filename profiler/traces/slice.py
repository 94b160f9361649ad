"""Slice: one step of a trace, or one module's calls in it, as a small trace of its own that other tools open, too.

The file is read twice: into columns, which tell what belongs to the slice, and again event by event, so that what is
kept stays as the profiler wrote it. What the reader must repair is repaired in the slice; what it drops is not in it.
"""

import gzip
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from profiler.traces.attribute import attribute
from profiler.traces.columns import ONLY_MODULE, Notes, Trace
from profiler.traces.compiled import keep_only
from profiler.traces.cut import Cut, Thread, cut_out
from profiler.traces.decode import mend, up_to_end
from profiler.traces.gather import ARROWS, KINDS
from profiler.traces.pieces import BOUNDARY, decode_stream
from profiler.traces.read import read_trace
from profiler.traces.source import read_pieces
from profiler.traces.words import MODULE

_RAW = msgspec.json.Decoder(list[msgspec.Raw])
_AROUND = ("user_annotation", "python_function")


class _Args(msgspec.Struct, gc=False):
    correlation: Any = -1


class _Event(msgspec.Struct, gc=False):
    """What tells whether an event belongs to a slice."""

    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    pid: Any = -1
    tid: Any = -1
    ts: Decimal | None = None
    dur: Decimal | None = None
    id: Any = -1
    args: _Args = msgspec.field(default_factory=_Args)


_EVENT = msgspec.json.Decoder(_Event)


class _Start(msgspec.Struct, gc=False):
    """What tells that most events do not, at a tenth of the cost. A double is exact enough to begin with."""

    ph: Any = ""
    ts: float | None = None


_STARTS = msgspec.json.Decoder(list[_Start])
_MARGIN_US = 2.0  # times since 1970 are a quarter of a microsecond apart as doubles


def write_slice(
    source: Path, target: Path, *, step: int, module: str | None = None, max_bytes: int | None = None
) -> int:
    """Write the slice as a packed trace; returns its number of events.

    Raises ValueError for a step or module that the trace does not have, and where the file is no trace.
    """
    found = attribute(read_trace(source, max_bytes=max_bytes))
    cut = cut_out(found, step, module)
    if module is not None:
        found.trace.metadata[ONLY_MODULE] = module
        keep_only(found.trace, module)
    with target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        what = f"step {step}" + (f" of {source.name}" if module is None else f", module {module} of {source.name}")
        return _write(packed, found.trace, _kept(source, found.trace, cut), what)


def _write(packed: Any, trace: Trace, events: Iterator[bytes], what: str) -> int:
    metadata = {key: value for key, value in trace.metadata.items() if key not in ("traceEvents", "traceName")}
    head = msgspec.json.encode({"schemaVersion": 1} | metadata | {"traceName": f"{what} (cut out by Steplens)"})
    file: BinaryIO = packed
    file.write(head[:-1] + b',"traceEvents":[\n')
    num_events = 0
    for number, event in enumerate(events, start=1):
        file.write((b",\n" if number > 1 else b"") + event)
        num_events = number
    file.write(b"\n]}\n")
    return num_events


def _kept(source: Path, trace: Trace, cut: Cut) -> Iterator[bytes]:
    """The slice's events in the file's order, arrows last, and only whole ones."""
    kept: list[bytes] = []
    arrows: dict[Any, dict[str, bytes]] = {}
    first, last = (moment / 1000 + trace.origin_us for moment in cut.window)

    def may_belong(event: _Start) -> bool:
        return event.ph == "M" or (event.ts is not None and first - _MARGIN_US <= event.ts <= last + _MARGIN_US)

    def look(data: bytes | memoryview) -> bytes | None:
        events, rest = _raw_events(bytes(data), may_belong)
        for raw in events:
            event = _decoded(raw)
            if event is None or not _belongs(event, trace, cut):
                continue
            if event.ph in ("s", "f"):
                arrows.setdefault((event.cat, event.id), {}).setdefault(event.ph, raw)
            else:
                kept.append(raw)
        return rest

    notes = Notes()
    decode_stream(read_pieces(source, notes), look, notes)
    yield from kept
    for ends in arrows.values():
        if len(ends) == 2:
            yield from (ends["s"], ends["f"])


def _raw_events(data: bytes, may_belong: Callable[[_Start], bool]) -> tuple[list[bytes], bytes | None]:
    """The texts of those events of a piece that may belong to the slice, mended where JSON needs it; and what follows
    their list where it ends here."""
    try:
        return _list_of(data, may_belong)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = mend(data.strip(b" \t\r\n,"), Notes())
    try:
        return _list_of(text, may_belong)
    except msgspec.DecodeError:
        return _one_by_one(text, may_belong)


def _one_by_one(text: bytes, may_belong: Callable[[_Start], bool]) -> tuple[list[bytes], bytes | None]:
    """The same, event by event; what cannot be read is left out, as the reader has counted it as dropped."""
    found: list[bytes] = []
    cuts = [0, *(cut.end() for cut in BOUNDARY.finditer(text)), len(text)]
    for start, end in pairwise(cuts):
        try:
            events, rest = _list_of(text[start:end].rstrip(b" ,\n"), may_belong)
        except msgspec.DecodeError:
            continue
        found += events
        if rest is not None:
            return found, rest + text[end:]
    return found, None


def _list_of(data: bytes, may_belong: Callable[[_Start], bool]) -> tuple[list[bytes], bytes | None]:
    data.decode()
    found, rest = up_to_end(data, _RAW.decode)
    try:
        starts, _ = up_to_end(data, _STARTS.decode)
    except msgspec.DecodeError:  # a time that is no number: look at each event
        return [bytes(raw) for raw in found], rest
    return [bytes(raw) for raw, start in zip(found, starts, strict=True) if may_belong(start)], rest


def _decoded(raw: bytes) -> _Event | None:
    """What an event says of itself; None where it has no time that can be compared."""
    try:
        return _EVENT.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _belongs(event: _Event, trace: Trace, cut: Cut) -> bool:
    if event.ph == "M":
        return True  # names of processes and threads
    if event.ts is None or not event.ts.is_finite():
        return False
    thread: Thread = (event.pid, event.tid)
    start = round(event.ts * 1000) - trace.origin_us * 1000
    end = start + round(event.dur * 1000 if event.dur is not None and event.dur > 0 else 0)
    if event.ph in ("s", "t", "f"):
        return event.id in cut.correlations if event.cat in ARROWS else cut.is_inside(thread, start, start)
    if event.ph == "X" and KINDS.get(event.cat) == "device":
        return (start, event.args.correlation) in cut.kernels
    if thread not in cut.host_threads:
        return event.cat != "Trace" and cut.device[0] <= start and end <= cut.device[1]
    return cut.is_inside(thread, start, end) or (event.ph == "X" and _is_part(event, thread, start, end, cut))


def _is_part(event: _Event, thread: Thread, start: int, end: int, cut: Cut) -> bool:
    """Launches of the slice's kernels, wherever they stand, and the ranges around it."""
    if KINDS.get(event.cat) == "launches":
        return event.args.correlation in cut.correlations
    is_range = event.cat in _AROUND or str(event.name).startswith(MODULE)
    return is_range and cut.is_around(thread, start, end)
