"""Raw: one event as the file has it, typed, with the fields that Steplens reads (libkineto/src/output_json.cpp)."""

import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from profiler.traces.columns import Notes

Id = int | str
NOTHING = msgspec.Raw()


def _named(name: str, default: Any = -1) -> Any:
    return msgspec.field(default=default, name=name)


class Args(msgspec.Struct, gc=False, frozen=True):
    """What stands under `args`; kineto leaves out what does not apply."""

    external_id: int = _named("External id")
    correlation: int = -1
    # operators
    dims: msgspec.Raw = _named("Input Dims", NOTHING)
    strides: msgspec.Raw = _named("Input Strides", NOTHING)
    types: msgspec.Raw = _named("Input type", NOTHING)
    concrete: msgspec.Raw = _named("Concrete Inputs", NOTHING)
    sequence: int = _named("Sequence number")
    forward_thread: int = _named("Fwd thread id")
    # device work
    device: Id = -1
    stream: Id = -1
    grid: msgspec.Raw = NOTHING
    block: msgspec.Raw = NOTHING
    registers: int = _named("registers per thread")
    shared_bytes: int = _named("shared memory")
    occupancy: float = _named("est. achieved occupancy %", math.nan)
    blocks_per_sm: float = _named("blocks per SM", math.nan)
    warps_per_sm: float = _named("warps per SM", math.nan)
    graph_node: int = _named("graph node id")
    num_bytes: int = _named("bytes")
    bandwidth_gbs: float = _named("memory bandwidth (GB/s)", math.nan)
    collective: str = _named("Collective name", "")
    dtype: str = ""
    message_elements: int = _named("In msg nelems")
    group_size: int = _named("Group size")
    # synchronisation
    wait_stream: Id = _named("wait_on_stream")
    wait_correlation: int = _named("wait_on_cuda_event_record_corr_id")
    wait_event: int = _named("wait_on_cuda_event_id")
    event: int = _named("event_id")
    # the allocator
    allocated_bytes: int = _named("Bytes", 0)
    address: int = _named("Addr")
    device_type: int = _named("Device Type")
    device_id: int = _named("Device Id")
    total_allocated: int = _named("Total Allocated")
    total_reserved: int = _named("Total Reserved")
    # metadata events
    name: str = ""
    labels: str = ""


NO_ARGS = Args()


class Raw(msgspec.Struct, gc=False):
    """One entry of traceEvents; times are microseconds with three decimals."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: Id = -1
    tid: Id = -1
    ts: float = math.nan
    dur: float = 0.0
    id: Id = -1
    args: Args = NO_ARGS


class Exact(msgspec.Struct, gc=False):
    """The same with all digits of the time."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: Id = -1
    tid: Id = -1
    ts: Decimal = Decimal("NaN")
    dur: float = 0.0
    id: Id = -1
    args: Args = NO_ARGS


class Loose(msgspec.Struct, gc=False):
    """The same with whatever types the file has."""

    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    pid: Any = -1
    tid: Any = -1
    ts: Any = None
    dur: Any = 0.0
    id: Any = -1
    args: Any = None


_TYPES: dict[str, Any] = {one.encode_name: one for one in msgspec.structs.fields(Args)}


def tighten(event: Loose, notes: Notes, time: Callable[[Any], Any]) -> Raw | Exact:
    """An event of the right types; a value that does not convert counts as missing."""
    args: dict[str, Any] = {}
    for key, value in (event.args if isinstance(event.args, dict) else {}).items():
        if key in _TYPES and (right := _converted(value, _TYPES[key].type)) is not None:
            args[_TYPES[key].name] = right
        elif key in _TYPES and value is not None:
            notes.add("repaired: a value of an unexpected type left out", f"{key}: {value}")
    kind = Exact if time is Decimal else Raw
    return kind(
        ph=str(event.ph),
        cat=str(event.cat or ""),
        name=str(event.name),
        pid=_id(event.pid),
        tid=_id(event.tid),
        ts=_number(event.ts, time),
        dur=_number(event.dur, float),
        id=_id(event.id),
        args=Args(**args) if args else NO_ARGS,
    )


def _converted(value: Any, wanted: Any) -> Any:
    if wanted is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))
    if wanted is str:
        return str(value) if value is not None else None
    if wanted is float:
        number = _number(value, float)
        return None if math.isnan(number) else number
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return str(value) if wanted == Id and value is not None else None


def _id(value: Any) -> Id:
    return value if isinstance(value, int | str) else str(value)


def _number(value: Any, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(str(value) if convert is Decimal else value)
    except (TypeError, ValueError, InvalidOperation):
        return convert("nan")
