"""Hand-made traces: a small language for tests of profiler/traces. Times are nanoseconds."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.columns import Trace
from profiler.traces.read import read_trace
from profiler.traces.words import MODULE, PHASE, STEP

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SDPA = GOLDEN / "sd15_inference_bf16_sdpa.pt.trace.json.gz"
CHANNELS_LAST = GOLDEN / "sd15_inference_bf16_sdpa_channels_last.pt.trace.json.gz"
_STUDIES = ROOT / "runs" / "reference"
(EAGER,) = _STUDIES.glob("*/*-9d90b4e9-30be21/*.pt.trace.json.gz")  # the inference study's baseline: fp32, math
(COMPILED,) = _STUDIES.glob("*/*-bf9edeaa-a6f4b3/*.pt.trace.json.gz")  # its fastest run: reduce_overhead, CUDA graphs
(TRAIN,) = _STUDIES.glob("*/*-4049ddcc-7556ce/*.pt.trace.json.gz")  # a compiled training step
RECORDED = (SDPA, CHANNELS_LAST, EAGER, COMPILED, TRAIN)

Row = dict[str, Any]


@cache  # read when the first test asks: every worker of xdist collects every file
def recorded(file: Path) -> Attribution:
    """A recorded trace, read and attributed."""
    return attribute(read_trace(file))


def event(category: str, name: str, start: int, end: int, *, thread: int | str = 1, **args: Any) -> Row:
    times = {"ts": start / 1000, "dur": (end - start) / 1000}
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": thread, **times, "args": _spelled(args)}


def _spelled(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments by kineto's names; None is left out."""
    spelling = {
        "external": "External id",
        "dims": "Input Dims",
        "strides": "Input Strides",
        "types": "Input type",
        "concrete": "Concrete Inputs",
        "sequence": "Sequence number",
        "forward_thread": "Fwd thread id",
    }
    return {spelling.get(name, name): value for name, value in args.items() if value is not None}


def step(start: int, end: int, name: str = STEP) -> Row:
    return event("user_annotation", name, start, end)


def phase(name: str, start: int, end: int) -> Row:
    return event("user_annotation", PHASE + name, start, end)


def module(path: str, start: int, end: int, **args: Any) -> Row:
    return event("user_annotation", MODULE + path, start, end, **args)


def op(name: str, start: int, end: int, **args: Any) -> Row:
    return event("cpu_op", name, start, end, **args)


def launch(correlation: int, at: int, *, name: str = "cudaLaunchKernel", until: int | None = None, **args: Any) -> Row:
    category = "cuda_driver" if name.startswith("cu") and name[2].isupper() else "cuda_runtime"
    return event(category, name, at, until or at + 1, correlation=correlation, **args)


def kernel(name: str, start: int, end: int, *, kind: str = "kernel", stream: int = 7, **args: Any) -> Row:
    return event(kind, name, start, end, thread=stream, stream=stream, device=0, **args)


def allocation(address: int, num_bytes: int, at: int, *, device: int = 1, reserved: int = 0, total: int = 0) -> Row:
    """Bytes asked for, or given back where they are negative."""
    args = {"Addr": address, "Bytes": num_bytes, "Device Type": device}
    args |= {"Total Reserved": reserved, "Total Allocated": total}
    return {
        "ph": "i",
        "cat": "cpu_instant_event",
        "name": "[memory]",
        "pid": 1,
        "tid": 1,
        "ts": at / 1000,
        "args": args,
    }


def read(*rows: Row, **metadata: Any) -> Trace:
    """Rows as a trace, through a file."""
    return read_text(json.dumps({"schemaVersion": 1, **metadata, "traceEvents": rows}))


def read_text(text: str | bytes) -> Trace:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_trace(file)


def attributed(*rows: Row, **metadata: Any) -> Attribution:
    """Rows in their places. Times count from the first row's microsecond."""
    return attribute(read(*rows, **metadata))
