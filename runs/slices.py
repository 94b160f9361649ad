"""Slices: one step of a run's trace, or one module in it, as a small trace to pass on."""

import os
import tempfile
from pathlib import Path

from profiler.record import TRACE_SUFFIX, Record
from runs.trace_worker import LIMITS, Limits, TraceError, run_worker, trace_of

__all__ = ["TraceError", "slice_bytes", "slice_name", "write_slice"]


def write_slice(
    folder: Path, output: Path, *, step: int = 0, module: str | None = None, limits: Limits = LIMITS
) -> int:
    """Write the slice of a run folder's trace to `output`; its number of events. Raises TraceError with the remedy."""
    trace = trace_of(Record.read(folder), folder)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    options = ["--step", str(step), *(["--module", module] if module is not None else [])]
    try:
        answer = run_worker("slice", trace.absolute(), temporary.absolute(), options, limits, trace.name)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return int(answer["num_events"])


def slice_bytes(folder: Path, *, step: int = 0, module: str | None = None) -> bytes:
    """The slice itself, for a download."""
    with tempfile.TemporaryDirectory(prefix="steplens-slice-") as place:
        output = Path(place) / f"slice{TRACE_SUFFIX}"
        write_slice(folder, output, step=step, module=module)
        return output.read_bytes()


def slice_name(run_id: str, step: int, module: str | None) -> str:
    """A file name that says what is in it, and that TensorBoard looks for."""
    words = "".join(letter if letter.isalnum() else "-" for letter in module or "").strip("-")
    return f"{run_id}-step{step}{f'-{words}' if words else ''}{TRACE_SUFFIX}"
