"""Parse: a kineto trace file to typed events, in nanoseconds from the trace's first event.

No torch here. The format and its traps: libkineto/src/output_json.cpp; times are microseconds with three decimals.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import msgspec

DEVICE_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCH_CATEGORIES = ("cuda_runtime", "cuda_driver")  # Triton and cuBLASLt launch through the driver API


class Args(msgspec.Struct, gc=False):
    """The arguments that Steplens reads; kineto leaves out what does not apply."""

    correlation: int | None = None
    stream: int | str | None = None
    external_id: int | None = msgspec.field(default=None, name="External id")
    input_dims: Any = msgspec.field(default=None, name="Input Dims")
    input_type: Any = msgspec.field(default=None, name="Input type")
    input_strides: Any = msgspec.field(default=None, name="Input Strides")
    num_bytes: int | None = msgspec.field(default=None, name="Bytes")
    address: int | None = msgspec.field(default=None, name="Addr")
    device_type: int | None = msgspec.field(default=None, name="Device Type")
    total_reserved: int | None = msgspec.field(default=None, name="Total Reserved")


class _Raw(msgspec.Struct, gc=False):
    ph: str
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    tid: int | str = 0
    args: Args | None = None


class _File(msgspec.Struct, gc=False):
    events: list[_Raw] = msgspec.field(name="traceEvents")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One duration (or instant: duration_ns is 0) of the trace."""

    category: str
    name: str
    start_ns: int
    duration_ns: int
    thread: int | str
    args: Args

    @property
    def end_ns(self) -> int:
        return self.start_ns + self.duration_ns


NO_ARGS = Args()


def read_events(path: Path) -> list[Event]:
    """All durations and instants of a trace, in order of start, outer before inner.

    Raises ValueError naming the file when it is no kineto trace.
    """
    content = path.read_bytes()
    try:
        data = gzip.decompress(content) if path.suffix == ".gz" else content
        raw = msgspec.json.decode(data, type=_File).events
    except (msgspec.DecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:  # the last three: a file cut short
        raise ValueError(f"{path.name} is no kineto trace: {error}") from error
    kept = [event for event in raw if event.ph in "Xi" and event.cat]
    origin = min((event.ts for event in kept), default=0.0)
    events = [
        Event(
            category=event.cat,
            name=event.name,
            start_ns=round((event.ts - origin) * 1e3),
            duration_ns=round(event.dur * 1e3),
            thread=event.tid,
            args=event.args or NO_ARGS,
        )
        for event in kept
    ]
    return sorted(events, key=lambda event: (event.start_ns, -event.duration_ns))
