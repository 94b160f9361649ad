"""Trace worker: opens traces in a process of its own (profiler.traces), with limits on size, time and memory.

What a file does to that process (memory, endless text, a crash of a library) never reaches who asked; the answer is its
result, or one line that says what to do. No measurement's queue is involved: the work takes seconds, and yields.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.record import Record
from runs.job_queue import ROOT, python_environment

_REFUSED = 2  # profiler.traces.__main__: the file or the request is at fault
# One thread and few arenas: address space is what is limited, and threads reserve it without using it.
_FRUGAL = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS"), "1"),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}


class TraceError(ValueError):
    """Why a trace could not be opened, in one line that names the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a foreign file may take. 2 GB of text (5.6 million events) took 1.5 GiB and a minute on one slow core."""

    max_gb: float = 2.5  # of text, unpacked; and of the file
    timeout_s: float = 600.0
    memory_gib: float = 8.0

    @property
    def max_bytes(self) -> int:
        return int(self.max_gb * 1e9)

    @property
    def memory_bytes(self) -> int:
        """The limit, or four fifths of what this machine has free now."""
        return int(min(self.memory_gib * 2**30, 0.8 * _available_bytes()))


LIMITS = Limits()


def trace_of(record: Record, folder: Path) -> Path:
    """The trace that a run kept. Raises TraceError where it is not in its folder."""
    trace = folder / record.trace_file if record.trace_file else None
    if trace is None or not trace.is_file():
        raise TraceError(f"{record.run_id} has no trace here: it kept none, or was packed without (pack --traces)")
    return trace


def run_worker(command: str, source: Path, target: Path, options: Sequence[str], limits: Limits, name: str) -> Any:
    """What the worker answers, from its JSON. Raises TraceError."""
    arguments = [command, str(source), str(target), "--name", name, *options]
    arguments += ["--max-bytes", str(limits.max_bytes), "--memory-bytes", str(limits.memory_bytes)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "profiler.traces", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=limits.timeout_s, start_new_session=True,
            env=python_environment() | _FRUGAL, cwd=ROOT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TraceError(
            f"{name} took more than {limits.timeout_s:g} s: profile fewer steps, or give it longer with --timeout"
        ) from None
    if done.returncode == 0:
        return json.loads(done.stdout)
    if done.returncode == _REFUSED:
        raise TraceError(done.stdout.decode(errors="replace").strip())
    raise TraceError(_explain(done, name))


def _explain(done: subprocess.CompletedProcess[bytes], name: str) -> str:
    """Why the worker died, where it could not say so itself."""
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            word = signal.Signals(-done.returncode).name
            return f"{name} ended its reader ({word}, most often memory): profile fewer steps, or free memory"
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
    return f"{name} cannot be read ({last}): this is a fault of Steplens, please report it with the file"


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
