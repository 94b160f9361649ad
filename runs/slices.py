"""Slices: one step of a run's trace, or one module in it, as a small trace to pass on."""

import os
import tempfile
from pathlib import Path

from profiler.record import Record
from runs.trace_worker import LIMITS, Limits, TraceError, run_worker

__all__ = ["SUFFIX", "TraceError", "slice_bytes", "slice_name", "write_slice"]

SUFFIX = ".pt.trace.json.gz"


def write_slice(
    folder: Path, output: Path, *, step: int = 0, module: str | None = None, limits: Limits = LIMITS
) -> int:
    """Write the slice of a run folder's trace to `output`; its number of events. Raises TraceError with the remedy."""
    trace = _trace_of(folder)
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
        output = Path(place) / f"slice{SUFFIX}"
        write_slice(folder, output, step=step, module=module)
        return output.read_bytes()


def slice_name(run_id: str, step: int, module: str | None) -> str:
    """A file name that says what is in it, and that TensorBoard looks for."""
    words = "".join(letter if letter.isalnum() else "-" for letter in module or "").strip("-")
    return f"{run_id}-step{step}{f'-{words}' if words else ''}{SUFFIX}"


def _trace_of(folder: Path) -> Path:
    record = Record.read(folder)
    trace = folder / record.trace_file if record.trace_file else None
    if trace is None or not trace.is_file():
        raise TraceError(f"{record.run_id} has no trace here: it kept none, or was packed without (pack --traces)")
    return trace
